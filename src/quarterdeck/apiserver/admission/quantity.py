"""Resource quantities (``500m``, ``64Mi``, ``1e3``) as exact numbers."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SHAPE = re.compile(r"^([+-]?[0-9]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)([KMGTPE]i|[numkMGTPE]?)$")


def parse_quantity(value: Any) -> Fraction:
    """The value of a quantity; ValueError when it is none."""
    match = _SHAPE.match(str(value).strip())
    if match is None:
        raise ValueError(f"quantities must match the regular expression: {value!r}")
    number, suffix = match.groups()
    try:
        base = Fraction(Decimal(number))
    except (InvalidOperation, ValueError):
        raise ValueError(f"not a quantity: {value!r}") from None
    if suffix in _BINARY:
        return base * 1024 ** _BINARY[suffix]
    exponent = _DECIMAL[suffix]
    return base * 10**exponent if exponent >= 0 else base / 10**-exponent


def format_quantity(value: Fraction, like: Any = "") -> str:
    """The canonical text; binary suffixes when ``like`` has one and the value is a whole multiple, else decimal."""
    if str(like).endswith("i"):
        for suffix, power in reversed(_BINARY.items()):
            if value and value % (1024**power) == 0:
                return f"{value // 1024**power}{suffix}"
        if value.denominator == 1:
            return str(value)
    if value.denominator != 1:
        milli = value * 1000
        return f"{-(-milli.numerator // milli.denominator)}m"
    number = int(value)
    for suffix, exponent in (("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3)):
        if number and number % 10**exponent == 0:
            return f"{number // 10**exponent}{suffix}"
    return str(number)
