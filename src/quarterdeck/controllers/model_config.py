"""ModelConfig: check its Secrets, run its scripted server, report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.errors import ApiError, ConfigError
from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object, key_of
from quarterdeck.resources.conversion import model_spec
from quarterdeck.resources.model_config import ModelConfigSpec
from quarterdeck.translate.model import check, gateway_model
from quarterdeck.translate.scripted import selector, translate_scripted

from .context import PROGRAMMED, RESOLVED, Context, Verdict
from .workload import workload

_ACCEPTED = Verdict("Accepted", True, "ModelConfigReconciled", "Model configuration accepted")
_REFERENCES = "references"
_FAILED = "ModelConfigReconcileFailed"


def controller(context: Context) -> Controller:
    configs = context.set.informer(k.MODEL_CONFIG)
    configs.add_index(_REFERENCES, lambda obj: [_place(kind, obj, name) for kind, name in _references(obj)])

    def users(kind: str):
        def keys(obj: Object) -> Iterable[Key]:
            place = _place(kind, obj, obj["metadata"]["name"])
            return [k.key_of(config) for config in configs.by_index(_REFERENCES, place)]

        return keys

    return Controller(
        "modelconfig",
        k.MODEL_CONFIG,
        ModelConfigReconciler(context).reconcile,
        owns=(k.DEPLOYMENT, k.SERVICE, k.NETWORK_POLICY),
        maps=((k.SECRET, users("Secret")), (k.CONFIG_MAP, users("ConfigMap"))),
        reads=(k.ENDPOINT_SLICE, k.POD),
    )


def _place(kind: str, obj: Object, name: str) -> str:
    return f"{kind}/{obj['metadata']['namespace']}/{name}"


def _references(obj: Object) -> set[tuple[str, str]]:
    spec: Object = obj.get("spec") or {}
    tls, script = spec.get("tls") or {}, (spec.get("scripted") or {}).get("scriptFrom") or {}
    endpoint = (spec.get("foundry") or {}).get("endpointFrom") or {}
    legacy = str(spec.get("apiKeySecretRef") or "").rsplit("/", 1)[-1]
    found = {
        ("Secret", spec.get("apiKeySecret") or legacy),
        ("Secret", tls.get("caCertSecretRef") or ""),
        ("ConfigMap", script.get("name") or ""),
        ("ConfigMap", endpoint.get("name") or ""),
    }
    return {item for item in found if item[1]}


@dataclass(slots=True)
class ModelConfigReconciler:
    context: Context

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.MODEL_CONFIG, key)
        if obj is None:
            return None
        failure: ApiError | None = None
        secrets = {item for item in _references(obj) if item[0] == "Secret"}
        hashes = self.context.hashes(key.namespace, secrets)
        fields: Object = {"secretHash": "".join(hashes.values())[:64] or None}
        verdicts: list[Verdict] = []
        try:
            spec = model_spec(obj)
            self._check(key.namespace, spec)
            verdicts += [_ACCEPTED, RESOLVED]
            if spec.provider == "Scripted":
                await self._scripted(obj, spec)
                verdicts.append(PROGRAMMED)
            else:
                await self.context.remove(obj, (k.DEPLOYMENT, k.SERVICE, k.NETWORK_POLICY))
            verdicts.append(self._ready(obj, spec))
        except ConfigError as error:
            verdicts += [self.context.not_programmed(obj, error)] if verdicts else self.context.rejected(error, _FAILED)
            verdicts.append(Verdict("Ready", False, _FAILED, str(error)))
        except ApiError as error:
            failure = error
            problem = self.context.not_programmed(obj, error)
            verdicts += [problem, Verdict("Ready", False, _FAILED, problem.message)]
        await self.context.set_status(k.MODEL_CONFIG, obj, verdicts, fields)
        if failure is not None:
            raise failure
        return None

    async def _scripted(self, obj: Object, spec: ModelConfigSpec) -> None:
        script = ""
        if spec.scripted is not None and spec.scripted.script_from is not None:
            source = spec.scripted.script_from
            found = self.context.hashes(obj["metadata"]["namespace"], [("ConfigMap", source.name)])
            script = next(iter(found.values()))
        await self.context.apply(obj, translate_scripted(obj, spec, self.context.options, script))

    def _check(self, namespace: str, spec: ModelConfigSpec) -> None:
        """Raises ConfigError for what the gateway cannot call, and for missing Secrets, ConfigMaps and keys."""
        check(spec)
        values = self.context.values()
        sources = (
            spec.scripted.script_from if spec.scripted is not None else None,
            spec.foundry.endpoint_from if spec.foundry is not None else None,
        )
        for source in sources:
            if source is not None and not source.optional:
                values.config_map(namespace, source.name, source.key)
        if spec.api_key_secret:
            secret = self.context.get(k.SECRET, namespace, spec.api_key_secret)
            if secret is None or spec.api_key_secret_key:
                values.secret(namespace, spec.api_key_secret, spec.api_key_secret_key or "")
        if spec.tls is not None and spec.tls.ca_cert_secret_ref:
            values.secret(namespace, spec.tls.ca_cert_secret_ref, spec.tls.ca_cert_secret_key or "")

    def _ready(self, obj: Object, spec: ModelConfigSpec) -> Verdict:
        key = key_of(obj)
        if spec.provider == "Scripted":
            state = workload(self.context, key.namespace, key.name, selector(key.name), owner=obj)
            if state.available:
                return Verdict("Ready", True, "Ready", "The scripted model server is ready")
            return Verdict("Ready", False, *(state.trouble or ("NotReady", "The scripted model server is starting")))
        sources = self.context.values().sources(key.namespace)
        model = gateway_model(key.namespace, key.name, spec, sources, self.context.services())
        if model.error:
            return Verdict("Ready", False, "NotCallable", model.error)
        return Verdict("Ready", True, "Ready", "The gateway can call the model")
