"""Resource quantities: parsing and the canonical form that the API server stores (apimachinery resource.Quantity)."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

MESSAGE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"

_PATTERN = re.compile(r"^([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))([KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]+)$")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_NANO = Decimal(1).scaleb(-9)


@lru_cache(maxsize=4096)
def parse(text: str) -> Decimal:
    """The number a quantity stands for. Raises ValueError with upstream's message when it is not one."""
    return _parse(text)[0]


def _parse(text: str) -> tuple[Decimal, str]:
    match = _PATTERN.match(text)
    if match is None:
        raise ValueError(MESSAGE)
    number, suffix = Decimal(match[1]), match[2]
    if suffix.endswith("i"):
        return number * 1024 ** _BINARY.index(suffix), "binary"
    if len(suffix) > 1:
        return number.scaleb(int(suffix[1:])), "exponent"
    return number.scaleb(_DECIMAL[suffix]), "decimal"


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """``text`` as the API server would store it: ``0.5`` → ``500m``, ``1024Mi`` → ``1Gi``, ``1000m`` → ``1``."""
    value, style = _parse(text.strip())
    value = value.quantize(_NANO, rounding=ROUND_CEILING) if value.as_tuple().exponent < -9 else value  # type: ignore[operator]
    if not value:
        return "0"
    if style == "binary" and abs(value) >= 1024:
        return _binary(value)
    exponent = 0
    while value != value.to_integral_value() and exponent > -9:
        value, exponent = value.scaleb(3), exponent - 3
    whole = int(value)
    while whole % 1000 == 0 and exponent < 18:
        whole, exponent = whole // 1000, exponent + 3
    if style == "exponent":
        return f"{whole}e{exponent}" if exponent else str(whole)
    return f"{whole}{_DECIMAL_SUFFIX[exponent]}"


def _binary(value: Decimal) -> str:
    whole = int(value.to_integral_value(rounding=ROUND_CEILING))
    power = 0
    while whole % 1024 == 0 and power < 6:
        whole, power = whole // 1024, power + 1
    return f"{whole}{_BINARY[power]}"
