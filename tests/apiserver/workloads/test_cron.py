from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.workloads import cron
from quarterdeck.apiserver.workloads.cronjob import due


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        ("*/5 * * * *", None, "2026-01-01T00:00:01+00:00", "2026-01-01T00:05:00+00:00"),
        ("@hourly", None, "2026-01-01T00:59:59+00:00", "2026-01-01T01:00:00+00:00"),
        ("0 9 * * mon-fri", None, "2026-01-02T10:00:00+00:00", "2026-01-05T09:00:00+00:00"),
        ("0 0 29 2 *", None, "2026-01-01T00:00:00+00:00", "2028-02-29T00:00:00+00:00"),
        ("0 0 13 * fri", None, "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+00:00", "2026-03-30T02:30:00+02:00"),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00"),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05T01:45:00+11:00", "2026-04-05T01:45:00+10:30"),
        ("0 0 * * *", "America/Havana", "2026-11-01T00:00:00-04:00", "2026-11-01T00:00:00-05:00"),
        ("0 12 * * *", "America/Santiago", "2026-09-05T12:00:00-04:00", "2026-09-06T12:00:00-03:00"),
        ("0 9 * * 7", "America/New_York", "2026-01-01T00:00:00+00:00", "2026-01-04T09:00:00-05:00"),
    ],
)
def test_next_time(schedule: str, zone: str | None, after: str, expected: str) -> None:
    assert cron.parse(schedule, zone).next_after(at(after)) == at(expected)


def test_a_schedule_that_never_comes() -> None:
    assert cron.parse("0 0 30 2 *", "Europe/Berlin").next_after(at("2026-01-01T00:00:00+00:00")) is None


@pytest.mark.parametrize("bad", ["", "* * * *", "60 * * * *", "* 24 * * *", "*/0 * * * *", "5-1 * * * *", "x * * * *"])
def test_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        cron.parse(bad)


def test_unknown_zone() -> None:
    with pytest.raises(ValueError, match="unknown time zone Mars/Base"):
        cron.parse("* * * * *", "Mars/Base")


@given(st.integers(0, 59), st.integers(0, 23), st.integers(1_500_000_000, 2_000_000_000))
def test_next_is_after_and_fits(minute: int, hour: int, moment: int) -> None:
    found = cron.parse(f"{minute} {hour} * * *").next_after(moment)
    assert found is not None
    assert moment < found <= moment + timedelta(days=1).total_seconds() + 60
    assert (found // 60 % 60, found // 3600 % 24) == (minute, hour)


def cronjob(**spec: object) -> dict[str, object]:
    metadata = {"name": "c", "creationTimestamp": "2026-01-01T00:00:30Z"}
    return {"metadata": metadata, "spec": {"schedule": "* * * * *", **spec}}


def test_due_runs() -> None:
    now = at("2026-01-01T00:03:10+00:00")
    when = due(cronjob(), now)
    assert (when.time, when.missed) == (at("2026-01-01T00:03:00+00:00"), 3)
    assert when.following == at("2026-01-01T00:04:00+00:00")
    assert due(cronjob(startingDeadlineSeconds=5), now).time is None
    far = at("2029-07-01T12:00:00+00:00")
    assert due(cronjob(), far).time == far  # three years of minutes are not walked
    weekly = due(cronjob(schedule="0 0 * * sun"), far)
    assert weekly.time == at("2029-07-01T00:00:00+00:00")
