"""Runs made of other runs: the same once more from a step, or another conversation that branches off there."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, and_, delete, insert, select

from quarterdeck.errors import BadRequest, Conflict
from quarterdeck.snapshot.conversation import new_id, tag_of
from quarterdeck.snapshot.runs import FINAL, Event

from .database import Database, Row, now
from .database import events as session_events
from .runs_store import Draft, NewRun, RunStore
from .runs_tables import run_events, runs

_KEPT = ("model.intent", "model.result", "tool.intent", "tool.started", "tool.result")


class Again:
    """``retry`` and ``fork`` begin a new run with the steps before ``step`` as they were; it is made by any replica."""

    def __init__(self, store: RunStore, database: Database) -> None:
        self._store = store
        self._database = database

    async def retry(self, row: Row, step: int, by: str) -> Row:
        """In the same conversation, in the place of the other. Raises Conflict while that goes on."""
        if row["state"] not in FINAL:
            raise Conflict(f"run {row['id']} is {row['state']}: cancel it first, or fork it")
        events, message = await self._read(row, step)
        new, kept = _made(row, events, message, step, by, "retry", row["session_id"])

        def work(connection: Connection) -> Row:
            _forget(connection, row)
            return self._store.begin(connection, new, kept)

        made = await self._database.transact(work)
        self._store.begun(made)
        return made

    async def fork(self, row: Row, step: int, by: str) -> Row:
        """In a conversation of its own that begins like the other's."""
        events, message = await self._read(row, step)
        session = new_id(row["agent"], tag_of(row["session_id"], row["agent"]) or 0)
        await self._database.create_session(row["agent"], row["user_id"], session, None, "fork")
        await self._copy(row, session)
        made, _ = await self._store.create(*_made(row, events, message, step, by, "fork", session))
        return made

    async def prune(self, before: float) -> int:
        """Delete what ended before that time (seconds since the epoch); how many runs."""
        where = and_(runs.c.updated_at < before, runs.c.state.in_(FINAL))
        old = select(runs.c.number).where(where)
        async with self._database.write() as connection:
            await connection.execute(delete(run_events).where(run_events.c.run.in_(old)))
            return (await connection.execute(delete(runs).where(where))).rowcount

    async def _read(self, row: Row, step: int) -> tuple[list[Event], dict[str, Any]]:
        events = await self._store.events(row)
        last = max((event.step for event in events), default=0)
        if not 1 <= step <= last + 1:
            raise BadRequest(f"step: run {row['id']} has the steps 1 to {last}; see: qd run show {row['id']}")
        kept = [event for event in events if event.kind in _KEPT and event.step < step]
        return kept, dict(events[0].data["message"])

    async def _copy(self, row: Row, session: str) -> None:
        """What was said before the run, into another conversation."""
        said = await self._database.list_events(
            row["agent"], row["user_id"], row["session_id"], limit=-1, ascending=True
        )
        before: list[Row] = []
        for event in said:
            if str(event["id"]).startswith(f"{row['id']}/"):
                break
            ident = "/".join(str(event["id"]).rsplit("/", 2)[-2:])
            copy = {"id": f"{uuid4()}/{ident}", "session_id": session, "created_at": now()}
            before.append({k: v for k, v in event.items() if k != "seq"} | copy)
        if before:
            async with self._database.write() as connection:
                await connection.execute(insert(session_events), before)


def _made(
    row: Row, kept: list[Event], message: dict[str, Any], step: int, by: str, how: str, session: str
) -> tuple[NewRun, list[Draft]]:
    """The new run, and what it takes over."""
    task = new_id(row["agent"], tag_of(row["task_id"], row["agent"]) or 0)
    message |= {"taskId": task, "contextId": session, "messageId": str(uuid4())}
    origin = {"run": row["id"], "step": step, "how": how, "by": by}
    new = NewRun(row["agent"], row["user_id"], session, task, message, how, origin=origin)
    return new, [Draft(event.kind, event.step, event.data) for event in kept]


def _forget(connection: Connection, row: Row) -> None:
    """Take what the run said out of its conversation: the new one says it again."""
    ours = and_(
        session_events.c.session_id == row["session_id"], session_events.c.agent == row["agent"],
        session_events.c.id.startswith(f"{row['id']}/"),
    )  # fmt: skip
    connection.execute(delete(session_events).where(ours))
