"""A container's environment, command and arguments, as kubelet computes them (pure given the objects)."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from quarterdeck.errors import NotFound, QuarterdeckError
from quarterdeck.kube.quantity import parse_quantity
from quarterdeck.kube.resource import CONFIG_MAP, SECRET, Object, Resource

Fetch = Callable[[Resource, str], Awaitable[Object]]
"""Get an object of the Pod's namespace by name; raises errors.NotFound."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\)")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


class ConfigurationError(QuarterdeckError):
    """The container cannot be configured; becomes waiting reason CreateContainerConfigError."""

    reason = "CreateContainerConfigError"


class SandboxUnavailable(ConfigurationError):
    """The container needs more of the sandbox than this machine has."""

    reason = "SandboxUnavailable"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What field and resource references read from the node. ``cpu`` in cores, ``memory`` in bytes."""

    pod_ip: str
    host_ip: str
    cpu: float = 1.0
    memory: int = 1 << 30


def expand(text: str, values: Mapping[str, str]) -> str:
    """``$(NAME)`` → its value; ``$$(NAME)`` → ``$(NAME)``; unknown names stay as they are."""

    def replace(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return values.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replace, text)


async def environment(
    pod: Object, container: Object, facts: NodeFacts, fetch: Fetch, base: Mapping[str, str]
) -> dict[str, str]:
    """``base`` < envFrom < env. Raises ConfigurationError for a missing object or key that is not optional."""
    namespace = pod["metadata"]["namespace"]
    env = dict(base)
    for source in container.get("envFrom") or ():
        env |= await _from_source(source, namespace, fetch)
    for entry in container.get("env") or ():
        if entry.get("valueFrom"):
            value = await _value_from(pod, container, entry["valueFrom"], facts, fetch)
            if value is not None:
                env[entry["name"]] = value
        else:
            env[entry["name"]] = expand(str(entry.get("value") or ""), env)
    return env


async def _from_source(source: Object, namespace: str, fetch: Fetch) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for field, res, word in (("configMapRef", CONFIG_MAP, "configmap"), ("secretRef", SECRET, "secret")):
        ref = source.get(field)
        if ref is None:
            continue
        try:
            data = text_data(await fetch(res, ref["name"]))
        except NotFound as error:
            if ref.get("optional"):
                return {}
            raise ConfigurationError(f'{word} "{ref["name"]}" not found') from error
        return {prefix + k: v for k, v in data.items() if _NAME.fullmatch(prefix + k)}
    del namespace
    return {}


async def _value_from(pod: Object, container: Object, source: Object, facts: NodeFacts, fetch: Fetch) -> str | None:
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"], facts)
    if "resourceFieldRef" in source:
        return resource_value(pod, container, source["resourceFieldRef"], facts)
    secret = "secretKeyRef" in source
    ref = source["secretKeyRef"] if secret else source["configMapKeyRef"]
    name, key, optional = ref["name"], ref["key"], bool(ref.get("optional"))
    try:
        obj = await fetch(SECRET if secret else CONFIG_MAP, name)
    except NotFound as error:
        if optional:
            return None
        raise ConfigurationError(f'{"secret" if secret else "configmap"} "{name}" not found') from error
    data = text_data(obj)
    if key in data:
        return data[key]
    if optional:
        return None
    where = f"{pod['metadata']['namespace']}/{name}"
    raise ConfigurationError(f"couldn't find key {key} in {'Secret' if secret else 'ConfigMap'} {where}")


def text_data(obj: Object) -> dict[str, str]:
    """The keys of a ConfigMap or Secret as text."""
    if obj.get("kind") == "Secret" or "type" in obj:
        return {k: base64.b64decode(v or "").decode(errors="replace") for k, v in (obj.get("data") or {}).items()}
    return dict(obj.get("data") or {})


def bytes_data(obj: Object) -> dict[str, bytes]:
    """The keys of a ConfigMap (data and binaryData) or Secret as bytes."""
    if obj.get("kind") == "Secret" or "type" in obj:
        return {k: base64.b64decode(v or "") for k, v in (obj.get("data") or {}).items()}
    result = {k: str(v).encode() for k, v in (obj.get("data") or {}).items()}
    return result | {k: base64.b64decode(v) for k, v in (obj.get("binaryData") or {}).items()}


def field_value(pod: Object, path: str, facts: NodeFacts) -> str:
    """A downward API field. Raises ConfigurationError for a path the API does not know."""
    meta = pod["metadata"]
    match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if match:
        return str((meta.get(match.group(1)) or {}).get(match.group(2), ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs: dict[str, Any] = meta.get(path.rpartition(".")[2]) or {}
        return "\n".join(f'{k}="{_quote(str(v))}"' for k, v in sorted(pairs.items()))
    values = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path not in values:
        raise ConfigurationError(f"fieldRef {path!r} is not a field of the downward API")
    return str(values[path])


def _quote(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(pod: Object, container: Object, ref: Object, facts: NodeFacts) -> str:
    """``limits.cpu`` and the like, divided by ``divisor`` and rounded up; a missing limit is the node's capacity."""
    named = ref.get("containerName")
    if named:
        every = (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"])
        container = next((c for c in every if c["name"] == named), container)
    kind, _, name = str(ref["resource"]).partition(".")
    resources = container.get("resources") or {}
    value = (resources.get(kind) or {}).get(name)
    if value is None and kind == "limits":
        value = {"cpu": facts.cpu, "memory": facts.memory}.get(name, 0)
    amount = parse_quantity(value if value is not None else 0)
    divisor = parse_quantity(ref.get("divisor") or 1) or Decimal(1)
    return str((amount / divisor).to_integral_value(rounding=ROUND_CEILING))
