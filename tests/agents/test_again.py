"""Runs that end early, are answered, made again from a step, or forked; and who may."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.server.runs_again import Again
from quarterdeck.wire.client import Pool
from support.run_world import Broken, World, agent_token, replica, tool_call, user_message, world

pytestmark = pytest.mark.timeout(150)
LOOP = [[tool_call("look", 1)] for _ in range(9)]


async def done(active: Any) -> dict[str, Any]:
    async with asyncio.timeout(60):
        await active.finished.wait()
    return active.task


def told(task: dict[str, Any]) -> str:
    return task["status"]["message"]["parts"][0]["text"]


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"steps": 2}, "steps is limited to 2. Used: 1 steps, 0 tool calls, 5 tokens"),
        ({"tool_calls": 2}, "toolCalls is limited to 2. Used: 4 steps, 2 tool calls"),
        ({"tokens": 10}, "tokens is limited to 10. Used: 4 steps, 2 tool calls, 10 tokens"),
        ({"cost": 0.5, "input_price": 100000.0}, "cost is limited to 0.5"),
    ],
)
async def test_a_run_that_uses_more_than_it_may_ends(tmp_path: Path, budget: dict[str, Any], words: str) -> None:
    async with world(tmp_path, runs={"budget": budget}) as w, replica(w, "pod-1") as one:
        task = await done(await one.start(user_message(), "alice"))
        assert task["status"]["state"] == "TASK_STATE_FAILED" and words in told(task), told(task)
        row = await w.run()
        assert (row["state"], row["reason"]) == ("failed", "budget_exceeded")


async def test_the_time_of_a_run_is_a_budget_too(tmp_path: Path) -> None:
    async with world(tmp_path, runs={"budget": {"wall_time": 1.0}}) as w, replica(w, "pod-1") as one:
        forever = asyncio.Event()

        async def on_call(key: str) -> None:
            del key
            await forever.wait()

        w.tools.on_call = on_call
        task = await done(await one.start(user_message(), "alice"))
        assert "wallTime is limited to 1" in told(task)
        assert (await w.run())["reason"] == "budget_exceeded"


async def test_going_in_circles_ends_a_run(tmp_path: Path) -> None:
    async with world(tmp_path, LOOP) as w, replica(w, "pod-1") as one:
        task = await done(await one.start(user_message(), "alice"))
        assert "loop_detected: tool look was called 3 times with the same arguments" in told(task)
        assert w.tools.calls['look {"n": 1}'] == 3 and (await w.run())["reason"] == "loop_detected"


async def test_a_retry_keeps_what_was_before_the_step(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one:
        first = await done(await one.start(user_message(), "alice"))
        row, asked = await w.run(), w.model.asked
        w.tools.calls.clear()
        w.tools.results['note {"n": 2}'] = "better"
        made = await Again(w.store, w.store.database).retry(row, 5, "root")
        again, events = await w.settled()
        assert again["id"] == made["id"] and again["state"] == "completed" and again["task_id"] != first["id"]
        assert dict(w.tools.calls) == {'note {"n": 2}': 1} and w.model.asked == asked + 1
        assert events[0].data["origin"] == {"run": row["id"], "step": 5, "how": "retry", "by": "root"}
        said = await w.conversation(again)
        assert [m["content"] for m in said if m["role"] == "tool"] == [
            'did note {"n": 1}', 'did look {"n": 1}', "better",
        ], "the first attempt is no longer in the conversation"  # fmt: skip


async def test_a_fork_leaves_the_conversation_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one:
        first = await done(await one.start(user_message("before"), "alice"))
        second = await done(await one.start(user_message("go", contextId=first["contextId"]), "alice"))
        row = await w.run()
        before = await w.conversation(row)
        made = await Again(w.store, w.store.database).fork(row, 4, "root")
        forked, _ = await w.settled()
        assert forked["id"] == made["id"] and forked["session_id"] != second["contextId"]
        assert await w.conversation(row) == before
        copied = await w.conversation(forked)
        assert [m["content"] for m in copied if m["role"] == "user"] == ["before", "go"]
        assert copied[-1]["content"] == "all done"


class Client:
    """Speaks to ``/v1/runs`` with a token."""

    def __init__(self, w: World) -> None:
        self._origin = ("127.0.0.1", int(w.url.rpartition(":")[2]), False)
        self.pool = Pool()

    async def __call__(self, token: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        data = json.dumps(body).encode() if body is not None else b""
        response = await self.pool.request(method, self._origin, f"/v1/runs{path}", headers, data, timeout=60)
        return response.status, json.loads(await response.read())


async def test_who_may_see_and_write_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one:
        await done(await one.start(user_message(), "alice"))
        row = await w.run()
        ident, mine, ask = row["id"], agent_token(), Client(w)
        events = {"fence": 1, "batch": "b", "events": [{"kind": "final", "data": {"state": "failed"}}]}
        cases: list[tuple[str, str, str, Any, int]] = [
            ("root", "GET", f"/{ident}", None, 200),
            ("root", "GET", f"/{row['task_id']}/events", None, 200),
            (mine, "GET", f"/{ident}", None, 200),
            ("guest", "GET", f"/{ident}", None, 403),
            ("guest", "GET", "/nothing", None, 403),
            ("root", "GET", "/nothing", None, 404),
            ("other", "GET", f"/{ident}", None, 404),
            ("other", "POST", f"/{ident}/events", events, 404),
            ("other", "POST", f"/{ident}/cancel", {}, 404),
            ("root", "POST", f"/{ident}/events", events, 401),
            (mine, "POST", f"/{ident}/events", events, 409),
            (mine, "POST", f"/{ident}/events", events | {"events": [{"kind": "answer"}]}, 400),
            (mine, "POST", f"/{ident}/events", events | {"events": []}, 400),
            (mine, "POST", f"/{ident}/steps/2/start", {"gateway": "quarterdeck-system/quarterdeck"}, 403),
            ("gateway", "POST", f"/{ident}/steps/2/start", {"gateway": "other/gw", "fence": 1, "attempt": 1}, 403),
            ("gateway", "GET", f"/{ident}", None, 403),
            ("root", "POST", f"/{ident}/cancel", {}, 409),
            ("root", "POST", f"/{ident}/answer", {"step": 2, "data": {}}, 409),
            ("root", "POST", f"/{ident}/retry", {"step": 99}, 400),
        ]  # fmt: skip
        for token, method, path, body, status in cases:
            got, answer = await ask(token, method, path, body)
            assert got == status, (token[:8], method, path, got, answer)
        _, listed = await ask("root", "GET", "?agent=kagent/a&state=completed&user=alice")
        assert [run["id"] for run in listed["runs"]] == [ident]
        assert (await ask("other", "GET", ""))[1] == {"runs": []}
        ask.pool.close()


async def test_a_run_in_the_background_is_taken_by_a_replica(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1"):
        ask = Client(w)
        status, made = await ask("root", "POST", "", {"agent": "kagent/a", "text": "do it"})
        assert status == 201 and made["source"] == "background" and made["user"] == "root"
        row, _ = await w.settled()
        assert row["id"] == made["id"] and row["state"] == "completed"
        assert (await ask("root", "POST", "", {"agent": "kagent/nobody", "text": "do it"}))[0] == 404
        ask.pool.close()


async def test_a_run_that_waits_can_be_canceled(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one:

        async def on_call(key: str) -> None:
            if key.startswith("note"):
                raise Broken

        w.tools.on_call = on_call
        task = await done(await one.start(user_message(), "alice"))
        assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        ended = await one.cancel(task["id"], "alice")
        assert ended["status"]["state"] == "TASK_STATE_CANCELED" and (await w.run())["state"] == "canceled"
        assert w.tools.calls['note {"n": 1}'] == 1


async def test_old_runs_are_deleted(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one:
        await done(await one.start(user_message(), "alice"))
        row = await w.run()
        again = Again(w.store, w.store.database)
        assert await again.prune(row["updated_at"] - 1) == 0
        assert await again.prune(row["updated_at"] + 1) == 1
        assert await w.store.select() == [] and await w.store.events(row) == []
