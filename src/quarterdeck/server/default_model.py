"""The ModelConfig that agents use when they name none: the provider whose key is at hand, else the scripted model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from quarterdeck.controllers.bootstrap import default_model_config, scripted_model
from quarterdeck.errors import NotFound, QuarterdeckError
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import MODEL_CONFIG, SECRET, Object
from quarterdeck.wire.client import Pool

NAMESPACE = "kagent"
CHOSEN = "quarterdeck.dev/chosen"
"""Annotation: digest of the spec we chose. While it matches the spec, nobody has edited the object."""
_OLLAMA = "http://127.0.0.1:11434"


@dataclass(frozen=True, slots=True)
class Choice:
    """A spec, and the key it needs: (secret name, key name, value)."""

    spec: Object
    secret: tuple[str, str, str] | None = None


_PROVIDERS = (
    ("OPENAI_API_KEY", "OpenAI", "gpt-4.1-mini", "kagent-openai"),
    ("ANTHROPIC_API_KEY", "Anthropic", "claude-haiku-4-5", "kagent-anthropic"),
    ("GOOGLE_API_KEY", "Gemini", "gemini-2.5-flash", "kagent-gemini"),
)


def from_environment(environment: Mapping[str, str]) -> Choice | None:
    """The provider whose key is set, in the order OpenAI, Anthropic, Google."""
    for variable, provider, model, secret in _PROVIDERS:
        value = environment.get(variable, "").strip()
        if value:
            spec = {"provider": provider, "model": model, "apiKeySecret": secret, "apiKeySecretKey": variable}
            return Choice(spec, (secret, variable, value))
    return None


async def choose(environment: Mapping[str, str]) -> Choice:
    """Keys first, then a reachable Ollama with a model, else the scripted model."""
    chosen = from_environment(environment)
    if chosen is not None:
        return chosen
    host = environment.get("OLLAMA_HOST", "").strip() or _OLLAMA
    model = await _ollama_model(host)
    if model:
        return Choice({"provider": "Ollama", "model": model, "ollama": {"host": host}})
    return Choice(scripted_model())


async def ensure(client: KubeClient, choice: Choice, namespace: str = NAMESPACE) -> None:
    """Create or renew ``default-model-config``; one that somebody edited is left as it is."""
    if choice.secret is not None:
        name, key, value = choice.secret
        secret: Object = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "Opaque",
            "stringData": {key: value},
        }
        await client.apply(SECRET, secret)
    wanted = default_model_config(choice.spec, namespace)
    wanted["metadata"]["annotations"] = {CHOSEN: digest(wanted["spec"])}
    try:
        found = await client.get(MODEL_CONFIG, "default-model-config", namespace)
    except NotFound:
        found = None
    if found is None:
        created = await client.apply(MODEL_CONFIG, wanted)
        await _sign(client, created)
        return
    untouched = found["metadata"].get("annotations", {}).get(CHOSEN) == digest(found["spec"])
    if untouched and not covers(found["spec"], choice.spec):
        await client.delete(MODEL_CONFIG, "default-model-config", namespace)
        await _sign(client, await client.apply(MODEL_CONFIG, wanted))


async def _sign(client: KubeClient, stored: Object) -> None:
    """Note the digest of the spec as the server defaulted it, which is what an edit would change."""
    patch = {"metadata": {"annotations": {CHOSEN: digest(stored["spec"])}}}
    await client.patch(MODEL_CONFIG, "default-model-config", patch, stored["metadata"]["namespace"])


def covers(spec: Object, wanted: Object) -> bool:
    """Whether every field wanted is there with that value."""
    return all(spec.get(key) == value for key, value in wanted.items())


def digest(spec: Object) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


async def _ollama_model(host: str) -> str:
    """The first model of a reachable Ollama; empty when there is none."""
    parts = urlsplit(host if "://" in host else f"http://{host}")
    if parts.hostname is None:
        return ""
    pool = Pool(connect_timeout=0.3)
    try:
        secure = parts.scheme == "https"
        origin = (parts.hostname, parts.port or (443 if secure else 11434), secure)
        response = await pool.request("GET", origin, "/api/tags", timeout=1.0)
        models = json.loads(await response.read()).get("models") or []
        return str(models[0]["name"]) if models else ""
    except (QuarterdeckError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    finally:
        pool.close()
