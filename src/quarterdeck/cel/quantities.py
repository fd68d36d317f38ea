"""Kubernetes quantities (``1.5Gi``, ``100m``) in CEL."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from quarterdeck.cel import types
from quarterdeck.cel.errors import EvalError, no_overload
from quarterdeck.cel.function import Function
from quarterdeck.cel.values import INT64_MAX, INT64_MIN, type_name

_QUANTITY = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,3})|([numkMGTPE]|[KMGTPE]i))?\Z", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {suffix: 1 << (10 * power) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_MAX_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Quantity:
    amount: Fraction
    cel_type: ClassVar[str] = "kubernetes.Quantity"

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Raises EvalError when the text is no quantity."""
        match = _QUANTITY.match(text) if len(text) <= _MAX_LENGTH else None
        if match is None:
            raise EvalError(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            )
        sign, digits, exponent, suffix = match.groups()
        amount = Fraction(digits if digits[-1] != "." else digits[:-1])
        if exponent:
            amount *= Fraction(10) ** int(exponent[1:])
        elif suffix:
            amount *= _BINARY[suffix] if suffix in _BINARY else Fraction(10) ** _DECIMAL[suffix]
        return cls(-amount if sign == "-" else amount)

    @property
    def integral(self) -> bool:
        return self.amount.denominator == 1 and INT64_MIN <= self.amount <= INT64_MAX


def _is_quantity(text: Any) -> bool:
    try:
        Quantity.parse(_text(text))
    except EvalError:
        return False
    return True


def _text(value: Any) -> str:
    if type(value) is not str:
        raise no_overload(f"quantity applied to {type_name(value)}")
    return value


def _as_integer(value: Quantity) -> int:
    if not value.integral:
        raise EvalError("cannot convert value to integer")
    return int(value.amount)


def _amount(value: Any) -> Fraction:
    if type(value) is Quantity:
        return value.amount
    if type(value) is int:
        return Fraction(value)
    raise no_overload(f"quantity operation applied to {type_name(value)}")


def _binary(apply: Callable[[Fraction, Fraction], Any], result: types.Type) -> Function:
    return Function(lambda left, right: apply(_amount(left), _amount(right)), ("", ""), result)


MEMBERS: dict[str, Function] = {
    "sign": Function(lambda value: (value.amount > 0) - (value.amount < 0), ("",), types.INT),
    "isInteger": Function(lambda value: value.integral, ("",), types.BOOL),
    "asInteger": Function(_as_integer, ("",), types.INT),
    "asApproximateFloat": Function(lambda value: float(value.amount), ("",), types.DOUBLE),
    "add": _binary(lambda a, b: Quantity(a + b), types.DYN),
    "sub": _binary(lambda a, b: Quantity(a - b), types.DYN),
    "isGreaterThan": _binary(lambda a, b: a > b, types.BOOL),
    "isLessThan": _binary(lambda a, b: a < b, types.BOOL),
    "compareTo": _binary(lambda a, b: (a > b) - (a < b), types.INT),
}
FUNCTIONS: dict[str, Function] = {
    "quantity": Function(lambda text: Quantity.parse(_text(text)), ("string",)),
    "isQuantity": Function(_is_quantity, ("string",), types.BOOL),
}
