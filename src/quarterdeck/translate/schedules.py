"""Cron schedules of Triggers: which times are due. Pure; the fields and the clock changes are cronsim's (Debian's).

What falls into the hour that daylight saving skips is due right after it, what falls into the hour that comes twice is
due once; schedules with ``*`` as minute or hour go by real time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from quarterdeck.errors import ConfigError

MOST = 100
"""Missed times that are made up for at most."""
_MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_WINDOW = 3600.0
_TRIES = 100_000


@dataclass(frozen=True, slots=True)
class Due:
    """``times`` are to be started, oldest first; ``missed`` further ones are not. All in seconds since the epoch."""

    times: tuple[float, ...]
    missed: int = 0
    latest: float | None = None
    """The newest time that has passed, started or missed."""


class Schedule:
    """One schedule in one time zone."""

    def __init__(self, expression: str, zone: str | None = None) -> None:
        """Raises ConfigError that says what is wrong with which of them."""
        text = expression.strip()
        fields = _MACROS.get(text.lower(), text).split()
        if len(fields) != 5:
            raise ConfigError(
                f"cron.schedule: {expression!r} must have 5 fields (minute, hour, day of month, month, day of week) or "
                f"be one of {', '.join(_MACROS)}; it has {len(fields)}"
            )
        self._expression = " ".join("*" if field == "?" else field for field in fields)
        self._zone = _zone(zone)
        try:
            first = next(self._after(0.0), None)
        except CronSimError as error:
            raise ConfigError(f"cron.schedule: {expression!r}: {error}") from error
        if first is None:
            raise ConfigError(f"cron.schedule: {expression!r} names no time that there is")

    def next_after(self, moment: float) -> float | None:
        """The first time later than ``moment``."""
        return next(self._after(moment), None)

    def due(self, since: float, now: float, policy: str = "RunLatest", deadline: float | None = None) -> Due:
        """What is to be started of the times after ``since`` up to ``now``.

        ``policy`` is for times that were missed: with ``Skip`` only one of the last minute counts as met.
        """
        passed: deque[float] = deque(maxlen=MOST)
        count = 0
        for moment in self._after(since):
            if moment > now:
                break
            if count == MOST * 10:  # far behind: what is older than the newest is not walked
                return self._far_behind(since, now, policy, deadline)
            count += 1
            passed.append(moment)
        return _chosen(list(passed), count, now, policy, deadline)

    def _far_behind(self, since: float, now: float, policy: str, deadline: float | None) -> Due:
        window = _WINDOW
        while True:
            found = list(takewhile(lambda moment: moment <= now, self._after(max(since, now - window))))
            if len(found) >= MOST or window > now - since:
                return _chosen(found[-MOST:], max(len(found), MOST * 10), now, policy, deadline)
            window *= 8

    def _after(self, moment: float) -> Iterator[float]:
        start = datetime.fromtimestamp(moment, UTC).astimezone(self._zone)
        for tried, found in enumerate(CronSim(self._expression, start)):
            instant = found.timestamp()
            if instant > moment:  # where an hour comes twice, the library may count from its first coming
                moment = instant
                yield instant
            elif tried > _TRIES:
                return


def _chosen(passed: list[float], count: int, now: float, policy: str, deadline: float | None) -> Due:
    latest = passed[-1] if passed else None
    good = [moment for moment in passed if deadline is None or now - moment <= deadline]
    if policy == "Skip":
        good = [moment for moment in good if now - moment <= 60.0][-1:]
    elif policy != "RunAll":
        good = good[-1:]
    return Due(tuple(good), count - len(good), latest)


def _zone(name: str | None) -> tzinfo:
    if not name or name in ("UTC", "Etc/UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"cron.timeZone: there is no time zone {name!r}; names are as in Europe/Berlin") from error
