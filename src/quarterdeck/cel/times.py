"""Accessors of timestamps and durations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from quarterdeck.cel import types
from quarterdeck.cel.errors import EvalError, no_overload
from quarterdeck.cel.function import Function
from quarterdeck.cel.values import Duration, Timestamp

__all__ = ["MEMBERS", "Duration", "Timestamp"]


@lru_cache(maxsize=64)
def _zone(name: str) -> Any:
    if name in ("", "UTC", "Z"):
        return UTC
    sign, digits = (-1, name[1:]) if name[0] == "-" else (1, name.lstrip("+"))
    hours, colon, minutes = digits.partition(":")
    try:
        if colon:
            return timezone(sign * timedelta(hours=int(hours), minutes=int(minutes)))
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise EvalError(f"unknown time zone {name}") from None


def _calendar(read: Callable[[datetime], int]) -> Function:
    def call(value: Any, zone: str = "UTC") -> int:
        if type(value) is not Timestamp:
            raise no_overload("calendar accessor applied to a duration")
        return read(value.datetime().astimezone(_zone(zone)))

    return Function(call, ("timestamp", "string"), types.INT, optional=1)


def _clock(read: Callable[[datetime], int], unit: int) -> Function:
    def call(value: Any, zone: str = "UTC") -> int:
        if type(value) is Timestamp:
            return read(value.datetime().astimezone(_zone(zone)))
        return abs(value.ns) // unit * (1 if value.ns >= 0 else -1)

    return Function(call, ("timestamp|duration", "string"), types.INT, optional=1)


def _milliseconds(value: Any, zone: str = "UTC") -> int:
    return value.ns // 1_000_000 % 1000


MEMBERS: dict[str, Function] = {
    "getFullYear": _calendar(lambda moment: moment.year),
    "getMonth": _calendar(lambda moment: moment.month - 1),
    "getDayOfYear": _calendar(lambda moment: moment.timetuple().tm_yday - 1),
    "getDate": _calendar(lambda moment: moment.day),
    "getDayOfMonth": _calendar(lambda moment: moment.day - 1),
    "getDayOfWeek": _calendar(lambda moment: moment.isoweekday() % 7),
    "getHours": _clock(lambda moment: moment.hour, 3_600_000_000_000),
    "getMinutes": _clock(lambda moment: moment.minute, 60_000_000_000),
    "getSeconds": _clock(lambda moment: moment.second, 1_000_000_000),
    "getMilliseconds": Function(_milliseconds, ("timestamp|duration", "string"), types.INT, optional=1),
}
