"""Strategic merge patch: lists merge by their declared key and directives steer the merge.

Follows apimachinery's strategicpatch: ``$patch``, ``$retainKeys``, ``$deleteFromPrimitiveList``, ``$setElementOrder``.
"""

from __future__ import annotations

from typing import Any

from quarterdeck.apiserver.schema import SchemaNode
from quarterdeck.errors import BadRequest

from .json_patch import copy_json, same_json

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_DELETE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"

JsonMap = dict[str, Any]


def strategic_merge(doc: JsonMap, patch: JsonMap, node: SchemaNode) -> JsonMap:
    """``doc`` merged with ``patch`` under the kind's schema; neither is changed or shared. Raises BadRequest."""
    if not isinstance(patch, dict):  # pyright: ignore[reportUnnecessaryIsInstance] — bodies come from the wire
        raise BadRequest("invalid strategic merge patch: the patch must be an object")
    return _merge_map(copy_json(doc), patch, node)


def _child(node: SchemaNode | None, key: str) -> SchemaNode | None:
    return node.child(key) if node is not None else None


def _strategies(node: SchemaNode | None) -> tuple[str, ...]:
    return tuple(node.patch_strategy.split(",")) if node is not None and node.patch_strategy else ()


def _merge_map(original: JsonMap, patch: JsonMap, node: SchemaNode | None) -> JsonMap:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return _plain({key: value for key, value in patch.items() if key != _DIRECTIVE})
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise BadRequest(f"unknown patch type found: {directive}")
    result = _retain(original, patch)
    ordered: set[str] = set()
    for key, order in patch.items():
        if key.startswith(_ORDER):
            ordered.add(key.removeprefix(_ORDER))
            _merge_ordered(result, patch, key.removeprefix(_ORDER), order, node)
    for key, value in patch.items():
        if key.startswith(_DELETE):
            _delete_primitives(result, key.removeprefix(_DELETE), value)
        elif not key.startswith("$") and key not in ordered:
            _merge_field(result, key, value, _child(node, key))
    return result


def _merge_field(result: JsonMap, key: str, value: Any, node: SchemaNode | None) -> None:
    if value is None:
        result.pop(key, None)
        return
    current = result.get(key)
    if isinstance(value, dict):
        if isinstance(current, dict) and "replace" not in _strategies(node):
            result[key] = _merge_map(current, value, node)
        else:
            result[key] = _plain(value)
    elif isinstance(value, list):
        result[key] = _merge_list(current, value, node) if isinstance(current, list) else _plain_list(value)
    else:
        result[key] = value


def _retain(original: JsonMap, patch: JsonMap) -> JsonMap:
    keep = patch.get(_RETAIN)
    if keep is None:
        return dict(original)
    if not isinstance(keep, list):
        raise BadRequest("invalid patch format of retainKeys")
    names = set(keep)
    if any(key not in names for key, value in patch.items() if not key.startswith("$") and value is not None):
        raise BadRequest("invalid patch format of retainKeys")
    return {key: value for key, value in original.items() if key in names}


