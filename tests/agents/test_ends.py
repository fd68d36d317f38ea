"""How the work on a run ends where it is worked on, and who is told: nobody waits for ever, nothing done is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete

from quarterdeck.agents.a2a import types
from quarterdeck.agents.active import Active
from quarterdeck.agents.interrupted import Leases
from quarterdeck.agents.journal.client import Answer, Claimed, JournalClient
from quarterdeck.agents.journal.told import task_of
from quarterdeck.agents.tool import Context, Outcome
from quarterdeck.mcpclient import no_headers
from quarterdeck.server.runs_store import NewRun
from quarterdeck.server.runs_tables import runs as runs_table
from quarterdeck.snapshot.runs import Event
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Server
from support.run_world import replica, tool_call, user_message, world

pytestmark = pytest.mark.timeout(150)


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def test_a_task_that_is_cancelled_twice_ends_once_and_for_all_who_wait(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one = w.runs("pod-1")
        asked, second = asyncio.Event(), list[asyncio.Task[Any]]()

        async def on_ask() -> None:
            asked.set()
            await asyncio.Event().wait()

        w.model.on_ask = on_ask
        active = await one.start(user_message(), "alice")
        await asked.wait()

        def on_write(number: int) -> bool:  # the end of the run is being written
            del number
            second.append(asyncio.get_running_loop().create_task(one.cancel(active.task["id"], "alice")))
            return False

        w.on_write = on_write
        async with asyncio.timeout(60):
            first = await one.cancel(active.task["id"], "alice")
            again = await second[0]
            await active.finished.wait()
        assert first["status"]["state"] == again["status"]["state"] == types.CANCELED
        assert not one._active, "nothing is kept of it"
        await one.stop()


async def test_a_replica_that_is_given_its_own_run_again_works_on_it_once(tmp_path: Path) -> None:
    async with world(tmp_path, [[tool_call("look", 1)]]) as w:
        one, gate = w.runs("pod-1"), asyncio.Event()
        w.tools.on_call = lambda key: _until(gate)
        active = await one.start(user_message(), "alice")
        async with asyncio.timeout(60):
            while not w.tools.calls:
                await asyncio.sleep(0.02)
            await w.lapse()  # it was stopped for a while, and no other replica is there
            assert await one.heartbeat.claim() == 1
            while sum(w.tools.calls.values()) < 2:
                await asyncio.sleep(0.02)
            asked, answer = asyncio.Event(), asyncio.Event()

            async def on_ask() -> None:
                asked.set()
                await answer.wait()

            w.model.on_ask = on_ask
            gate.set()
            await asked.wait()
            row = await w.run()
            assert one._held() == {row["id"]: 2}, "its lease is kept fresh"
            answer.set()
            await active.finished.wait()
        assert active.task["status"]["state"] == types.COMPLETED
        await one.stop()


class Quitting:
    """A tool at whose end the replica is told to stop."""

    trusted = repeatable = False
    server = ""

    def __init__(self, quit: Any) -> None:
        self.schema: Any = {"type": "object"}
        self.name = self.upstream = self.description = "quit"
        self.called, self.stopping = 0, list[asyncio.Task[None]]()
        self._quit = quit

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        del arguments, context
        self.called += 1
        self.stopping.append(asyncio.create_task(self._quit()))
        return Outcome("quitted")


async def test_what_a_call_gave_is_written_before_a_replica_ends(tmp_path: Path) -> None:
    async with world(tmp_path, [[tool_call("quit", 1)]]) as w:
        one = w.runs("pod-1")
        tool = Quitting(one.stop)
        one._toolbox.builtin.append(tool)
        active = await one.start(user_message(), "alice")
        async with asyncio.timeout(60):
            await active.finished.wait()
            await tool.stopping[0]
        async with replica(w, "pod-2"):
            row, events = await w.settled()
        assert row["state"] == "completed", events[-1]
        assert tool.called == 1 and [e.data["message"]["content"] for e in events if e.kind == "tool.result"] == [
            "quitted"
        ]


async def test_what_the_control_plane_will_never_take_fails_the_run(tmp_path: Path) -> None:
    async with world(tmp_path, [[tool_call("look", n) for n in range(205)]]) as w, replica(w, "pod-1") as one:
        active = await one.start(user_message(), "alice")
        async with asyncio.timeout(60):
            await active.finished.wait()
        row, events = await w.settled()
        assert (row["state"], row["reason"]) == ("failed", "not_recorded"), "else it would be asked for again for ever"
        assert "must hold 1 to 200 events" in events[-1].data["text"]
        assert w.model.asked == 1 and not w.tools.calls


async def test_a_replica_that_ends_takes_nothing_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one = w.runs("pod-1")
        await one.drain(0.0)
        await w.store.create(NewRun("kagent/a", "alice", "s1", "t1", user_message(taskId="t1", contextId="s1")))
        assert await one.heartbeat.claim() == 0
        assert (await w.run())["state"] == "pending"
        await one.stop()


async def test_who_follows_a_run_that_is_deleted_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one, two, gate = w.runs("pod-1"), w.runs("pod-2"), asyncio.Event()
        w.tools.on_call = lambda key: _until(gate)
        active = await one.start(user_message(), "alice")
        async with asyncio.timeout(60):
            async for number, _ in two.events(active.task["id"], "alice"):
                if number >= 3:
                    break
            row = await w.run()
            async with w.store.database.write() as connection:
                await connection.execute(delete(runs_table).where(runs_table.c.number == row["number"]))
            followed = two.active(active.task["id"], "alice")
            w.store.changed(row["id"]).set()
            await followed.finished.wait()
        assert not two._active
        gate.set()
        await asyncio.gather(one.stop(), two.stop())


def asks() -> Any:
    """A call that asks the user."""
    made = tool_call("ask_user", 1)
    made["function"]["arguments"] = '{"questions": [{"question": "Which?"}]}'
    return made


async def test_an_answer_of_which_no_word_came_back_is_taken_all_the_same(tmp_path: Path) -> None:
    async with world(tmp_path, [[asks()]]) as w, replica(w, "pod-1") as one:
        first = await one.start(user_message(), "alice")
        async with asyncio.timeout(60):
            await first.finished.wait()
        row, _ = await w.settled()

        async def before(exchange: Exchange) -> None:
            if exchange.path.endswith("/answer"):  # the same request has been here, and its answer was lost
                w.before = None
                body = msgspec.json.decode(exchange.body)
                await w.store.answer(row["id"], body["step"], body["data"], "kagent/a")

        w.before = before
        done = await one.start(user_message("the blue one", taskId=first.task["id"]), "alice")
        async with asyncio.timeout(60):
            await done.finished.wait()
        assert w.before is None and done.task["status"]["state"] == types.COMPLETED


class Awaited(asyncio.Event):
    """Tells that somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.awaited = asyncio.Event()

    async def wait(self) -> Any:
        self.awaited.set()
        return await super().wait()


