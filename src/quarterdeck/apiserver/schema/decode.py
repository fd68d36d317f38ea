"""Reading a request body as a built-in kind: what Go's strict JSON decoder and re-encoding would do to it.

One walk over the object checks types (BadRequest), converts what Go would write differently (quantities, nulls, empty
optional lists and maps) and drops fields the kind does not have.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from quarterdeck.errors import BadRequest
from quarterdeck.kube.resource import Object

from . import quantity
from .definitions import go_type
from .node import SchemaNode

_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")
_INT_RANGE = {"int32": 2**31, "int64": 2**63, "": 2**63}
_GO_SCALAR = {"string": "string", "boolean": "bool", "number": "float64"}


class _Mismatch(Exception):
    """A value the decoder refuses. ``text`` may contain {field}, filled in while the walk unwinds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.struct = ""
        self.path: list[str] = []


def decode(node: SchemaNode, obj: Object, version: str, kind: str) -> None:
    """Check and normalise ``obj`` in place against a built-in kind. Raises BadRequest as the API server words it."""
    try:
        _struct(node, obj)
    except _Mismatch as error:
        path = ".".join(reversed(error.path))
        text = error.text.replace("{field}", f"Go struct field {error.struct}.{path}")
        raise BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: {text}') from None


def unknown_fields(node: SchemaNode, obj: Object) -> list[str]:
    """``unknown field "spec.foo"`` for every field the schema does not have, in document order."""
    found: list[str] = []
    _unknown(node, obj, "", found)
    return found


def _unknown(node: SchemaNode, value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, dict):
        properties = node.properties
        if not properties:
            child = node.additional
            if isinstance(child, SchemaNode) and (child.properties or child.items or child.additional):
                for key, item in value.items():
                    _unknown(child, item, f"{path}.{key}" if path else str(key), found)
            return
        for key, item in value.items():
            field = properties.get(key)
            if field is None:
                if not node.preserve_unknown:
                    found.append(f'unknown field "{path}.{key}"' if path else f'unknown field "{key}"')
            elif isinstance(item, (dict, list)):
                _unknown(field, item, f"{path}.{key}" if path else key, found)
    elif isinstance(value, list) and node.items is not None:
        for index, item in enumerate(value):
            _unknown(node.items, item, f"{path}[{index}]", found)


def _go_name(node: SchemaNode) -> str:
    named = go_type(node)
    if named:
        return named
    if node.type == "array":
        return "[]uint8" if node.items is None else "[]" + _go_name(node.items)
    if node.type == "object":
        values = node.additional
        return "map[string]" + (_go_name(values) if isinstance(values, SchemaNode) else "interface {}")
    if node.type == "integer":
        return node.format or "int64"
    return _GO_SCALAR.get(node.type, "interface {}")


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return {str: "string", list: "array", dict: "object"}.get(type(value), "null")


def _mismatch(node: SchemaNode, value: Any) -> _Mismatch:
    shown = _json_type(value)
    if shown == "number" and node.type in ("integer", "number"):
        shown = f"number {value}"
    return _Mismatch(f"json: cannot unmarshal {shown} into {{field}} of type {_go_name(node)}")


def _struct(node: SchemaNode, value: Any) -> None:
    properties = node.properties
    drop: list[str] | None = None
    for key, item in value.items():
        child = properties.get(key)
        if child is None or item is None:
            drop = [key] if drop is None else [*drop, key]
            continue
        try:
            new = _value(child, item)
        except _Mismatch as error:
            if not error.struct:
                error.struct = go_type(node).rpartition(".")[2]
            error.path.append(key)
            raise
        if new is not item:
            value[key] = new
        elif not new and _omitted_when_empty(child, item) and key not in node.required:
            drop = [key] if drop is None else [*drop, key]
    if drop:
        for key in drop:
            del value[key]


def _omitted_when_empty(child: SchemaNode, item: Any) -> bool:
    """Go leaves out empty slices and maps of optional fields; an empty struct (``emptyDir: {}``) means something."""
    return isinstance(item, list) or (isinstance(item, dict) and child.additional is not None)


def _value(node: SchemaNode, value: Any) -> Any:
    kind = node.type
    if kind == "object":
        if not isinstance(value, dict):
            raise _mismatch(node, value)
        if node.properties:
            _struct(node, value)
        elif isinstance(node.additional, SchemaNode):
            _map(node.additional, value)
        return value
    if kind == "array":
        if not isinstance(value, list):
            raise _mismatch(node, value)
        if node.items is not None:
            _list(node.items, value)
        return value
    if kind == "string":
        return value if isinstance(value, str) and not node.format else _string(node, value)
    if kind == "integer":
        return _integer(node, value)
    if kind == "boolean":
        if not isinstance(value, bool):
            raise _mismatch(node, value)
        return value
    return _special(node, value)


def _map(child: SchemaNode, value: dict[str, Any]) -> None:
    for key, item in value.items():
        new = _zero(child) if item is None else _value(child, item)
        if new is not item:
            value[key] = new


def _list(child: SchemaNode, value: list[Any]) -> None:
    for index, item in enumerate(value):
        new = _zero(child) if item is None else _value(child, item)
        if new is not item:
            value[index] = new


def _zero(node: SchemaNode) -> Any:
    """What a null becomes inside a Go slice or map of non-pointer values."""
    zeros: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False}
    if node.format == "quantity":
        return "0"
    return zeros.get(node.type, {})


def _integer(node: SchemaNode, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _mismatch(node, value)
    whole = int(value)
    limit = _INT_RANGE.get(node.format, 2**63)
    if whole != value or not -limit <= whole < limit:
        raise _mismatch(node, value)
    return value if isinstance(value, int) else whole


def _string(node: SchemaNode, value: Any) -> str:
    if not isinstance(value, str):
        raise _mismatch(node, value)
    if node.format == "date-time" and not _TIME.match(value):
        layout = "2006-01-02T15:04:05Z07:00"
        raise _Mismatch(f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"')
    if node.format == "byte":
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            position = next((i for i, c in enumerate(value) if not (c.isalnum() or c in "+/=")), len(value) // 4 * 4)
            raise _Mismatch(f"illegal base64 data at input byte {position}") from None
    return value


def _special(node: SchemaNode, value: Any) -> Any:
    if node.format == "quantity":
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise _mismatch(node, value)
        try:
            text = quantity.canonical(str(value))
        except ValueError as error:
            raise _Mismatch(str(error)) from None
        return value if text == value else text
    wrong = node.int_or_string and (isinstance(value, bool) or not isinstance(value, (str, int)))
    if wrong or (node.type == "number" and (isinstance(value, bool) or not isinstance(value, (int, float)))):
        raise _mismatch(node, value)
    return value
