"""The acceptance table: every question leads to the expected calls, with nothing about any server in the planner."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quarterdeck.agents import scripted
from quarterdeck.agents.scripted.plan import Call

from .table import NAMES, Row, definitions, functions, play, rows

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


# Words of the table that are English or chat-completions words first: prepositions, an article, message fields.
COMMON = {"from", "to", "a", "b", "name", "content", "message"}
# What speaks OpenAI's format and HTTP, and decides nothing: the wire's own field names are theirs to use.
WIRE = {"completion.py", "server.py", "script.py", "__main__.py", "__init__.py"}


def forbidden() -> set[str]:
    """Every server, tool and parameter name of the table, nested ones too."""
    found = set(NAMES) | {new for row in ROWS for new in row.rename.values()}

    def parameters(schema: object) -> None:
        if isinstance(schema, dict):
            if isinstance(schema.get("properties"), dict):
                found.update(schema["properties"])
            for inner in schema.values():
                parameters(inner.get("items", inner) if isinstance(inner, dict) else inner)

    for server in NAMES:
        for tool in definitions(server):
            found.add(tool["name"])
            parameters(tool["inputSchema"])
    return {name.lower() for name in found} - COMMON


def test_the_planner_names_no_tool_server_or_parameter_of_the_table() -> None:
    names = forbidden()
    assert {"get_current_time", "timezone", "everything", "entitytype", "oldtext"} <= names
    modules = [p for p in Path(scripted.__file__).parent.glob("*.py") if p.name not in WIRE]
    assert len(modules) >= 8
    found = {
        (module.name, word)
        for module in modules
        for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9]+)*", module.read_text())
        if word.lower() in names or word.lower() in {"date", "clock", "calendar", "hour", "utc", "iana", "today"}
    }
    assert found == set()
