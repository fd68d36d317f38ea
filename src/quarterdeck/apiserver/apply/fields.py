"""Sets of field paths, kept in the very form of ``fieldsV1``: nested maps keyed by path element.

Below the top, ``{}`` is a member without children and ``"."`` marks a member that has some. At the top ``{}``
is the empty set. Path elements: ``f:<name>``, ``k:<json of the keys>``, ``v:<json of the value>``, ``i:<index>``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

FieldSet = dict[str, Any]


def is_member(node: FieldSet) -> bool:
    return not node or "." in node


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """Paths in either set. The result may share parts with both; sets are never changed in place."""
    if not left:
        return right
    result = dict(left)
    for element, node in right.items():
        known = result.get(element)
        result[element] = node if known is None else _union_node(known, node)
    return result


def _union_node(left: FieldSet, right: FieldSet) -> FieldSet:
    if left == right:
        return left
    result = union(left, right)
    if is_member(left) or is_member(right):
        result = {".": {}, **result}
    return result


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """Paths of ``left`` that are not in ``right``; a path in ``right`` says nothing about those below it."""
    result: FieldSet = {}
    for element, node in left.items():
        other = right.get(element)
        rest = node if other is None else _difference_node(node, other)
        if rest is not None:
            result[element] = rest
    return result


def _difference_node(left: FieldSet, right: FieldSet) -> FieldSet | None:
    children = difference({k: v for k, v in left.items() if k != "."}, right)
    if is_member(left) and not is_member(right):
        return {".": {}, **children} if children else {}
    return children or None


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    """Paths in both sets."""
    result: FieldSet = {}
    for element, node in left.items():
        other = right.get(element)
        if other is None:
            continue
        children = intersection(
            {k: v for k, v in node.items() if k != "."}, {k: v for k, v in other.items() if k != "."}
        )
        if is_member(node) and is_member(other):
            result[element] = {".": {}, **children} if children else {}
        elif children:
            result[element] = children
    return result


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """Every member as ``.spec.containers[name="x"].image``, sorted within each level as upstream prints conflicts."""
    for element in sorted(fields):
        if element == ".":
            continue
        node, path = fields[element], prefix + _printed(element)
        if is_member(node):
            yield path
        yield from paths(node, path)


def _printed(element: str) -> str:
    kind, _, rest = element.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        keys: dict[str, Any] = json.loads(rest)
        return "[" + ",".join(f"{key}={_scalar(value)}" for key, value in sorted(keys.items())) + "]"
    if kind == "v":
        return f"[={_scalar(json.loads(rest))}]"
    return f"[{rest}]"


def _scalar(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
