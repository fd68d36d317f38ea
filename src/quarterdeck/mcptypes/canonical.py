"""Canonical JSON (RFC 8785, JCS) and the hash of a tool call's arguments.

One difference from the RFC: an integer beyond 2**53 keeps all its digits where ECMAScript would round it to a double,
since two arguments that differ must never share a hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import isfinite

from msgspec.json import Encoder

_DEEPEST = 200
_scalar = Encoder().encode


def canonical(value: object) -> bytes:
    """The one encoding of a JSON value: objects, lists, strings, numbers, booleans and None as a decoder gives them.

    Raises ValueError for what JSON cannot hold (NaN, infinities, half of a surrogate pair, keys that are no strings,
    other types) and for more than 200 levels.
    """
    parts: list[bytes] = []
    _write(value, parts, _DEEPEST)
    return b"".join(parts)


def arguments_hash(arguments: Mapping[str, object] | None) -> str:
    """``sha256:`` and the hex SHA-256 of the canonical arguments; None counts as ``{}``. Raises ValueError."""
    return "sha256:" + hashlib.sha256(canonical({} if arguments is None else arguments)).hexdigest()


def _write(value: object, parts: list[bytes], deeper: int) -> None:
    if isinstance(value, str):
        parts.append(_string(value))
    elif value is None or isinstance(value, bool):
        parts.append(_scalar(value))
    elif isinstance(value, int):
        parts.append(str(value).encode())
    elif isinstance(value, float):
        parts.append(number(value).encode())
    elif not deeper:
        raise ValueError(f"JSON deeper than {_DEEPEST} levels")
    elif isinstance(value, Mapping):
        _object(value, parts, deeper)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, list | tuple):
        _array(value, parts, deeper)  # pyright: ignore[reportUnknownArgumentType]
    else:
        raise ValueError(f"{type(value).__name__} is no JSON value")


def _object(value: Mapping[object, object], parts: list[bytes], deeper: int) -> None:
    names: list[tuple[bytes, str]] = []
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"the key {name!r} is no string")
        names.append((_utf16(name), name))
    opening = b"{"
    for _, name in sorted(names):
        parts += (opening, _string(name), b":")
        _write(value[name], parts, deeper - 1)
        opening = b","
    parts.append(b"}" if names else b"{}")


def _array(value: list[object] | tuple[object, ...], parts: list[bytes], deeper: int) -> None:
    opening = b"["
    for item in value:
        parts.append(opening)
        _write(item, parts, deeper - 1)
        opening = b","
    parts.append(b"]" if value else b"[]")


def _utf16(name: str) -> bytes:
    """What keys are sorted by (RFC 8785 §3.2.3)."""
    try:
        return name.encode("utf-16-be")
    except UnicodeEncodeError as error:
        raise ValueError(f"a key holds half of a surrogate pair: {error}") from error


def _string(text: str) -> bytes:
    r"""msgspec escapes as the RFC has it: short forms, ``\u00xx`` in lower case for other controls, nothing else."""
    try:
        return _scalar(text)
    except UnicodeEncodeError as error:
        raise ValueError(f"a string holds half of a surrogate pair: {error}") from error


def number(value: float) -> str:
    """A double as ECMAScript's Number.prototype.toString writes it. Raises ValueError for NaN and infinities."""
    if not isfinite(value):
        raise ValueError(f"{value} is no JSON number")
    if value == 0.0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    point = int(exponent or "0") + len(whole) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return sign + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """0.DIGITS times ten to the power of ``point``, by the table of ECMA-262 §6.1.6.1.20."""
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    rest = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{rest}e{point - 1:+d}"
