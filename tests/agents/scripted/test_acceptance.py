"""The acceptance table: every question leads to the expected calls, with nothing about any server in the planner."""

from __future__ import annotations

import pytest

from quarterdeck.agents.scripted.plan import Call

from .table import Row, functions, play, rows

ROWS = rows()


async def outcome(row: Row) -> str:
    """What is wrong with the row, or nothing."""
    made: dict[int, int] = {}

    async def run(stage: int, call: Call) -> str:
        number = made.get(stage, 0)
        made[stage] = number + 1
        given = row.results[stage] if stage < len(row.results) else []
        return given[number] if number < len(given) else "ok"

    stages, text = await play(row.ask, functions(row), run)
    got = [[[c.name, c.arguments] for c in stage] for stage in stages]
    if got != row.calls:
        return f"called {got}, expected {row.calls}; said {text[:200]!r}"
    if row.none and "None of my tools fits" not in text:
        return f"must say that nothing fits; said {text[:200]!r}"
    if row.asks and f"`{row.asks}`" not in text:
        return f"must ask for {row.asks}; said {text[:200]!r}"
    return ""


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_row(row: Row) -> None:
    assert await outcome(row) == ""


def test_the_table_is_as_large_as_promised() -> None:
    assert len(ROWS) >= 40
    assert len({s for r in ROWS for s in r.offered} - {"datetime"}) >= 5
    assert sum(r.none for r in ROWS) >= 8
    assert sum(bool(r.rename) for r in ROWS) >= 3
    assert sum(len(r.calls) > 1 for r in ROWS) >= 3
