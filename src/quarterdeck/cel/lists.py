"""List functions: Kubernetes' list library, CEL's lists and sets extensions, join."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from quarterdeck.cel import types
from quarterdeck.cel.errors import EvalError, no_overload
from quarterdeck.cel.function import Function
from quarterdeck.cel.operators import add, checked, greater, less
from quarterdeck.cel.values import contains, equals, type_name

_MAX_ITEMS = 100_000


def _is_sorted(items: list[Any]) -> bool:
    return not any(greater(left, right) for left, right in pairwise(items))


def _sum(items: list[Any]) -> Any:
    total: Any = 0
    for at, item in enumerate(items):
        if isinstance(item, (str, list, dict, bool)) or item is None:
            raise no_overload(f"sum applied to {type_name(item)}")
        total = item if at == 0 else add(total, item)
    return total


def _extreme(better: Callable[[Any, Any], bool], name: str) -> Callable[[list[Any]], Any]:
    def call(items: list[Any]) -> Any:
        if not items:
            raise EvalError(f"{name} called on empty list")
        best = items[0]
        for item in items[1:]:
            if better(item, best):
                best = item
        return best

    return call


def _index_of(items: list[Any], value: Any) -> int:
    return next((at for at, item in enumerate(items) if equals(item, value)), -1)


def _last_index_of(items: list[Any], value: Any) -> int:
    return next((at for at in range(len(items) - 1, -1, -1) if equals(items[at], value)), -1)


def _join(items: list[Any], separator: str = "") -> str:
    if not all(type(item) is str for item in items):
        raise no_overload("join needs a list of strings")
    return separator.join(items)


def _flatten(items: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise EvalError("level must be non-negative")
    flat: list[Any] = []
    for item in items:
        flat.extend(_flatten(item, depth - 1) if depth and isinstance(item, list) else [item])
    return flat


def _slice(items: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end > len(items) or start > end:
        raise EvalError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return items[start:end]


def _sorted(items: list[Any]) -> list[Any]:
    if any(type(item) is not type(items[0]) for item in items):
        raise no_overload("list elements must have the same type")
    greater(items[0], items[0]) if items else None
    return sorted(items)


def _distinct(items: list[Any]) -> list[Any]:
    kept: list[Any] = []
    for item in items:
        if not contains(kept, item):
            kept.append(item)
    return kept


def _range(count: Any) -> list[int]:
    if type(count) is not int or count > _MAX_ITEMS:
        raise EvalError(f"lists.range takes an int up to {_MAX_ITEMS}")
    return list(range(checked(count)))


def _set_contains(items: list[Any], part: list[Any]) -> bool:
    return all(contains(items, value) for value in part)


def _set_equivalent(left: list[Any], right: list[Any]) -> bool:
    return _set_contains(left, right) and _set_contains(right, left)


def _set_intersects(left: list[Any], right: list[Any]) -> bool:
    return any(contains(left, value) for value in right)


def _lists(
    name: str, call: Callable[..., Any], *params: str, result: types.Type = types.DYN, optional: int = 0
) -> Function:
    def run(*args: Any) -> Any:
        for value, param in zip(args, ("list", *params), strict=False):
            if (param == "list" and not isinstance(value, (list, tuple))) or (
                param == "int" and type(value) is not int
            ):
                raise no_overload(f"{name} applied to {type_name(value)}")
        return call(*args)

    return Function(run, ("list", *params), result, optional)


MEMBERS: dict[str, Function] = {
    "isSorted": _lists("isSorted", _is_sorted, result=types.BOOL),
    "sum": _lists("sum", _sum),
    "min": _lists("min", _extreme(less, "min")),
    "max": _lists("max", _extreme(greater, "max")),
    "indexOf": _lists("indexOf", _index_of, "", result=types.INT),
    "lastIndexOf": _lists("lastIndexOf", _last_index_of, "", result=types.INT),
    "join": _lists("join", _join, "string", result=types.STRING, optional=1),
    "flatten": _lists("flatten", _flatten, "int", result=types.LIST, optional=1),
    "slice": _lists("slice", _slice, "int", "int", result=types.LIST),
    "sort": _lists("sort", _sorted, result=types.LIST),
    "distinct": _lists("distinct", _distinct, result=types.LIST),
    "reverse": _lists("reverse", lambda items: items[::-1], result=types.LIST),
}
FUNCTIONS: dict[str, Function] = {
    "lists.range": Function(_range, ("int",), types.list_of(types.INT)),
    "sets.contains": _lists("sets.contains", _set_contains, "list", result=types.BOOL),
    "sets.equivalent": _lists("sets.equivalent", _set_equivalent, "list", result=types.BOOL),
    "sets.intersects": _lists("sets.intersects", _set_intersects, "list", result=types.BOOL),
}
