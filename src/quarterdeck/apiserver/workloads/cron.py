"""Cron schedules: five fields, names, steps, ranges, ``@hourly`` and friends, in a time zone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = {name: i for i, name in enumerate(_MONTH_NAMES, 1)}
_DAYS = {name: i for i, name in enumerate(_DAY_NAMES)}
_FIELDS = (("minute", 0, 59, {}), ("hour", 0, 23, {}), ("day of month", 1, 31, {}), ("month", 1, 12, _MONTHS),
           ("day of week", 0, 7, _DAYS))  # fmt: skip
_MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_HORIZON = 5 * 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Schedule:
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    zone: ZoneInfo | None

    def next_after(self, moment: float) -> float | None:
        """The first time after ``moment`` (seconds since the epoch), or None within five years.

        It walks through real time, as Kubernetes does: what falls into an hour that a clock change skips is left out,
        in one that comes twice it comes twice.
        """
        instant = float(int(moment) // 60 * 60 + 60)
        last = instant + _HORIZON
        while instant < last:
            wall = datetime.fromtimestamp(instant, self.zone or UTC)
            if wall.month not in self.months or not self._day_fits(wall.day, wall.isoweekday() % 7):
                tomorrow = datetime.combine(wall.date() + timedelta(days=1), time(), wall.tzinfo).timestamp()
                instant = max(tomorrow, instant + 60)
            elif wall.hour not in self.hours:
                instant += 60 * (60 - wall.minute)
            elif wall.minute not in self.minutes:
                instant += 60
            else:
                return instant
        return None

    def _day_fits(self, day: int, weekday: int) -> bool:
        in_month, in_week = day in self.days, weekday in self.weekdays
        return in_month or in_week if self.either_day else in_month and in_week


def parse(schedule: str, zone: str | None = None) -> Schedule:
    """Raises ValueError naming the field."""
    text = schedule.strip()
    if text.startswith(("TZ=", "CRON_TZ=")):
        name, _, text = text.partition(" ")
        zone = zone or name.partition("=")[2]
    parts = _MACROS.get(text.strip().lower(), text).split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"schedule {schedule!r}: expected exactly 5 fields, found {len(parts)}")
    values = [_field(part, *spec) for part, spec in zip(parts, _FIELDS, strict=True)]
    try:
        info = ZoneInfo(zone) if zone else None
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"unknown time zone {zone}") from error
    weekdays = frozenset(day % 7 for day in values[4])
    either = not parts[2].startswith(("*", "?")) and not parts[4].startswith(("*", "?"))
    return Schedule(values[0], values[1], values[2], values[3], weekdays, either, info)


def _field(text: str, name: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    result: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, name, {}) if slash else 1
        if span in ("*", "?"):
            first, last = low, high
        else:
            start, dash, end = span.partition("-")
            first = _number(start, name, names)
            last = _number(end, name, names) if dash else (high if slash else first)
        if step < 1 or first < low or last > high or first > last:
            raise ValueError(f"{name} {part!r} is not within {low}-{high}")
        result.update(range(first, last + 1, step))
    return frozenset(result)


def _number(text: str, name: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not text.isdigit():
        raise ValueError(f"{name}: {text!r} is not a number")
    return int(text)
