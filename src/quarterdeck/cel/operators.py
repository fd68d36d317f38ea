"""Arithmetic, ordering and conversions between CEL's types; nothing is converted implicitly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from quarterdeck.cel.errors import EvalError, no_overload
from quarterdeck.cel.values import (
    INT64_MAX,
    INT64_MIN,
    UINT64_MAX,
    Duration,
    Optional,
    Timestamp,
    UInt,
    from_key,
    to_key,
    type_name,
)

Closure = Callable[[list[Any]], Any]


def checked(value: int) -> int:
    if INT64_MIN <= value <= INT64_MAX:
        return value
    raise EvalError("integer overflow")


def checked_uint(value: int) -> UInt:
    if 0 <= value <= UINT64_MAX:
        return UInt(value)
    raise EvalError("unsigned integer overflow")


def _overload(operator: str, left: Any, right: Any) -> EvalError:
    return no_overload(f"_{operator}_ applied to ({type_name(left)}, {type_name(right)})")


def add(left: Any, right: Any) -> Any:
    kind, other = type(left), type(right)
    if kind is other:
        if kind is int:
            return checked(left + right)
        if kind is str or kind is float or kind is list or kind is bytes:
            return left + right
        if kind is UInt:
            return checked_uint(int(left) + int(right))
        if kind is Duration:
            return Duration(left.ns + right.ns)
    if (kind is Timestamp and other is Duration) or (kind is Duration and other is Timestamp):
        return Timestamp(left.ns + right.ns)
    if kind in (list, tuple) and other in (list, tuple):
        return [*left, *right]
    if hasattr(left, "cel_add"):
        return left.cel_add(right)
    raise _overload("+", left, right)


def subtract(left: Any, right: Any) -> Any:
    kind, other = type(left), type(right)
    if kind is other:
        if kind is int:
            return checked(left - right)
        if kind is float:
            return left - right
        if kind is UInt:
            return checked_uint(int(left) - int(right))
        if kind is Duration or kind is Timestamp:
            return Duration(left.ns - right.ns)
    if kind is Timestamp and other is Duration:
        return Timestamp(left.ns - right.ns)
    raise _overload("-", left, right)


def multiply(left: Any, right: Any) -> Any:
    kind = type(left)
    if kind is type(right):
        if kind is int:
            return checked(left * right)
        if kind is float:
            return left * right
        if kind is UInt:
            return checked_uint(int(left) * int(right))
    raise _overload("*", left, right)


def divide(left: Any, right: Any) -> Any:
    kind = type(left)
    if kind is not type(right) or kind not in (int, float, UInt):
        raise _overload("/", left, right)
    if kind is float:
        return _divide_double(left, right)
    if right == 0:
        raise EvalError("division by zero")
    if kind is UInt:
        return UInt(int(left) // int(right))
    quotient = abs(left) // abs(right)
    return checked(quotient if (left < 0) == (right < 0) else -quotient)


def _divide_double(left: float, right: float) -> float:
    if right != 0:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1, right)


def modulo(left: Any, right: Any) -> Any:
    kind = type(left)
    if kind is not type(right) or kind not in (int, UInt):
        raise _overload("%", left, right)
    if right == 0:
        raise EvalError("modulus by zero")
    if kind is UInt:
        return UInt(int(left) % int(right))
    if left == INT64_MIN and right == -1:
        raise EvalError("integer overflow")
    return int(math.copysign(1, left)) * (abs(left) % abs(right))


def negate(value: Any) -> Any:
    if type(value) is int:
        return checked(-value)
    if type(value) is float:
        return -value
    raise no_overload(f"-_ applied to ({type_name(value)})")


_ORDERED = (str, bytes, bool, Timestamp, Duration)


def compare(left: Any, right: Any, operator: str) -> int:
    """-1, 0, 1; 2 when unordered (NaN)."""
    kind, other = type(left), type(right)
    if kind in (int, UInt, float) and other in (int, UInt, float):
        if left != left or right != right:
            return 2
        return (left > right) - (left < right)
    if kind is other and kind in _ORDERED:
        return (left > right) - (left < right)
    raise _overload(operator, left, right)


def less(left: Any, right: Any) -> bool:
    return compare(left, right, "<") == -1


def less_equal(left: Any, right: Any) -> bool:
    return compare(left, right, "<=") in (-1, 0)


def greater(left: Any, right: Any) -> bool:
    return compare(left, right, ">") == 1


def greater_equal(left: Any, right: Any) -> bool:
    return compare(left, right, ">=") in (0, 1)


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "_+_": add, "_-_": subtract, "_*_": multiply, "_/_": divide, "_%_": modulo,
}  # fmt: skip
COMPARISON: dict[str, Callable[[Any, Any], bool]] = {
    "_<_": less, "_<=_": less_equal, "_>_": greater, "_>=_": greater_equal,
}  # fmt: skip


def select(value: Any, field: str) -> Any:
    """``value.field``. Raises EvalError when there is no such key."""
    if isinstance(value, dict):
        if field in value:
            return value[field]
        raise EvalError(f"no such key: {field}")
    if type(value) is Optional:
        return select_optional(value, field)
    raise no_overload(f"{type_name(value)} has no field {field!r}")


def select_optional(value: Any, field: str) -> Optional:
    if type(value) is Optional:
        if not value.present:
            return value
        value = value.value
    if not isinstance(value, dict):
        raise no_overload(f"{type_name(value)} has no field {field!r}")
    return Optional(True, value[field]) if field in value else Optional(False)


def has_field(value: Any, field: str) -> bool:
    if isinstance(value, dict):
        return field in value
    if type(value) is Optional:
        return value.present and has_field(value.value, field)
    raise no_overload(f"{type_name(value)} has no field {field!r}")


def index(value: Any, key: Any) -> Any:
    if isinstance(value, (list, tuple)):
        if type(key) not in (int, UInt) and not (type(key) is float and key.is_integer()):
            raise _overload("[", value, key)
        at = int(key)
        if 0 <= at < len(value):
            return value[at]
        raise EvalError(f"index out of bounds: {at}")
    if isinstance(value, dict):
        lookup = to_lookup(key)
        if lookup in value:
            return value[lookup]
        raise EvalError(f"no such key: {key}")
    if type(value) is Optional:
        return index_optional(value, key)
    raise _overload("[", value, key)


def to_lookup(key: Any) -> Any:
    return key if type(key) is float else to_key(key)


def index_optional(value: Any, key: Any) -> Optional:
    if type(value) is Optional:
        if not value.present:
            return value
        value = value.value
    if isinstance(value, (list, tuple)):
        if type(key) not in (int, UInt):
            raise _overload("[?", value, key)
        return Optional(True, value[key]) if 0 <= key < len(value) else Optional(False)
    if isinstance(value, dict):
        lookup = to_lookup(key)
        return Optional(True, value[lookup]) if lookup in value else Optional(False)
    raise _overload("[?", value, key)


def iterate(value: Any) -> list[Any]:
    """What a comprehension with one variable ranges over: elements, or keys."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, dict):
        return [from_key(key) for key in value]
    raise no_overload(f"comprehension over {type_name(value)}")


def iterate_pairs(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, dict):
        return [(from_key(key), item) for key, item in value.items()]
    raise no_overload(f"comprehension over {type_name(value)}")
