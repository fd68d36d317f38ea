"""What the scale subresource asks of an object beside its schema, worded as upstream's validation of custom objects."""

from __future__ import annotations

from typing import Any, cast

from quarterdeck.apiserver.crd import causes
from quarterdeck.apiserver.kinds import ScaleSpec
from quarterdeck.errors import Cause
from quarterdeck.kube.resource import Object

_LARGEST = 2**31 - 1
_GO_TYPES: dict[type, str] = {
    str: "string", bool: "bool", int: "int64", float: "float64", list: "[]interface {}",
    dict: "map[string]interface {}",
}  # fmt: skip


def validate_replicas(obj: Object, scale: ScaleSpec) -> list[Cause]:
    """Problems of the numbers of replicas in spec and status."""
    return [*_number(obj, scale.spec_replicas), *_number(obj, scale.status_replicas)]


def _number(obj: Object, path: str) -> list[Cause]:
    """``path`` without the leading dot."""
    value: Any = obj
    parts = path.split(".")
    for at, part in enumerate(parts):
        if value is None:
            return []
        if not isinstance(value, dict):
            return [_mistyped(path, parts[: at + 1], value, "map[string]interface{}")]
        if part not in value:
            return []
        value = cast(Object, value)[part]
    if type(value) is not int:
        return [_mistyped(path, parts, value, "int64")]
    if value < 0:
        return [causes.invalid(f".{path}", value, "should be a non-negative integer")]
    if value > _LARGEST:
        return [causes.invalid(f".{path}", value, f"should be less than or equal to {_LARGEST}")]
    return []


def _mistyped(path: str, at: list[str], value: Any, expected: str) -> Cause:
    shown = f".{'.'.join(at)} accessor error: {_go(value)} is of the type {_GO_TYPES.get(type(value), '<nil>')}"
    return causes.invalid(f".{path}", 0, f"{shown}, expected {expected}")


def _go(value: Any) -> str:
    """As Go's ``%v`` prints it."""
    if isinstance(value, list):
        return f"[{' '.join(_go(item) for item in cast(list[Any], value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_go(item)}' for key, item in sorted(cast(Object, value).items()))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "<nil>" if value is None else str(value)
