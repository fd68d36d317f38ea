"""The scale subresource: autoscaling/v1 Scale over the replicas of built-in and custom kinds."""

from __future__ import annotations

from typing import Any, cast

from quarterdeck.apiserver.kinds import Kind, ScaleSpec
from quarterdeck.apiserver.selectors import format_selector
from quarterdeck.errors import BadRequest, Cause, Invalid
from quarterdeck.kube.resource import Object


def _at(obj: Object, path: str) -> Any:
    value: Any = obj
    for key in path.strip(".").split("."):
        if not isinstance(value, dict):
            return None
        value = cast(Object, value).get(key)
    return value


def to_scale(kind: Kind, obj: Object) -> Object:
    """The Scale of an object."""
    paths = kind.scale or ScaleSpec()
    metadata: Object = obj["metadata"]
    keys = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    kept = {k: metadata[k] for k in keys if k in metadata}
    status: Object = {"replicas": int(_at(obj, paths.status_replicas) or 0)}
    selector = _at(obj, paths.label_selector) if paths.label_selector else None
    if selector:
        status["selector"] = selector if isinstance(selector, str) else format_selector(selector)
    replicas = _at(obj, paths.spec_replicas)
    spec: Object = {} if replicas is None else {"replicas": int(replicas)}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": kept, "spec": spec, "status": status}


def from_scale(kind: Kind, live: Object, scale: Object) -> Object:
    """``live`` with the replicas (and the version precondition) of a Scale. Raises BadRequest or Invalid."""
    if scale.get("kind", "Scale") != "Scale":
        raise BadRequest(f"the body of a scale request must be a Scale, not {scale.get('kind')}")
    replicas: Any = (scale.get("spec") or {}).get("replicas", 0)
    name = str(live["metadata"]["name"])
    if not isinstance(replicas, int) or replicas < 0:
        text = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise Invalid(
            f'Scale.autoscaling "{name}" is invalid: spec.replicas: {text}', name=name, group="autoscaling",
            kind="Scale", causes=(Cause("spec.replicas", text),),
        )  # fmt: skip
    *parents, last = (kind.scale or ScaleSpec()).spec_replicas.strip(".").split(".")
    target: Object = live
    for key in parents:
        target = target.setdefault(key, {})
    target[last] = replicas
    metadata: Object = scale.get("metadata") or {}
    for key in ("resourceVersion", "uid"):
        if metadata.get(key):
            live["metadata"][key] = metadata[key]
    return live
