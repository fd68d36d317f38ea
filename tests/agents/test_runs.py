"""Runs that outlive their host: what was done is not done again, whatever is killed at whatever point."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.agents.journal.fold import Story
from support.run_world import World, world

pytestmark = pytest.mark.timeout(240)  # processes are started: on a machine that is busy that takes its time
WRITES = 13
"""Requests that write down one run of the script, without interruptions."""
POINTS = [(number, lost) for number in range(1, WRITES + 1) for lost in (False, True)]
SAMPLE = set(random.Random(20261121).sample(POINTS, 5))


async def test_a_run_is_written_down_in_so_many_requests(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.host("go")
        row, events = await w.settled()
        while w.under_way or w.writes < WRITES:
            await asyncio.sleep(0.01)
        assert row["state"] == "completed"
        assert w.writes - WRITES in (0, 1), "each is a point to be killed at; of two results at once, one may wait"
        assert [e.kind for e in events if e.kind != "checkpoint"] == [
            "created", "leased", "model.intent", "model.result", "tool.intent", "tool.intent", "tool.started",
            "tool.started", "tool.result", "tool.result", "model.intent", "model.result", "tool.intent", "tool.started",
            "tool.result", "model.intent", "model.result", "final",
        ]  # fmt: skip
        assert [meta["dev.quarterdeck/step"] for meta in w.tools.metas] == [2, 3, 5]
        assert all("dev.quarterdeck/permit" not in meta for meta in w.tools.metas), "it is for the gateway only"
        assert all(meta["dev.quarterdeck/idempotencyKey"].startswith(row["id"]) for meta in w.tools.metas)


async def killed_at(w: World, number: int, *, lost: bool) -> tuple[dict[str, Any], list[Any]]:
    """A run whose host is killed at a write, which is lost with it or not; another process goes on."""
    host = None

    def on_write(seen: int) -> bool:
        if seen == number and host is not None:
            w.kill(host)
            return lost
        return False

    w.on_write = on_write
    host = w.host("go")
    await asyncio.to_thread(host.join, 100)
    assert not host.is_alive(), "it was killed"
    w.on_write = None
    while w.under_way:
        await asyncio.sleep(0.01)
    w.host("" if await w.store.select() else "go")
    return await w.settled()


async def finished(w: World, row: dict[str, Any], events: list[Any]) -> list[Any]:
    """Answer what is asked until the run is at its end."""
    while row["state"] == "waiting":
        asked = Story(events).waiting
        kinds = [e.kind for e in events if e.step == asked and e.kind != "leased"]
        assert events[-1].data["reason"] == "unknown_outcome" and kinds[-2:] == ["tool.started", "waiting"], events
        await w.store.answer(row["id"], asked, {"action": "skip"}, "root")
        row, events = await w.settled(100.0, "completed", "failed", "waiting")
    assert row["state"] == "completed", events[-1]
    return events


@pytest.mark.parametrize(
    ("number", "lost"), [p if p in SAMPLE else pytest.param(*p, marks=pytest.mark.slow) for p in POINTS]
)
async def test_a_host_killed_at_any_write_is_succeeded(tmp_path: Path, number: int, lost: bool) -> None:
    async with world(tmp_path) as w:
        row, events = await killed_at(w, number, lost=lost)
        events = await finished(w, row, events)
        made = w.tools.calls
        assert made['note {"n": 1}'] <= 1 and made['note {"n": 2}'] <= 1, made
        skipped = [e for e in events if e.data.get("how") == "skipped"]
        assert made['note {"n": 1}'] + made['note {"n": 2}'] + len(skipped) >= 2, events
        results = [e.step for e in events if e.kind == "tool.result"]
        assert sorted(results) == [2, 3, 5], "each has one result"
        assert [e.kind for e in events].count("final") == 1
        while w.under_way:
            await asyncio.sleep(0.01)
        task = json.loads((await w.store.database.task("kagent/a", row["task_id"]))["data"])
        asked = [e for e in events if e.kind == "answer"]
        assert task["status"]["state"] == "TASK_STATE_COMPLETED" and len(task["history"]) == 7 + len(asked)
