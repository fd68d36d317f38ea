"""The math extension: greatest, least, rounding, signs and bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from quarterdeck.cel import types
from quarterdeck.cel.errors import EvalError, no_overload
from quarterdeck.cel.function import Function
from quarterdeck.cel.operators import checked, greater, less
from quarterdeck.cel.values import UINT64_MAX, UInt, type_name

_NUMBER = "int|uint|double"


def _extreme(better: Callable[[Any, Any], bool], name: str) -> Function:
    def call(*values: Any) -> Any:
        items = values[0] if len(values) == 1 and isinstance(values[0], list) else values
        if not items:
            raise EvalError(f"math.{name} argument must not be empty")
        best = items[0]
        for value in items:
            if type(value) not in (int, UInt, float):
                raise no_overload(f"math.{name} applied to {type_name(value)}")
            if better(value, best):
                best = value
        return best

    return Function(call, (f"{_NUMBER}|list", _NUMBER), types.DYN, optional=1, variadic=True)


def _double(name: str, apply: Callable[[float], Any], result: types.Type = types.DOUBLE) -> Function:
    def call(value: Any) -> Any:
        if type(value) is not float:
            raise no_overload(f"math.{name} applied to {type_name(value)}")
        return apply(value)

    return Function(call, ("double",), result)


def _whole(rounding: Callable[[float], float]) -> Callable[[float], float]:
    return lambda value: float(rounding(value)) if math.isfinite(value) else value


def _round(value: float) -> float:
    """Half away from zero."""
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _number(value: Any) -> Any:
    if type(value) not in (int, UInt, float):
        raise no_overload(f"math function applied to {type_name(value)}")
    return value


def _abs(value: Any) -> Any:
    return checked(abs(value)) if type(value) is int else type(value)(abs(_number(value)))


def _sign(value: Any) -> Any:
    sign = (_number(value) > 0) - (value < 0)
    return value if value != value else type(value)(sign)


def _sqrt(value: Any) -> float:
    return math.sqrt(value) if _number(value) >= 0 else math.nan


def _bits(name: str, apply: Callable[[int, int], int]) -> Function:
    def call(left: Any, right: Any) -> Any:
        if type(left) is not type(right) or type(left) not in (int, UInt):
            raise no_overload(f"math.{name}")
        return type(left)(apply(int(left), int(right)))

    return Function(call, ("int|uint", "int|uint"))


def _shift(left: bool) -> Function:
    def call(value: Any, by: Any) -> Any:
        if type(value) not in (int, UInt) or type(by) is not int:
            raise no_overload("math.bitShift")
        if by < 0:
            raise EvalError("math.bitShift: negative offset")
        bits = int(value) & UINT64_MAX
        bits = (bits << by) & UINT64_MAX if left and by < 64 else 0 if by >= 64 else bits >> by
        return UInt(bits) if type(value) is UInt else bits - (1 << 64 if bits >> 63 else 0)

    return Function(call, ("int|uint", "int"))


def _not(value: Any) -> Any:
    return UInt(~int(value) & UINT64_MAX) if type(value) is UInt else ~int(value)


FUNCTIONS: dict[str, Function] = {
    "math.greatest": _extreme(greater, "greatest"),
    "math.least": _extreme(less, "least"),
    "math.ceil": _double("ceil", _whole(math.ceil)),
    "math.floor": _double("floor", _whole(math.floor)),
    "math.trunc": _double("trunc", _whole(math.trunc)),
    "math.round": _double("round", _whole(_round)),
    "math.isNaN": _double("isNaN", math.isnan, types.BOOL),
    "math.isInf": _double("isInf", math.isinf, types.BOOL),
    "math.isFinite": _double("isFinite", math.isfinite, types.BOOL),
    "math.abs": Function(_abs, (_NUMBER,)),
    "math.sign": Function(_sign, (_NUMBER,)),
    "math.sqrt": Function(_sqrt, (_NUMBER,), types.DOUBLE),
    "math.bitAnd": _bits("bitAnd", lambda a, b: a & b),
    "math.bitOr": _bits("bitOr", lambda a, b: a | b),
    "math.bitXor": _bits("bitXor", lambda a, b: a ^ b),
    "math.bitNot": Function(_not, ("int|uint",)),
    "math.bitShiftLeft": _shift(True),
    "math.bitShiftRight": _shift(False),
}
