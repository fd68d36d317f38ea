"""Secrets and ConfigMaps that a workload's Pods read: which parts of them, and hashes that roll it when they change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quarterdeck.kube import resource as k
from quarterdeck.kube.resource import Object
from quarterdeck.translate.objects import digest, read_sources

from .context import Context


@dataclass(frozen=True, slots=True)
class Source:
    """One use of an object; ``key`` empty means all of it."""

    kind: str
    name: str
    key: str = ""
    optional: bool = False

    @property
    def label(self) -> str:
        """``Secret/name``"""
        return f"{self.kind}/{self.name}"


def sources_in_pod(pod: Object) -> set[Source]:
    """What a Pod spec mounts or takes variables from."""
    found: set[Source] = set()
    for volume in pod.get("volumes") or ():
        for part in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            found.update(_of_volume(part))
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        found.update(_of_container(container))
    return {source for source in found if source.name}


def _of_volume(part: Object) -> Iterator[Source]:
    secret, config_map = part.get("secret"), part.get("configMap")
    for kind, source in (("Secret", secret), ("ConfigMap", config_map)):
        if not source:
            continue
        name, optional = source.get("secretName") or source.get("name") or "", bool(source.get("optional"))
        keys = [item.get("key") or "" for item in source.get("items") or ()] or [""]
        yield from (Source(kind, name, key, optional) for key in keys)


def _of_container(container: Object) -> Iterator[Source]:
    for entry in container.get("envFrom") or ():
        for kind, field in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
            ref: Object = entry.get(field) or {}
            yield Source(kind, ref.get("name") or "", "", bool(ref.get("optional")))
    for variable in container.get("env") or ():
        value: Object = variable.get("valueFrom") or {}
        for kind, field in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
            ref = value.get(field) or {}
            yield Source(kind, ref.get("name") or "", ref.get("key") or "", bool(ref.get("optional")))


def hashes(context: Context, namespace: str, name: str, sources: Iterable[Source]) -> dict[str, str]:
    """Hashes of what the Deployment's Pods read, by ``Kind/name``.

    What is required and not there keeps the hash that the running Pods have: new ones could not start, and a Secret
    that is replaced by deleting and creating it rolls its users once, not twice.
    """
    live = context.get(k.DEPLOYMENT, namespace, name)
    template = ((live or {}).get("spec") or {}).get("template") or {}
    before = read_sources((template.get("metadata") or {}).get("annotations") or {})
    uses: dict[str, list[Source]] = {}
    for source in sources:
        uses.setdefault(source.label, []).append(source)
    return {label: _hash(context, namespace, found, before) for label, found in sorted(uses.items())}


def _hash(context: Context, namespace: str, uses: list[Source], before: Mapping[str, str]) -> str:
    first = uses[0]
    obj = context.get(k.SECRET if first.kind == "Secret" else k.CONFIG_MAP, namespace, first.name)
    data: dict[str, Any] = {}
    if obj is not None:
        data = {**(obj.get("data") or {}), **(obj.get("binaryData") or {})}
    missing = obj is None or any(use.key and use.key not in data for use in uses)
    if missing and first.label in before and not all(use.optional for use in uses):
        return before[first.label]
    if obj is None:
        return "absent"
    keys = {use.key for use in uses}
    return digest(data if "" in keys else {key: data.get(key) for key in sorted(keys)})[:16]


def missing(context: Context, namespace: str, sources: Iterable[Source]) -> list[str]:
    """``Kind namespace/name`` of required objects that are not there, ``… (no key k)`` of those without it; sorted."""
    found: set[str] = set()
    for source in sources:
        if source.optional:
            continue
        obj = context.get(k.SECRET if source.kind == "Secret" else k.CONFIG_MAP, namespace, source.name)
        where = f"{source.kind} {namespace}/{source.name}"
        if obj is None:
            found.add(where)
        elif source.key and source.key not in {**(obj.get("data") or {}), **(obj.get("binaryData") or {})}:
            found.add(f"{where} (no key {source.key})")
    return sorted(found)
