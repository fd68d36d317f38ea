"""CEL values in Python.

========== ==========================================================
int        ``int`` (64 bit, checked)
uint       ``UInt`` (an int subclass)
double     ``float``; string ``str``; bytes ``bytes``; bool, null
list, map  ``list``/``tuple``, ``dict`` (bool keys are held as ``BoolKey``)
timestamp  ``Timestamp`` (ns since 1970), duration ``Duration`` (ns)
type       ``TypeValue``; optional ``Optional``
========== ==========================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from quarterdeck.cel.errors import EvalError, no_overload

INT64_MIN, INT64_MAX, UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1
_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_TIME, _MAX_TIME = -62_135_596_800 * _SECOND, 253_402_300_799 * _SECOND + 999_999_999
_MAX_DURATION = 315_576_000_000 * _SECOND
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))\Z", re.ASCII
)
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNITS = {
    "ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 1_000_000, "s": _SECOND, "m": 60 * _SECOND, "h": 3600 * _SECOND,
}  # fmt: skip


class UInt(int):
    """An unsigned 64-bit integer; a distinct CEL type."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{int(self)}u"


class BoolKey(Enum):
    """Map keys true and false: Python's dict would take them for 1 and 0."""

    FALSE = 0
    TRUE = 1


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    ns: int

    def __post_init__(self) -> None:
        if not -_MAX_DURATION <= self.ns <= _MAX_DURATION:
            raise EvalError("duration out of range")

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Go's duration text: ``1h2.5s``, ``-3ms``, ``0``. Raises EvalError."""
        body = text[1:] if text[:1] in ("+", "-") else text
        if body == "0":
            return cls(0)
        total, pos = 0, 0
        for match in _DURATION_PART.finditer(body):
            if match.start() != pos:
                break
            pos = match.end()
            whole, _, fraction = match.group(1).partition(".")
            unit = _UNITS[match.group(2)]
            total += int(whole or "0") * unit
            if fraction:
                total += int(fraction) * unit // 10 ** len(fraction)
        if not body or pos != len(body):
            raise EvalError(f"time: invalid duration {text!r}")
        return cls(-total if text[0] == "-" else total)

    @classmethod
    def of(cls, value: timedelta) -> Duration:
        return cls((value.days * 86_400 + value.seconds) * _SECOND + value.microseconds * 1000)

    def __str__(self) -> str:
        seconds, rest = divmod(abs(self.ns), _SECOND)
        fraction = f".{rest:09d}".rstrip("0") if rest else ""
        return f"{'-' if self.ns < 0 else ''}{seconds}{fraction}s"


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    ns: int

    def __post_init__(self) -> None:
        if not _MIN_TIME <= self.ns <= _MAX_TIME:
            raise EvalError("timestamp out of range")

    @classmethod
    def parse(cls, text: str) -> Timestamp:
        """RFC 3339 text. Raises EvalError."""
        match = _RFC3339.match(text)
        if match is None:
            raise EvalError(f"invalid timestamp {text!r}: expected RFC 3339")
        year, month, day, hour, minute, second = (int(match.group(i)) for i in range(1, 7))
        try:
            moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError as error:
            raise EvalError(f"invalid timestamp {text!r}: {error}") from None
        ns = int((match.group(7) or "0").ljust(9, "0"))
        offset = 0
        if match.group(9):
            offset = (int(match.group(10)) * 60 + int(match.group(11))) * 60 * (-1 if match.group(9) == "-" else 1)
        return cls((_whole_seconds(moment) - offset) * _SECOND + ns)

    @classmethod
    def of(cls, value: datetime) -> Timestamp:
        moment = value.astimezone(UTC)
        return cls(_whole_seconds(moment) * _SECOND + moment.microsecond * 1000)

    def datetime(self) -> datetime:
        """The moment in UTC, microseconds kept."""
        return _EPOCH + timedelta(seconds=self.ns // _SECOND, microseconds=self.ns % _SECOND // 1000)

    def __str__(self) -> str:
        rest = self.ns % _SECOND
        fraction = f".{rest:09d}".rstrip("0") if rest else ""
        moment = self.datetime()
        return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}{fraction}Z"


def _whole_seconds(moment: datetime) -> int:
    delta = moment - _EPOCH
    return delta.days * 86_400 + delta.seconds


@dataclass(frozen=True, slots=True)
class TypeValue:
    name: str


@dataclass(frozen=True, slots=True)
class Optional:
    """optional.of(value) when ``present``, else optional.none()."""

    present: bool
    value: Any = None


NONE = Optional(False)
_TYPE_NAMES: dict[type, str] = {
    int: "int", UInt: "uint", float: "double", str: "string", bytes: "bytes", bool: "bool", type(None): "null_type",
    list: "list", tuple: "list", dict: "map", Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration", TypeValue: "type", Optional: "optional_type", BoolKey: "bool",
}  # fmt: skip


def type_name(value: Any) -> str:
    return _TYPE_NAMES.get(type(value)) or str(getattr(value, "cel_type", type(value).__name__))


def to_key(value: Any) -> Any:
    """A value as map key. Raises EvalError for types that cannot be one."""
    kind = type(value)
    if kind is str or kind is int or kind is UInt:
        return value
    if kind is bool:
        return BoolKey.TRUE if value else BoolKey.FALSE
    raise EvalError(f"unsupported key type: {type_name(value)}")


def from_key(key: Any) -> Any:
    return bool(key.value) if type(key) is BoolKey else key


def equals(left: Any, right: Any) -> bool:
    """CEL equality: heterogeneous, numeric across int, uint and double, deep on lists and maps."""
    kind, other = type(left), type(right)
    if kind is other and kind not in (list, dict, tuple, Optional):
        return left == right
    if kind is bool or other is bool:
        return False
    if isinstance(left, (int, float)):
        return isinstance(right, (int, float)) and left == right
    if isinstance(left, (list, tuple)):
        return (
            isinstance(right, (list, tuple))
            and len(left) == len(right)
            and all(equals(a, b) for a, b in zip(left, right, strict=True))
        )
    if isinstance(left, dict):
        if not isinstance(right, dict) or len(left) != len(right):
            return False
        return all(key in right and equals(value, right[key]) for key, value in left.items())
    if kind is Optional:
        return other is Optional and left.present == right.present and equals(left.value, right.value)
    return False


def contains(container: Any, value: Any) -> bool:
    """``value in container``: equality on a list, keys of a map."""
    kind = type(container)
    if kind is list or kind is tuple:
        if type(value) is str:
            return value in container
        return any(equals(item, value) for item in container)
    if isinstance(container, dict):
        if type(value) is float:
            return value in container
        return to_key(value) in container
    raise no_overload("@in")