async def test_an_answer_that_comes_while_the_last_event_is_still_told_is_taken(tmp_path: Path) -> None:
    async with world(tmp_path, [[asks()]]) as w, replica(w, "pod-1") as one:
        first = await one.start(user_message(), "alice")
        async with asyncio.timeout(60):
            await first.finished.wait()
        assert first.task["status"]["state"] == types.INPUT_REQUIRED
        _, events = await w.settled()
        ended = Awaited()
        following = one._active[first.task["id"]] = Active(task_of(events), "alice", finished=ended)
        answered = asyncio.create_task(one.start(user_message("the blue one", taskId=first.task["id"]), "alice"))
        awaited = asyncio.create_task(ended.awaited.wait())
        await asyncio.wait({answered, awaited}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        one._active.pop(first.task["id"])
        following.end()
        async with asyncio.timeout(60):
            done = await answered
            await done.finished.wait()
        assert done.task["status"]["state"] == types.COMPLETED


async def test_what_happens_while_the_first_event_is_sent_is_not_lost() -> None:
    active = Active(types.new_task(user_message(taskId="t", contextId="c")), "alice")
    read = active.follow()
    await anext(read)
    active.publish({"n": 1})
    active.end()
    assert [update async for _, update in read] == [{"n": 1}]


async def test_leases_of_very_many_runs_are_kept_fresh_in_turns() -> None:
    held, shown = {f"r{n}": 1 for n in range(1201)}, list[dict[str, int]]()

    class Plane(JournalClient):
        async def claim(self, replica: str, held: dict[str, int], **more: Any) -> Answer:
            del replica, more
            shown.append(held)
            return Answer([], [run for run in held if run == "r1200"], [])

    async def take(claimed: Claimed) -> None:
        del claimed

    ended: list[str] = []

    def lose(run: str, *, canceled: bool) -> None:
        assert canceled
        ended.append(run)

    client = Plane(Pool(), "http://127.0.0.1:1", no_headers)
    await Leases(client, "pod/1", lambda: held, take, lose).beat()
    assert max(map(len, shown)) <= 1000 and {run for part in shown for run in part} == set(held)
    assert ended == ["r1200"]


async def test_a_stream_of_events_that_says_nothing_any_more_is_opened_again() -> None:
    asked: list[str] = []

    async def plane(exchange: Exchange) -> None:
        asked.append(exchange.target.decode())
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        event = Event(len(asked), "note" if len(asked) == 1 else "final", 0, 1.0, 1, {})
        exchange.write(b"data: " + msgspec.json.encode(event) + b"\n\n")
        if len(asked) > 1:
            exchange.finish()  # else the machine is gone, and nobody says so

    server, pool = Server(plane), Pool()
    _, port = await server.listen("127.0.0.1", 0)
    client = JournalClient(pool, f"http://127.0.0.1:{port}", no_headers, silence=0.2)
    async with asyncio.timeout(60):
        assert [event.kind async for event in client.watch("r1")] == ["note", "final"]
    assert asked[1] == "/v1/runs/r1/events?after=1&watch", "from where it was"
    pool.close()
    await server.stop(0)


async def test_a_watcher_that_falls_behind_is_let_go_when_it_has_read_what_it_has() -> None:
    message = user_message(taskId="t", contextId="c")
    active = Active(types.new_task(message), "alice")
    read = active.follow()
    await anext(read)
    for n in range(10_000):
        active.publish({"n": n})
    slow = active.follow()
    await anext(slow)
    active.publish({"n": 10_000})
    active.end()
    async with asyncio.timeout(60):
        assert len([entry async for entry in read]) == 10_000
        assert [update async for _, update in slow] == [{"n": 10_000}]
