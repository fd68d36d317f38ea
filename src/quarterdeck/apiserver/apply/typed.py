"""Values under a schema: which fields they set, how two of them differ, merge, and lose fields.

Follows structured-merge-diff (typed package): maps and structs are granular unless atomic, lists atomic unless "set" or
"map"; a place without a schema is deduced: maps granular, lists atomic. ``None`` counts as absent when comparing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from quarterdeck.apiserver.schema import MISSING, SchemaNode

from .fields import FieldSet, is_member

_DEDUCED = SchemaNode(preserve_unknown=True)

# Structs that Go objects always have (no pointers): they are never "added", only what is in them.
_ALWAYS_PRESENT = frozenset({"f:metadata", "f:spec", "f:status", "f:template", "f:strategy", "f:jobTemplate"})


class SchemaError(Exception):
    """A value that has no field set under its schema; ``path`` is filled in while unwinding."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.path = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(slots=True)
class Comparison:
    """Paths that the second value added, changed and removed."""

    added: FieldSet
    modified: FieldSet
    removed: FieldSet


def _associative(node: SchemaNode) -> bool:
    return node.list_type != "atomic" and node.items is not None


def _child(node: SchemaNode, key: str) -> tuple[SchemaNode, bool]:
    """The schema under ``key`` and whether it is a declared struct field. Raises SchemaError for an unknown one."""
    field = node.properties.get(key)
    if field is not None:
        return field, True
    if isinstance(node.additional, SchemaNode):
        return node.additional, False
    if node.properties and not node.preserve_unknown and node.additional is not True:
        error = SchemaError("field not declared in schema")
        error.path = f".{key}"
        raise error
    return _DEDUCED, False


def _lenient_child(node: SchemaNode, key: str) -> SchemaNode:
    return node.child(key) or _DEDUCED


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def list_element(node: SchemaNode, item: Any) -> str:
    """The path element of an item of a set or map list. Raises SchemaError when a key is missing."""
    if node.list_type == "set":
        return f"v:{_encode(item)}"
    if not isinstance(item, dict):
        raise SchemaError("associative list with keys may not have non-map elements")
    items = node.items or _DEDUCED
    keys: dict[str, Any] = {}
    for key in sorted(node.list_map_keys):
        value = item.get(key)
        if value is None:
            declared = items.properties.get(key)
            if declared is None or declared.default is MISSING:
                if len(node.list_map_keys) == 1:
                    raise SchemaError(
                        f'associative list with keys has an element that omits key field "{key}" '
                        "(and doesn't have default value)"
                    )
                continue
            value = declared.default
        keys[key] = value
    return f"k:{_encode(keys)}"


def field_set(node: SchemaNode, value: Any) -> FieldSet:
    """The fields an applied configuration sets (and so claims). Raises SchemaError for what the schema lacks."""
    if isinstance(value, dict):
        return {} if node.map_type == "atomic" else _map_fields(node, value)
    if isinstance(value, list) and _associative(node):
        return _list_fields(node, value)
    return {}


def _map_fields(node: SchemaNode, value: dict[str, Any]) -> FieldSet:
    result: FieldSet = {}
    for key, item in value.items():
        child, declared = _child(node, key)
        if isinstance(item, (dict, list)):
            try:
                below = field_set(child, item)
            except SchemaError as error:
                error.path = f".{key}{error.path}"
                raise
            if below and not declared:
                below = {".": {}, **below}
            elif isinstance(item, list) and not item and declared and _associative(child):
                continue  # an empty associative list claims nothing
            result[f"f:{key}"] = below
        else:
            result[f"f:{key}"] = {}
    return result


def _list_fields(node: SchemaNode, value: list[Any]) -> FieldSet:
    result: FieldSet = {}
    items = node.items or _DEDUCED
    for index, item in enumerate(value):
        try:
            element = list_element(node, item)
        except SchemaError as error:
            error.path = f"[{index}]{error.path}"
            raise
        if element in result:
            raise SchemaError(f"duplicate entries for key {element[2:]}")
        try:
            below = field_set(items, item)
        except SchemaError as error:
            error.path = f"[{index}]{error.path}"
            raise
        result[element] = {".": {}, **below} if below else {}
    return result


def all_fields(node: SchemaNode, value: Any) -> FieldSet:
    """Every path of a value that appeared or vanished as a whole, containers included."""
    if isinstance(value, dict):
        if node.map_type == "atomic" or not value:
            return {}
        result: FieldSet = {".": {}}
        for key, item in value.items():
            element, child = f"f:{key}", _lenient_child(node, key)
            below = all_fields(child, item) if isinstance(item, (dict, list)) else {}
            if element in _ALWAYS_PRESENT and len(below) > 1 and child.properties:
                below.pop(".", None)
            result[element] = below
        return result
    if isinstance(value, list) and value and _associative(node):
        items = node.items or _DEDUCED
        return {".": {}, **{list_element(node, item): all_fields(items, item) for item in value}}
    return {}


def compare(node: SchemaNode, left: Any, right: Any) -> Comparison:
    """How ``right`` differs from ``left``; both are objects of the kind ``node`` describes."""
    result = Comparison({}, {}, {})
    _compare_maps(node, left, right, result)
    return result


