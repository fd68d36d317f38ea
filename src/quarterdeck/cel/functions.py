"""The function tables: what a name means as a member (``x.f()``) and as a global or namespaced function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quarterdeck.cel import conversions, kubernetes, lists, networks, numbers, quantities, strings, times, types
from quarterdeck.cel.errors import EvalError, no_overload
from quarterdeck.cel.function import Function, Library, declare
from quarterdeck.cel.regex import matches
from quarterdeck.cel.values import NONE, Optional, type_name

__all__ = ["GLOBAL", "MEMBER", "STANDARD", "Function", "by_receiver", "namespaces"]


def _size(value: Any) -> int:
    if isinstance(value, (str, bytes, list, tuple, dict)):
        return len(value)
    raise no_overload(f"size applied to {type_name(value)}")


def _optional_value(value: Any) -> Any:
    if type(value) is not Optional:
        raise no_overload(f"value applied to {type_name(value)}")
    if not value.present:
        raise EvalError("optional.none() dereference")
    return value.value


def _has_value(value: Any) -> bool:
    if type(value) is not Optional:
        raise no_overload(f"hasValue applied to {type_name(value)}")
    return value.present


def _zero(value: Any) -> bool:
    return not value or (isinstance(value, (times.Timestamp, times.Duration)) and value.ns == 0)


def _pending(*_: Any) -> Any:
    raise no_overload("optional")


_STANDARD_GLOBAL = {
    "size": Function(_size, ("string|bytes|list|map",), types.INT),
    "matches": declare("matches", matches, "string string", types.BOOL),
    "optional.of": Function(lambda value: Optional(True, value), ("",), types.OPTIONAL),
    "optional.none": Function(lambda: NONE, (), types.OPTIONAL),
    "optional.ofNonZeroValue": Function(
        lambda value: NONE if _zero(value) else Optional(True, value), ("",), types.OPTIONAL
    ),
}
_STANDARD_MEMBER = {
    "size": _STANDARD_GLOBAL["size"],
    "matches": _STANDARD_GLOBAL["matches"],
    "startsWith": declare("startsWith", str.startswith, "string string", types.BOOL),
    "endsWith": declare("endsWith", str.endswith, "string string", types.BOOL),
    "contains": declare("contains", str.__contains__, "string string", types.BOOL),
    "hasValue": Function(_has_value, ("optional",), types.BOOL),
    "value": Function(_optional_value, ("optional",)),
    # Compiled lazily: the alternative is evaluated only for an empty optional.
    "orValue": Function(_pending, ("optional", "")),
    "or": Function(_pending, ("optional", "optional"), types.OPTIONAL),
}


def by_receiver(name: str, candidates: list[tuple[tuple[type, ...], Function]]) -> Function:
    """One member name with several receiver types."""
    longest = max((function for _, function in candidates), key=lambda function: len(function.params))
    least = min(len(function.params) - function.optional for _, function in candidates)

    def call(receiver: Any, *args: Any) -> Any:
        for kinds, function in candidates:
            if isinstance(receiver, kinds):
                return function.call(receiver, *args)
        raise no_overload(f"{name} applied to {type_name(receiver)}")

    if len(candidates) == 1:
        return Function(call, longest.params, longest.result, longest.optional)
    results = {function.result for _, function in candidates}
    result = results.pop() if len(results) == 1 else types.DYN
    return Function(call, ("",) * len(longest.params), result, len(longest.params) - least)


def _members() -> dict[str, Function]:
    table = dict(_STANDARD_MEMBER)
    sources: list[tuple[tuple[type, ...], dict[str, Function]]] = [
        ((str,), strings.MEMBERS),
        ((list, tuple), lists.MEMBERS),
        ((times.Timestamp, times.Duration), times.MEMBERS),
        ((quantities.Quantity,), quantities.MEMBERS),
        ((networks.IP,), networks.IP_MEMBERS),
        ((networks.CIDR,), networks.CIDR_MEMBERS),
        ((kubernetes.URL,), kubernetes.URL_MEMBERS),
        ((kubernetes.Format,), kubernetes.FORMAT_MEMBERS),
    ]
    collected: dict[str, list[tuple[tuple[type, ...], Function]]] = {}
    for kinds, members in sources:
        for name, function in members.items():
            collected.setdefault(name, []).append((kinds, function))
    for name, candidates in collected.items():
        table[name] = by_receiver(name, candidates)
    return table


GLOBAL: dict[str, Function] = {
    **_STANDARD_GLOBAL,
    **conversions.FUNCTIONS,
    **numbers.FUNCTIONS,
    **strings.FUNCTIONS,
    **lists.FUNCTIONS,
    **quantities.FUNCTIONS,
    **networks.FUNCTIONS,
    **kubernetes.FUNCTIONS,
}
MEMBER: dict[str, Function] = _members()


def namespaces(functions: Iterable[str]) -> frozenset[str]:
    """What stands before the last dot of function names."""
    return frozenset(name.rpartition(".")[0] for name in functions if "." in name)


STANDARD = Library(GLOBAL, MEMBER, namespaces=namespaces(GLOBAL))
"""CEL's own functions and Kubernetes' libraries."""
