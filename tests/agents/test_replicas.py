"""Several replicas of one agent: no run is worked on twice, and none is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from support.run_world import Broken, replica, user_message, world

pytestmark = pytest.mark.timeout(150)


async def test_a_replica_that_slept_past_its_lease_is_refused_when_it_wakes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        host, reached = None, asyncio.Event()

        def on_write(number: int) -> bool:
            if number == 2 and host is not None:  # the intents of the first calls
                os.kill(host.pid, signal.SIGSTOP)
                reached.set()
            return False

        w.on_write = on_write
        host = w.host("go", replica="pod-1")
        async with asyncio.timeout(60):
            await reached.wait()
            row = await w.run()
            while (await w.store.events(row))[-1].kind != "tool.intent":
                await asyncio.sleep(0.02)
        assert not w.tools.calls
        await w.lapse()
        w.host(replica="pod-2")
        row, events = await w.settled()
        assert row["state"] == "completed" and row["fence"] == 2
        before = dict(w.tools.calls)
        os.kill(host.pid, signal.SIGCONT)
        refused = 0
        async with asyncio.timeout(60):
            while refused < 2:
                await asyncio.sleep(0.05)
                refused = (tmp_path / "audit").read_text().count("may not start under fence 1")
        assert dict(w.tools.calls) == before == {'note {"n": 1}': 1, 'look {"n": 1}': 1, 'note {"n": 2}': 1}
        assert len(await w.store.events(row)) == len(events), "it wrote nothing"


async def test_runs_of_a_dead_replica_are_shared_by_the_others_and_each_is_made_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        held = asyncio.Event()
        first = w.runs("pod-1")
        w.tools.on_call = lambda key: _until(held)
        for n in range(4):
            await first.start(user_message(messageId=f"m{n}"), "alice")
        async with asyncio.timeout(60):
            while sum(w.tools.calls.values()) < 8:
                await asyncio.sleep(0.02)
        for active in list(first._active.values()):  # the process is gone: it neither ends nor lets go
            assert active.journal is not None
            active.journal.lost = True
        held.set()
        await w.lapse()
        async with replica(w, "pod-2"), replica(w, "pod-3"):
            async with asyncio.timeout(60):
                while {row["state"] for row in await w.store.select()} != {"waiting"}:
                    await asyncio.sleep(0.05)
        await first.stop()
        assert w.tools.calls['note {"n": 1}'] == 4, "no note was made twice"
        assert w.tools.calls['look {"n": 1}'] == 8, "what is read-only was"


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def test_two_messages_to_one_context_are_worked_on_in_turn(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one, replica(w, "pod-2") as two:
        gate = asyncio.Event()
        w.tools.on_call = lambda key: _until(gate)
        first = await one.start(user_message(), "alice")
        second = await two.start(user_message(contextId=first.task["contextId"]), "alice")
        async with asyncio.timeout(60):
            while sum(w.tools.calls.values()) < 2:
                await asyncio.sleep(0.02)
        assert [row["state"] for row in await w.store.select()] == ["pending", "running"]
        gate.set()
        async with asyncio.timeout(60):
            await asyncio.gather(first.finished.wait(), second.finished.wait())
        assert first.task["status"]["state"] == second.task["status"]["state"] == "TASK_STATE_COMPLETED"
        rows = await w.store.select()
        ended = [(await w.store.events(row))[-1].at for row in rows]
        began = [next(e.at for e in await w.store.events(row) if e.kind == "leased") for row in rows]
        assert began[0] >= ended[1], "the second began when the first had ended"


async def test_a_caller_of_another_replica_sees_the_same_and_reconnects_without_loss(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one, replica(w, "pod-2") as two:
        gate = asyncio.Event()
        w.tools.on_call = lambda key: _until(gate)
        active = await one.start(user_message(), "alice")
        task = active.task["id"]
        seen: list[tuple[int, Any]] = []
        async with asyncio.timeout(60):
            async for number, update in two.events(task, "alice"):
                seen.append((number, update))
                if len(seen) == 2:
                    break  # the connection is lost
            gate.set()
            rest = [entry async for entry in two.events(task, "alice", after=seen[-1][0])]
            await active.finished.wait()
        told = [update for _, update in active.log]
        last = seen[-1][0]
        assert [update for _, update in rest] == [u for n, u in active.log if n > last]
        assert rest[-1][1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        assert (await two.get(task, "alice"))["artifacts"] == active.task["artifacts"] and told


async def test_cancelling_at_one_replica_ends_the_run_of_another(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one, replica(w, "pod-2") as two:
        w.tools.on_call = lambda key: _until(asyncio.Event())
        active = await one.start(user_message(), "alice")
        async with asyncio.timeout(60):
            while sum(w.tools.calls.values()) < 2:
                await asyncio.sleep(0.02)
            task = await two.cancel(active.task["id"], "alice")
        assert task["status"]["state"] == "TASK_STATE_CANCELED"
        assert (await w.run())["state"] == "canceled"


async def test_a_message_that_waits_for_its_turn_is_cancelled_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one:
        gate = asyncio.Event()
        w.tools.on_call = lambda key: _until(gate)
        first = await one.start(user_message(), "alice")
        second = await one.start(user_message("no", contextId=first.task["contextId"]), "alice")
        async with asyncio.timeout(60):
            task = await one.cancel(second.task["id"], "alice")
            await second.finished.wait()
        assert task["status"]["state"] == "TASK_STATE_CANCELED" and not first.finished.is_set()
        gate.set()
        async with asyncio.timeout(60):
            await first.finished.wait()
        assert first.task["status"]["state"] == "TASK_STATE_COMPLETED" and w.model.asked == 3


async def test_a_replica_that_ends_lets_its_runs_go_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-2"):
        first = w.runs("pod-1")
        asked = asyncio.Event()

        async def on_ask() -> None:
            if not asked.is_set():
                asked.set()
                await asyncio.Event().wait()

        w.model.on_ask = on_ask
        active = await first.start(user_message(), "alice")
        await asked.wait()
        await first.stop()
        assert active.finished.is_set()
        row, _ = await w.settled()
        assert row["state"] == "completed" and row["fence"] == 2
        assert set(w.tools.calls.values()) == {1}


async def test_the_control_plane_is_away_for_a_while(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one:
        gone = asyncio.Event()

        async def on_call(key: str) -> None:
            if key == 'note {"n": 1}':
                w.away = True
                gone.set()

        w.tools.on_call = on_call
        active = await one.start(user_message(), "alice")
        await gone.wait()
        await asyncio.sleep(0.3)
        assert not active.finished.is_set()
        w.away = False
        async with asyncio.timeout(60):
            await active.finished.wait()
        assert active.task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert set(w.tools.calls.values()) == {1}


async def test_a_server_that_breaks_off_is_asked_again_only_where_that_does_no_harm(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one:
        broken: list[str] = []

        async def on_call(key: str) -> None:
            if key not in broken:
                broken.append(key)
                raise Broken

        w.tools.on_call = on_call
        active = await one.start(user_message(), "alice")
        async with asyncio.timeout(60):
            await active.finished.wait()
        assert active.task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED", active.task
        assert w.tools.calls == {'note {"n": 1}': 1, 'look {"n": 1}': 2}
        said = active.task["status"]["message"]["parts"]
        assert "note" in said[0]["text"] and said[1]["data"]["choices"] == ["repeat", "skip", "fail"]
        answer = user_message(taskId=active.task["id"], parts=[{"text": "Repeat"}])
        again = await one.start(answer, "alice")
        async with asyncio.timeout(60):
            await again.finished.wait()
        assert w.tools.calls['note {"n": 1}'] == 2, "as the user wished"
        assert again.task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED", "the second note broke off, too"
        skipped = await one.start(user_message(taskId=active.task["id"], parts=[{"data": {"action": "skip"}}]), "alice")
        async with asyncio.timeout(60):
            await skipped.finished.wait()
        assert skipped.task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert w.tools.calls['note {"n": 2}'] == 1


async def test_the_gateway_is_killed_in_the_middle_of_calls(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one:
        both, gate = asyncio.Event(), asyncio.Event()

        async def on_call(key: str) -> None:
            if sum(w.tools.calls.values()) == 2:
                both.set()
            await gate.wait()

        w.tools.on_call = on_call
        active = await one.start(user_message(), "alice")
        async with asyncio.timeout(60):
            await both.wait()
            await w.restart_gateway()
            gate.set()
            await active.finished.wait()
        assert active.task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED", active.task["status"]
        skipped = await one.start(user_message("skip", taskId=active.task["id"]), "alice")
        async with asyncio.timeout(60):
            await skipped.finished.wait()
        assert skipped.task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert w.tools.calls == {'note {"n": 1}': 1, 'look {"n": 1}': 2, 'note {"n": 2}': 1}


async def test_a_call_that_breaks_off_after_another_beside_it_has_ended_is_not_made_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w, replica(w, "pod-1") as one:
        begun, forever = asyncio.Event(), asyncio.Event()

        async def on_call(key: str) -> None:
            if key.startswith("note"):
                begun.set()
                await forever.wait()

        w.tools.on_call = on_call
        active = await one.start(user_message(), "alice")
        async with asyncio.timeout(60):
            await begun.wait()
            while not any(e.kind == "tool.result" for e in await w.store.events(await w.run())):
                await asyncio.sleep(0.02)
            await w.restart_gateway()
            await active.finished.wait()
        forever.set()
        assert active.task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED", active.task["status"]
        assert w.tools.calls == {'note {"n": 1}': 1, 'look {"n": 1}': 1}


async def test_the_gateway_is_away_while_the_model_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        broken: list[int] = []

        async def on_ask() -> None:
            if not broken:
                broken.append(1)
                raise Broken

        w.model.on_ask = on_ask
        async with replica(w, "pod-1") as one:
            active = await one.start(user_message(), "alice")
            async with asyncio.timeout(60):
                await active.finished.wait()
        assert active.task["status"]["state"] == "TASK_STATE_COMPLETED" and w.model.asked == 4
