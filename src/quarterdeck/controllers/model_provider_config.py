"""ModelProviderConfig: ask the provider which models it offers, once per generation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.kube import resource as k
from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object
from quarterdeck.malformed import MALFORMED
from quarterdeck.resources.base import parse
from quarterdeck.resources.model_provider_config import ModelProviderConfigSpec
from quarterdeck.translate.resolve import resolve
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Header
from quarterdeck.wire.tls import client_context

from .context import Context, Verdict

_ENDPOINTS = {
    "OpenAI": "https://api.openai.com",
    "Anthropic": "https://api.anthropic.com",
    "Gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "Ollama": "http://127.0.0.1:11434",
}
_RETRY = 60.0


def controller(context: Context) -> Controller:
    def users(obj: Object) -> Iterable[Key]:
        metadata = obj["metadata"]
        for config in context.list(k.MODEL_PROVIDER_CONFIG, metadata["namespace"]):
            if ((config.get("spec") or {}).get("secretRef") or {}).get("name") == metadata["name"]:
                yield Key(metadata["namespace"], config["metadata"]["name"])

    return Controller(
        "modelproviderconfig",
        k.MODEL_PROVIDER_CONFIG,
        ModelProviderConfigReconciler(context).reconcile,
        maps=((k.SECRET, users),),
        reads=(k.SERVICE, k.ENDPOINT_SLICE),
    )


@dataclass(slots=True)
class ModelProviderConfigReconciler:
    context: Context

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.MODEL_PROVIDER_CONFIG, key)
        if obj is None:
            return None
        try:
            spec = parse(ModelProviderConfigSpec, obj.get("spec") or {}, f"ModelProviderConfig {key}")
            secret = self._secret(key.namespace, spec)
        except ConfigError as error:
            verdicts = [
                Verdict("SecretResolved", False, "SecretNotFound", str(error)),
                Verdict("Ready", False, "NotReady", str(error)),
            ]
            await self.context.set_status(k.MODEL_PROVIDER_CONFIG, obj, verdicts)
            return None
        reason = "SecretResolved" if secret else "SecretNotRequired"
        resolved = Verdict("SecretResolved", True, reason, "The key is available" if secret else "No key is needed")
        if self._done(obj):
            await self.context.set_status(k.MODEL_PROVIDER_CONFIG, obj, [resolved])
            return None
        try:
            models = await self._models(key.namespace, spec, secret)
        except (ConfigError, UpstreamError, TimedOut) as error:
            verdicts = [
                resolved,
                Verdict("ModelsDiscovered", False, "DiscoveryFailed", str(error)),
                Verdict("Ready", False, "NotReady", str(error)),
            ]
            await self.context.set_status(k.MODEL_PROVIDER_CONFIG, obj, verdicts)
            return Result(_RETRY)
        verdicts = [
            resolved,
            Verdict("ModelsDiscovered", True, "ModelsDiscovered", f"Discovered {len(models)} models"),
            Verdict("Ready", True, "Ready", "The provider is ready"),
        ]
        now = timestamp(self.context.set.clock.time())
        fields: Object = {"discoveredModels": models, "modelCount": len(models), "lastDiscoveryTime": now}
        await self.context.set_status(k.MODEL_PROVIDER_CONFIG, obj, verdicts, fields)
        return None

    def _done(self, obj: Object) -> bool:
        status = obj.get("status") or {}
        found = get_condition(status.get("conditions"), "ModelsDiscovered") or {}
        return found.get("status") == "True" and found.get("observedGeneration") == obj["metadata"].get("generation")

    def _secret(self, namespace: str, spec: ModelProviderConfigSpec) -> str:
        """The key, empty when none is needed. Raises ConfigError."""
        if spec.secret_ref is None:
            if spec.type in ("Ollama", "Scripted"):
                return ""
            raise ConfigError(f"spec.secretRef is required for type {spec.type}")
        return self.context.values().secret(namespace, spec.secret_ref.name, "")

    async def _models(self, namespace: str, spec: ModelProviderConfigSpec, key: str) -> list[str]:
        base = (spec.endpoint or _ENDPOINTS.get(spec.type, "")).rstrip("/")
        if not base:
            raise ConfigError(f"spec.endpoint is required to discover the models of type {spec.type}")
        path = "/api/tags" if spec.type == "Ollama" else "/v1/models"
        if base.endswith(("/v1", "/openai")):
            path = path.removeprefix("/v1")
        services = self.context.services()
        upstream = resolve(base + path, services, namespace)
        if not upstream.endpoints:
            raise UpstreamError(f"{base}: the Service has no ready endpoints")
        headers: list[Header] = [(b"accept", b"application/json"), (b"host", upstream.authority.encode())]
        if key and spec.type == "Anthropic":
            headers += [(b"x-api-key", key.encode()), (b"anthropic-version", b"2023-06-01")]
        elif key:
            headers.append((b"authorization", f"Bearer {key}".encode()))
        first = upstream.endpoints[0]
        pool = Pool(
            tls=client_context() if upstream.tls else None,
            server_hostname=urlsplit(base).hostname if upstream.tls else None,
            refuse=self.context.refuse,
        )
        try:
            origin = (first.host, first.port, upstream.tls)
            response = await pool.request("GET", origin, upstream.path, headers, timeout=20.0)
            body = await response.read()
        finally:
            pool.close()
        if response.status != 200:
            raise UpstreamError(f"GET {base}{path}: HTTP {response.status}")
        return _names(body, f"{base}{path}")


def _names(body: bytes, url: str) -> list[str]:
    """Model names of an OpenAI-style or Ollama answer, sorted. Raises UpstreamError."""
    try:
        answer = msgspec.json.decode(body)
    except MALFORMED as error:
        raise UpstreamError(f"GET {url}: the answer is not JSON") from error
    entries = (answer.get("data") or answer.get("models") or []) if isinstance(answer, dict) else []
    names = {str(entry.get("id") or entry.get("name") or "") for entry in entries if isinstance(entry, dict)}
    return sorted(names - {""})
