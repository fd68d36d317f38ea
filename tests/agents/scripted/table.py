"""The acceptance table read: rows, the tools they offer, and a conversation played with the planner."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from quarterdeck.agents.scripted.conversation import read
from quarterdeck.agents.scripted.plan import Call, Decision, decide
from quarterdeck.agents.scripted.schema import read_tools

HERE = Path(__file__).parent
NAMES = ("time", "everything", "filesystem", "memory", "fetch", "datetime")
STAGES = 6


@dataclass
class Row:
    """One row; ``calls`` are stages of (tool, arguments)."""

    number: int
    offered: list[str]
    ask: str
    calls: list[list[list[Any]]] = field(default_factory=list)
    results: list[list[str]] = field(default_factory=list)
    asks: str = ""
    none: bool = False
    rename: dict[str, str] = field(default_factory=dict)
    real: str = ""
    held: bool = False

    def __str__(self) -> str:
        return f"{self.number}: {self.ask}"


def rows(folder: str = "/srv/files", port: int = 8000) -> list[Row]:
    """The table with ``{folder}`` and ``{port}`` filled in."""
    text = (HERE / "acceptance.yaml").read_text().replace("{folder}", folder).replace("{port}", str(port))
    return [Row(number, **entry) for number, entry in enumerate(yaml.safe_load(text), 1)]


def definitions(server: str) -> list[dict[str, Any]]:
    return json.loads((HERE / "tools" / f"{server}.json").read_text())


def functions(row: Row) -> list[dict[str, Any]]:
    """What the row offers, as chat completions take it."""
    return [
        {"type": "function", "function": {
            "name": row.rename.get(t["name"], t["name"]),
            "description": t.get("description", ""),
            "parameters": t["inputSchema"],
        }}
        for server in row.offered for t in definitions(server)
    ]  # fmt: skip


async def play(
    ask: str, offered: list[dict[str, Any]], run: Callable[[int, Call], Awaitable[str]], most: int = STAGES
) -> tuple[list[list[Call]], str]:
    """The stages of calls made and the final text; ``run(stage, call)`` gives a result's text."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": ask}]
    stages: list[list[Call]] = []
    tools = read_tools(offered)
    while len(stages) < most:
        decision: Decision = decide(read(messages), tools)
        if not decision.calls:
            return stages, decision.text
        made = [(f"c{len(stages)}-{i}", call) for i, call in enumerate(decision.calls)]
        messages.append({"role": "assistant", "content": None, "tool_calls": [
            {"id": i, "type": "function", "function": {"name": c.name, "arguments": json.dumps(c.arguments)}}
            for i, c in made
        ]})  # fmt: skip
        for ident, call in made:
            messages.append({"role": "tool", "tool_call_id": ident, "content": await run(len(stages), call)})
        stages.append(decision.calls)
    raise AssertionError(f"{ask!r} did not end after {most} stages")