def _compare_value(node: SchemaNode, element: str, left: Any, right: Any, into: Comparison) -> None:
    if left == right or (left is None and right == []):  # the API server does not keep an empty list
        return
    if left is None:
        below = all_fields(node, right)
        if element in _ALWAYS_PRESENT and len(below) > 1 and node.properties:
            below.pop(".", None)
        into.added[element] = below
    elif right is None:
        into.removed[element] = all_fields(node, left)
    else:
        inner = Comparison({}, {}, {})
        if isinstance(left, dict) and isinstance(right, dict) and node.map_type != "atomic":
            _compare_maps(node, left, right, inner)
        elif isinstance(left, list) and isinstance(right, list) and _associative(node):
            _compare_lists(node, left, right, inner)
        else:
            into.modified[element] = {}
            return
        if inner.added:
            into.added[element] = inner.added
        if inner.modified:
            into.modified[element] = inner.modified
        if inner.removed:
            into.removed[element] = inner.removed


def _compare_maps(node: SchemaNode, left: dict[str, Any], right: dict[str, Any], into: Comparison) -> None:
    for key, value in right.items():
        old = left.get(key)
        if old != value:
            _compare_value(_lenient_child(node, key), f"f:{key}", old, value, into)
    for key, old in left.items():
        if key not in right and old is not None:
            into.removed[f"f:{key}"] = all_fields(_lenient_child(node, key), old)


def _compare_lists(node: SchemaNode, left: list[Any], right: list[Any], into: Comparison) -> None:
    items = node.items or _DEDUCED
    old = {list_element(node, item): item for item in left}
    new = {list_element(node, item): item for item in right}
    for element, item in new.items():
        _compare_value(items, element, old.get(element), item, into)
    for element, item in old.items():
        if element not in new:
            into.removed[element] = all_fields(items, item)


def merge(node: SchemaNode, left: Any, right: Any) -> Any:
    """``left`` with everything ``right`` says put over it. Neither is changed."""
    if isinstance(left, dict) and isinstance(right, dict) and node.map_type != "atomic":
        result = dict(left)
        for key, value in right.items():
            old = result.get(key)
            merging = isinstance(value, (dict, list)) and old is not None
            result[key] = merge(_lenient_child(node, key), old, value) if merging else value
        return result
    if isinstance(left, list) and isinstance(right, list) and _associative(node):
        return _merge_lists(node, left, right)
    return right


def _merge_lists(node: SchemaNode, left: list[Any], right: list[Any]) -> list[Any]:
    """Shared items in the order of ``right``; items only in ``left`` stay before the shared ones they preceded."""
    items = node.items or _DEDUCED
    ours = [(list_element(node, item), item) for item in right]
    wanted = {element for element, _ in ours}
    theirs = [(list_element(node, item), item) for item in left]
    known: dict[str, Any] = {}
    for element, item in theirs:
        known.setdefault(element, item)
    result: list[Any] = []
    done: set[str] = set()
    position = 0

    def keep_theirs() -> None:
        nonlocal position
        while position < len(theirs) and (theirs[position][0] not in wanted or theirs[position][0] in done):
            if theirs[position][0] not in wanted:
                result.append(theirs[position][1])
            position += 1

    for element, item in ours:
        keep_theirs()
        result.append(merge(items, known[element], item) if element in known else item)
        done.add(element)
    keep_theirs()
    return result


def remove_unowned(node: SchemaNode, value: Any, last: FieldSet, owned: FieldSet) -> Any:
    """``value`` without the fields of ``last`` that nobody owns any more; None when nothing is left of a container."""
    if isinstance(value, dict) and node.map_type != "atomic":
        return _remove_from_map(node, value, last, owned)
    if isinstance(value, list) and _associative(node):
        items = node.items or _DEDUCED
        kept: list[Any] = []
        for item in value:
            element = list_element(node, item)
            before = last.get(element)
            if before is None:
                kept.append(item)
                continue
            claims = owned.get(element)
            if claims is not None or not is_member(before):
                kept.append(_with_keys(node, item, remove_unowned(items, item, before, claims or {})))
        return kept or None
    return value


def _with_keys(node: SchemaNode, item: Any, rest: Any) -> Any:
    """An item that stays keeps its keys, whoever owned them: without them it could not be told from others."""
    if rest is item or node.list_type == "set":
        return rest if rest is not None else item
    return {key: item[key] for key in node.list_map_keys if key in item} | (rest or {})


def _remove_from_map(node: SchemaNode, value: dict[str, Any], last: FieldSet, owned: FieldSet) -> Any:
    result = dict(value)
    changed = False
    for element, before in last.items():
        key = element[2:]
        if element == "." or key not in result:
            continue
        claims = owned.get(element)
        if claims is None and (is_member(before) or key in node.properties):
            del result[key]
            changed = True
            continue
        rest = remove_unowned(_lenient_child(node, key), result[key], before, claims or {})
        if rest is not result[key]:
            changed = True
            if rest is None and claims is not None and is_member(claims):
                result[key] = [] if isinstance(result[key], list) else {}  # somebody wants it, if empty
            elif rest is None:
                del result[key]
            else:
                result[key] = rest
    if not changed:
        return value
    return result or None
