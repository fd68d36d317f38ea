"""Type conversions: int(), uint(), double(), string(), bytes(), bool(), type(), dyn(), timestamp(), duration()."""

from __future__ import annotations

import math
import re
from typing import Any

from quarterdeck.cel import types
from quarterdeck.cel.errors import EvalError, no_overload
from quarterdeck.cel.function import Function
from quarterdeck.cel.values import INT64_MAX, INT64_MIN, UINT64_MAX, Duration, Timestamp, TypeValue, UInt, type_name

_DECIMAL = re.compile(r"-?[0-9]+\Z")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z|[+-]?(?:inf|infinity|nan)\Z", re.I)
_TRUE, _FALSE = ("1", "t", "true", "TRUE", "True"), ("0", "f", "false", "FALSE", "False")


def to_int(value: Any) -> int:
    kind = type(value)
    if kind is int:
        return value
    if kind is float:
        # The two borders themselves do not survive the trip through a double.
        if not math.isfinite(value) or not INT64_MIN < value < INT64_MAX:
            raise EvalError("integer overflow")
        return int(value)
    if kind is UInt:
        if value > INT64_MAX:
            raise EvalError("integer overflow")
        return int(value)
    if kind is Timestamp:
        return value.ns // 1_000_000_000
    if kind is str:
        if not _DECIMAL.match(value) or not INT64_MIN <= int(value) <= INT64_MAX:
            raise EvalError(f"cannot convert string {value!r} to int")
        return int(value)
    raise no_overload(f"int applied to {type_name(value)}")


def to_uint(value: Any) -> UInt:
    kind = type(value)
    if kind is str:
        if not value.isdecimal() or not value.isascii() or int(value) > UINT64_MAX:
            raise EvalError(f"cannot convert string {value!r} to uint")
        return UInt(value)
    if kind not in (int, UInt, float):
        raise no_overload(f"uint applied to {type_name(value)}")
    if not math.isfinite(value) or not 0 <= value <= UINT64_MAX or (kind is float and value >= 2.0**64):
        raise EvalError("unsigned integer overflow")
    return UInt(value)


def to_double(value: Any) -> float:
    if type(value) in (int, UInt, float):
        return float(value)
    if type(value) is str:
        if not _FLOAT.match(value):
            raise EvalError(f"cannot convert string {value!r} to double")
        return float(value)
    raise no_overload(f"double applied to {type_name(value)}")


def format_double(value: float) -> str:
    """The shortest text as Go's ``strconv.FormatFloat(v, 'g')`` writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def to_string(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return value
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is UInt:
        return str(int(value))
    if kind is float:
        return format_double(value)
    if kind is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise EvalError("invalid UTF-8 in bytes, cannot convert to string") from None
    if hasattr(value, "cel_type") or kind in (Timestamp, Duration):
        return str(value)
    raise no_overload(f"string applied to {type_name(value)}")


def to_bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if type(value) is str:
        return value.encode()
    raise no_overload(f"bytes applied to {type_name(value)}")


def to_bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    if type(value) is str:
        if value in _TRUE or value in _FALSE:
            return value in _TRUE
        raise EvalError(f"cannot convert string {value!r} to bool")
    raise no_overload(f"bool applied to {type_name(value)}")


def to_timestamp(value: Any) -> Timestamp:
    if type(value) is Timestamp:
        return value
    if type(value) is str:
        return Timestamp.parse(value)
    if type(value) is int:
        return Timestamp(value * 1_000_000_000)
    raise no_overload(f"timestamp applied to {type_name(value)}")


def to_duration(value: Any) -> Duration:
    if type(value) is Duration:
        return value
    if type(value) is str:
        return Duration.parse(value)
    raise no_overload(f"duration applied to {type_name(value)}")


FUNCTIONS: dict[str, Function] = {
    "int": Function(to_int, ("int|uint|double|string|timestamp",), types.INT),
    "uint": Function(to_uint, ("int|uint|double|string",), types.UINT),
    "double": Function(to_double, ("int|uint|double|string",), types.DOUBLE),
    "string": Function(to_string, ("",), types.STRING),
    "bytes": Function(to_bytes, ("string|bytes",), types.BYTES),
    "bool": Function(to_bool, ("string|bool",), types.BOOL),
    "timestamp": Function(to_timestamp, ("string|int|timestamp",), types.TIMESTAMP),
    "duration": Function(to_duration, ("string|duration",), types.DURATION),
    "type": Function(lambda value: TypeValue(type_name(value)), ("",), types.TYPE),
    "dyn": Function(lambda value: value, ("",), types.DYN),
}
