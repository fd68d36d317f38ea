"""Schedules against an oracle that walks every minute of the time zone, the changes of its clock included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quarterdeck.apiserver.workloads import cron
from quarterdeck.errors import ConfigError
from quarterdeck.translate.schedules import MOST, Schedule

DAY = 86400.0
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC")
CHANGES = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),  # by half an hour
    "Asia/Kathmandu": ("2026-01-01",),
    "UTC": ("2026-12-31",),
}


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def by_real_time(minutes: set[int], hours: set[int], days: set[int], zone: ZoneInfo, since: float, until: float):
    """Every minute that there is, looked at on the clock of the place."""
    moment = since - since % 60 + 60
    while moment <= until:
        local = datetime.fromtimestamp(moment, zone)
        if local.minute in minutes and local.hour in hours and local.isoweekday() % 7 in days:
            yield moment
        moment += 60


def by_the_wall(minutes: set[int], hours: set[int], days: set[int], zone: ZoneInfo, since: float, until: float):
    """Every time of every calendar day: once if it comes twice, right after the gap if it never comes."""
    found: set[float] = set()
    day = datetime.fromtimestamp(since - 2 * DAY, zone).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    while day.replace(tzinfo=zone).timestamp() <= until + DAY:
        for hour in hours:
            for minute in minutes:
                wall = day.replace(hour=hour, minute=minute)
                if wall.isoweekday() % 7 not in days:
                    continue
                while (real := wall.replace(tzinfo=zone)).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wall:
                    wall += timedelta(minutes=1)
                found.add(real.timestamp())
        day += timedelta(days=1)
    return sorted(moment for moment in found if since < moment <= until)


@st.composite
def places(draw: st.DrawFn) -> tuple[str, float]:
    """A zone, and a moment within two days of a change of its clock."""
    zone = draw(st.sampled_from(ZONES))
    change = at(draw(st.sampled_from(CHANGES[zone])), zone)
    return zone, change + draw(st.integers(-2 * 86400, 2 * 86400))


weekdays = st.sampled_from([("*", set(range(7))), ("mon-fri", {1, 2, 3, 4, 5}), ("0,6", {0, 6}), ("7", {0})])
# the hours in which clocks change are likelier than the others
hours = st.sets(st.sampled_from([0, 1, 1, 2, 2, 3, 3, 4, 13, 23]), min_size=1, max_size=3)
minutes = st.sets(st.integers(0, 59), min_size=1, max_size=3)


def listed(values: set[int]) -> str:
    return ",".join(map(str, sorted(values)))


@given(places(), minutes, hours, weekdays)
@settings(max_examples=150, deadline=None)
def test_times_of_day_are_met_once_whatever_the_clock_does(
    place: tuple[str, float], minute: set[int], hour: set[int], weekday: tuple[str, set[int]]
) -> None:
    zone, since = place
    expected = list(by_the_wall(minute, hour, weekday[1], ZoneInfo(zone), since, since + 3 * DAY))
    schedule = Schedule(f"{listed(minute)} {listed(hour)} * * {weekday[0]}", zone)
    assert list(schedule.due(since, since + 3 * DAY, "RunAll").times) == expected


@given(places(), st.sampled_from([1, 5, 7, 15, 30]), st.none() | hours, weekdays)
@settings(max_examples=60, deadline=None)
def test_intervals_go_by_real_time(
    place: tuple[str, float], step: int, hour: set[int] | None, weekday: tuple[str, set[int]]
) -> None:
    zone, since = place
    assume(
        zone != "Australia/Lord_Howe"
    )  # cronsim steps by hours, its clock by half of one: 30 minutes a year are lost
    asked = hour if hour is not None else set(range(24))
    expected = list(by_real_time(set(range(0, 60, step)), asked, weekday[1], ZoneInfo(zone), since, since + DAY / 2))
    text = f"*/{step} {listed(hour) if hour is not None else '*'} * * {weekday[0]}"
    found = Schedule(text, zone).due(since, since + DAY / 2, "RunAll")
    assert list(found.times) == expected[-MOST:] and found.missed == len(expected[:-MOST])


@given(
    minutes, hours, st.sampled_from(["*", "1", "13,31", "29"]), st.sampled_from(["*", "2", "jan-mar"]), weekdays,
    st.integers(1_500_000_000, 1_900_000_000),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_calendars_agree_with_the_cron_of_cronjobs(
    minute: set[int], hour: set[int], day: str, month: str, weekday: tuple[str, set[int]], since: int
) -> None:
    """An implementation of its own, in UTC."""
    if (day, month) == ("13,31", "2"):
        day = "13"
    text = f"{listed(minute)} {listed(hour)} {day} {month} {weekday[0]}"
    assert Schedule(text).next_after(since) == cron.parse(text).next_after(since)


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00+01:00", "2026-03-29T03:00+02:00"),  # 2:30 never comes
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00+02:00", "2026-10-25T02:30+02:00"),  # it comes twice
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),
        ("50 2 * * *", "Europe/Berlin", "2026-10-25T02:40+01:00", "2026-10-26T02:50+01:00"),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00"),
        ("@hourly", None, "2026-01-01T00:59:59+00:00", "2026-01-01T01:00+00:00"),
        ("0 0 29 2 ?", None, "2026-01-01T00:00+00:00", "2028-02-29T00:00+00:00"),
        ("0 9 * * MON", "America/New_York", "2026-01-01T00:00+00:00", "2026-01-05T09:00-05:00"),
    ],
)
def test_next(schedule: str, zone: str | None, after: str, expected: str) -> None:
    found = Schedule(schedule, zone).next_after(datetime.fromisoformat(after).timestamp())
    assert found == datetime.fromisoformat(expected).timestamp()


@pytest.mark.parametrize(
    ("schedule", "zone", "said"),
    [
        ("* * * *", None, "must have 5 fields"),
        ("0 * * * * *", None, "must have 5 fields"),
        ("60 * * * *", None, "Bad minute"),
        ("* * 31 2 *", None, "Bad day-of-month"),
        ("x * * * *", None, "Bad minute"),
        ("", None, "it has 0"),
        ("* * * * *", "Mars/Base", "there is no time zone 'Mars/Base'"),
        ("* * * * *", "../../etc/passwd", "there is no time zone"),
        ("* * * * *", "", ""),
    ],
)
def test_what_is_wrong_is_said(schedule: str, zone: str | None, said: str) -> None:
    if not said:
        assert Schedule(schedule, zone).next_after(0.0) == 60.0
        return
    with pytest.raises(ConfigError, match=said):
        Schedule(schedule, zone)


def test_missed_times_are_made_up_for_by_policy() -> None:
    schedule = Schedule("0 * * * *")
    since, now = at("2026-01-01T00:00"), at("2026-01-01T05:10")
    latest = at("2026-01-01T05:00")
    assert schedule.due(since, now).times == (latest,)
    assert schedule.due(since, now).missed == 4
    assert len(schedule.due(since, now, "RunAll").times) == 5
    assert schedule.due(since, now, "Skip").times == () and schedule.due(since, now, "Skip").missed == 5
    assert schedule.due(since, latest + 1, "Skip").times == (latest,)  # met, not missed
    assert schedule.due(since, now, "RunAll", 7300).times == (at("2026-01-01T04:00"), latest)
    assert schedule.due(since, now, "RunLatest", 60.0).times == ()
    assert schedule.due(latest, now).times == () and schedule.due(latest, now).latest is None


def test_years_of_minutes_are_not_walked() -> None:
    now = at("2029-07-01T12:00")
    found = Schedule("* * * * *").due(at("2026-01-01T00:00"), now, "RunAll")
    assert len(found.times) == MOST and found.times[-1] == now and found.missed > 0
    weekly = Schedule("0 0 * * sun").due(at("2006-01-01T00:00"), now)
    assert weekly.times == (at("2029-07-01T00:00"),)