def _delete_primitives(result: JsonMap, key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise BadRequest(f"invalid patch format of {_DELETE}{key}: expected a list")
    current = result.get(key)
    if isinstance(current, list):
        result[key] = [item for item in current if not any(same_json(item, gone) for gone in values)]


def _plain(value: JsonMap) -> JsonMap:
    """A patch value standing where the document has nothing: without directives and nulls."""
    if value.get(_DIRECTIVE) == "delete":
        return {}
    return {
        key: _plain(item) if isinstance(item, dict) else _plain_list(item) if isinstance(item, list) else item
        for key, item in value.items()
        if item is not None and not key.startswith("$")
    }


def _plain_list(values: list[Any]) -> list[Any]:
    plain: list[Any] = []
    for item in values:
        if not isinstance(item, dict):
            plain.append(copy_json(item))
        elif _DIRECTIVE not in item:
            plain.append(_plain(item))
        elif item[_DIRECTIVE] not in ("delete", "replace", "merge"):
            raise BadRequest(f"unknown patch type found: {item[_DIRECTIVE]}")
        elif item[_DIRECTIVE] == "merge":
            plain.append(_plain(item))
    return plain


def _merge_list(original: list[Any], patch: list[Any], node: SchemaNode | None) -> list[Any]:
    if node is None or "merge" not in _strategies(node):
        return _plain_list(patch)
    if not node.merge_key:
        merged = list(original)
        for item in patch:
            if not any(same_json(item, known) for known in merged):
                merged.append(item)
        return merged
    return _merge_by_key(original, patch, node)


def _key_of(item: Any, merge_key: str) -> Any:
    if not isinstance(item, dict) or merge_key not in item:
        raise BadRequest(f"map: {item} does not contain declared merge key: {merge_key}")
    return item[merge_key]


def _merge_by_key(original: list[Any], patch: list[Any], node: SchemaNode) -> list[Any]:
    merge_key = node.merge_key
    merged = list(original)
    directives = [item for item in patch if isinstance(item, dict) and _DIRECTIVE in item]
    if any(item[_DIRECTIVE] == "replace" for item in directives):
        return _plain_list(patch)
    for item in directives:
        if item[_DIRECTIVE] == "delete":
            gone = _key_of(item, merge_key)
            merged = [old for old in merged if not (isinstance(old, dict) and same_json(old.get(merge_key), gone))]
        elif item[_DIRECTIVE] != "merge":
            raise BadRequest(f"unknown patch type found: {item[_DIRECTIVE]}")
    for item in patch:
        key = _key_of(item, merge_key)
        if item.get(_DIRECTIVE) == "delete":
            continue
        for index, old in enumerate(merged):
            if isinstance(old, dict) and same_json(old.get(merge_key), key):
                merged[index] = _merge_map(old, item, node.items)
                break
        else:
            merged.append(_plain(item))
    return merged


def _merge_ordered(result: JsonMap, patch: JsonMap, key: str, order: Any, parent: SchemaNode | None) -> None:
    """``$setElementOrder/key``: merge the list, then put what the client knows in its order among the rest."""
    if not isinstance(order, list):
        raise BadRequest(f"invalid patch format of {_ORDER}{key}: expected a list")
    node = _child(parent, key)
    merge_key = node.merge_key if node is not None else ""
    if f"{_DELETE}{key}" in patch:
        _delete_primitives(result, key, patch[f"{_DELETE}{key}"])
    current, change = result.get(key), patch.get(key)
    if key in patch and change is None:
        result.pop(key, None)
        return
    if current is None and change is None:
        return
    if current is None:
        merged = _plain_list(change or [])
    elif change is None:
        merged = list(current)
    else:
        merged = _merge_list(current, change, node)
    wanted = [_order_key(item, merge_key) for item in order]
    server = [item.get(merge_key) if merge_key else item for item in current or ()]
    result[key] = _interleave(merged, wanted, server, merge_key)


def _order_key(item: Any, merge_key: str) -> Any:
    return _key_of(item, merge_key) if merge_key else item


def _position(keys: list[Any], key: Any) -> int:
    return next((index for index, known in enumerate(keys) if same_json(known, key)), -1)


def _interleave(merged: list[Any], wanted: list[Any], server: list[Any], merge_key: str) -> list[Any]:
    keyed = [(_order_key(item, merge_key), item) for item in merged]
    ours = sorted((pair for pair in keyed if _position(wanted, pair[0]) >= 0), key=lambda p: _position(wanted, p[0]))
    theirs = [pair for pair in keyed if _position(wanted, pair[0]) < 0]
    ordered: list[Any] = []
    while ours and theirs:
        left, right = _position(server, theirs[0][0]), _position(server, ours[0][0])
        source = theirs if left >= 0 and right >= 0 and left < right else ours
        ordered.append(source.pop(0)[1])
    return ordered + [item for _, item in theirs + ours]
