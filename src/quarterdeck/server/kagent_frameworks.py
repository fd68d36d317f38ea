"""What frameworks keep behind kagent's contract: checkpoints of LangGraph, memory and flow state of CrewAI.

Paths, members and status codes are those of kagent 0.10 (``/api/langgraph/checkpoints``, ``/api/crewai``). Contents are
opaque: what the SDK serialised, base64 or JSON. Everything belongs to the conversation (``thread_id``) and its user.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import time
from typing import Any

from sqlalchemy import Column, Table, and_, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.errors import BadRequest, NotFound, TooLarge

from .database import Database, Row, upsert
from .http import Answer, Call, Route, route
from .kagent_tables import checkpoints, crew_memories, crew_states, writes

Who = Callable[..., Awaitable[tuple[str, str]]]
"""``who(call, session, said)``: agent and user of a request; see :meth:`quarterdeck.server.kagent.KagentApi.who`."""

KEPT = 256
"""Checkpoints of a thread and namespace; the oldest go first."""
KEPT_BYTES = 64 * 1024 * 1024
"""The same, and of CrewAI's memories, as far as they are large; the newest is kept however large it is."""
MEMORIES = 1000
STATES = 100
"""Of a thread."""
_LARGE = 128 * 1024
_LARGEST = 3 * 1024 * 1024
_WRITES = 1000
_PAGE = 100
_TEXT = 255
_TYPE = 64
_KEEP = {table.name: upsert(table) for table in (checkpoints, writes, crew_states)}
_NO_TASK = "00000000-0000-0000-0000-000000000000"
"""LangGraph's task id of writes that belong to no task: what resumes an interrupted graph."""


class Frameworks:
    """Routes on the kagent listener."""

    def __init__(self, database: Database, who: Who) -> None:
        self._database = database
        self._who = who

    def routes(self) -> list[Route]:
        base, state = "/api/langgraph/checkpoints", "/api/crewai/flows/state"
        return [
            route("POST", base, self.put_checkpoint),
            route("GET", base, self.list_checkpoints),
            route("POST", base + "/writes", self.put_writes),
            route("DELETE", base + "/{thread_id}", self.delete_thread),
            route("POST", "/api/crewai/memory", self.store_memory),
            route("GET", "/api/crewai/memory", self.search_memory),
            route("DELETE", "/api/crewai/memory", self.reset_memory),
            route("POST", state, self.store_state),
            route("GET", state, self.get_state),
        ]

    # -- LangGraph
    async def put_checkpoint(self, call: Call) -> Answer:
        body = call.body()
        thread = _thread(body)
        agent, user = await self._who(call, thread)
        key: Row = {
            "agent": agent,
            "thread_id": thread,
            "checkpoint_ns": _short(body, "checkpoint_ns"),
            "checkpoint_id": _short(body, "checkpoint_id", required=True),
        }
        values: Row = {
            "user_id": user,
            "parent": _short(body, "parent_checkpoint_id") or None,
            "type": _short(body, "type_", limit=_TYPE),
            "version": _whole(body.get("version", 1), "version"),
            "checkpoint": _content(body, "checkpoint", required=True),
            "meta": _content(body, "metadata"),
        }
        async with self._database.write() as connection:
            await connection.execute(_KEEP[checkpoints.name][connection.dialect.name], key | values)
            await self._prune(connection, key, large=len(values["checkpoint"]) > _LARGE)
        return _done("Successfully stored checkpoint")

    async def list_checkpoints(self, call: Call) -> Answer:
        """The newest first, each with the writes of one task: more the SDK's format cannot tell apart, so that the
        others' are made again."""
        query = call.query
        thread = _thread(query)
        agent, user = await self._who(call, thread)
        of = and_(
            checkpoints.c.agent == agent,
            checkpoints.c.user_id == user,
            checkpoints.c.thread_id == thread,
            checkpoints.c.checkpoint_ns == query.get("checkpoint_ns", ""),
        )
        if query.get("checkpoint_id"):
            of = and_(of, checkpoints.c.checkpoint_id == query["checkpoint_id"])
        limit = _whole(query.get("limit") or 0, "limit")
        ordered = select(checkpoints).where(of).order_by(checkpoints.c.checkpoint_id.desc())
        found = await self._database.rows(ordered.limit(min(limit, _PAGE) if limit > 0 else _PAGE))
        pending = await self._pending(found)
        return _found([_tuple(row, pending.get(row["checkpoint_id"], [])) for row in found], "listed checkpoints")

    async def put_writes(self, call: Call) -> Answer:
        body = call.body()
        thread = _thread(body)
        agent, user = await self._who(call, thread)
        given = body.get("writes")
        if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
            raise BadRequest("writes: must be a list of objects")
        if len(given) > _WRITES:
            raise TooLarge(f"writes: {len(given)} are more than {_WRITES}")
        key: Row = {
            "agent": agent,
            "thread_id": thread,
            "checkpoint_ns": _short(body, "checkpoint_ns"),
            "checkpoint_id": _short(body, "checkpoint_id", required=True),
            "task_id": _short(body, "task_id"),
        }
        rows = [key | _write(each, user) for each in given]
        if rows:
            async with self._database.write() as connection:
                await connection.execute(_KEEP[writes.name][connection.dialect.name], rows)
        return _done("Successfully stored checkpoint writes")

    async def delete_thread(self, call: Call) -> Answer:
        thread = call.parameters["thread_id"]
        agent, _ = await self._who(call, thread)
        async with self._database.write() as connection:
            for table in (checkpoints, writes):
                await connection.execute(delete(table).where(_of_thread(table, agent, thread)))
        return Answer(_envelope({}, "Successfully deleted thread"))

    async def _pending(self, found: list[Row]) -> dict[str, list[Row]]:
        """Writes of checkpoints by id, in their order: of the task with the most, real tasks before LangGraph's own."""
        if not found:
            return {}
        first = found[0]
        ids = [row["checkpoint_id"] for row in found]
        of = and_(
            _of_thread(writes, first["agent"], first["thread_id"]),
            writes.c.checkpoint_ns == first["checkpoint_ns"],
            writes.c.checkpoint_id.in_(ids),
        )
        by: dict[str, dict[str, list[Row]]] = {}
        for row in await self._database.rows(select(writes).where(of).order_by(writes.c.idx)):
            by.setdefault(row["checkpoint_id"], {}).setdefault(row["task_id"], []).append(row)

        def rank(task: tuple[str, list[Row]]) -> tuple[bool, int, str]:
            return task[0] != _NO_TASK, len(task[1]), task[0]

        return {name: max(of_task.items(), key=rank)[1] for name, of_task in by.items()}

    async def _prune(self, connection: AsyncConnection, key: Row, *, large: bool) -> None:
        of = and_(
            _of_thread(checkpoints, key["agent"], key["thread_id"]),
            checkpoints.c.checkpoint_ns == key["checkpoint_ns"],
        )
        newest = select(checkpoints.c.checkpoint_id).where(of).order_by(checkpoints.c.checkpoint_id.desc())
        last = (await connection.execute(newest.offset(KEPT).limit(1))).scalar_one_or_none()
        if large:
            sizes = newest.add_columns(func.length(checkpoints.c.checkpoint))
            rows = (await connection.execute(sizes)).all()
            last = _beyond([(str(row[0]), int(row[1])) for row in rows]) or last
        if last is None:
            return
        for table in (checkpoints, writes):
            stale = and_(
                _of_thread(table, key["agent"], key["thread_id"]),
                table.c.checkpoint_ns == key["checkpoint_ns"],
                table.c.checkpoint_id <= last,
            )
            await connection.execute(delete(table).where(stale))

    # -- CrewAI
    async def store_memory(self, call: Call) -> Answer:
        body = call.body()
        thread = _thread(body)
        agent, user = await self._who(call, thread, (body.get("user_id"),))
        data = body.get("memory_data") or {}
        if not isinstance(data, dict):
            raise BadRequest("memory_data: must be an object")
        row: Row = {"agent": agent, "thread_id": thread, "user_id": user, "data": _dumped(data, "memory_data")}
        row["task"] = str(data.get("task_description") or "")
        of = _of_thread(crew_memories, agent, thread)
        async with self._database.write() as connection:
            await connection.execute(insert(crew_memories).values(**row))
            large = crew_memories.c.data if len(row["data"]) > _LARGE else None
            await _keep_newest(connection, crew_memories.c.seq, of, MEMORIES, large)
        return _done("Successfully stored CrewAI memory")

    async def search_memory(self, call: Call) -> Answer:
        """Memories whose task description holds ``q``, the best score first."""
        thread, asked = _thread(call.query), call.query.get("q", "")
        agent, user = await self._who(call, thread)
        if not asked:
            raise BadRequest("q: is missing; memories are searched by their task description")
        escaped = asked[:_LARGEST].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        of = and_(_of_thread(crew_memories, agent, thread), crew_memories.c.user_id == user)
        like = or_(crew_memories.c.task == asked, crew_memories.c.task.ilike(f"%{escaped}%", escape="\\"))
        rows = await self._database.rows(select(crew_memories.c.data).where(and_(of, like)))
        found = sorted((json.loads(row["data"]) for row in rows), key=_score, reverse=True)
        limit = _whole(call.query.get("limit") or 0, "limit")
        chosen = found[: limit if limit > 0 else _PAGE]
        return _found([{"thread_id": thread, "user_id": user, "memory_data": data} for data in chosen], "listed memory")

    async def reset_memory(self, call: Call) -> Answer:
        thread = _thread(call.query)
        agent, _ = await self._who(call, thread)
        async with self._database.write() as connection:
            await connection.execute(delete(crew_memories).where(_of_thread(crew_memories, agent, thread)))
        return Answer(_envelope({}, "Successfully reset CrewAI memory"))

    async def store_state(self, call: Call) -> Answer:
        body = call.body()
        thread = _thread(body)
        agent, user = await self._who(call, thread)
        data = body.get("state_data") or {}
        if not isinstance(data, dict):
            raise BadRequest("state_data: must be an object")
        key: Row = {"agent": agent, "thread_id": thread, "flow_uuid": _short(body, "flow_uuid")}
        values: Row = {"user_id": user, "method": _short(body, "method_name", required=True), "changed": time()}
        values["data"] = _dumped(data, "state_data")
        of = _of_thread(crew_states, agent, thread)
        async with self._database.write() as connection:
            await connection.execute(_KEEP[crew_states.name][connection.dialect.name], key | values)
            await _keep_newest(connection, crew_states.c.changed, of, STATES)
        return _done("Successfully stored CrewAI flow state")

    async def get_state(self, call: Call) -> Answer:
        """The newest state of a thread, or of one flow of it."""
        thread, flow = _thread(call.query), call.query.get("flow_uuid", "")
        agent, user = await self._who(call, thread)
        of = and_(_of_thread(crew_states, agent, thread), crew_states.c.user_id == user)
        if flow:
            of = and_(of, crew_states.c.flow_uuid == flow)
        rows = await self._database.rows(select(crew_states).where(of).order_by(crew_states.c.changed.desc()).limit(1))
        if not rows:
            raise NotFound(f"there is no flow state of {thread!r}", name=thread)
        row = rows[0]
        state = {"thread_id": thread, "flow_uuid": row["flow_uuid"], "method_name": row["method"]}
        return _found(state | {"state_data": json.loads(row["data"])}, "retrieved CrewAI flow state")


def _envelope(data: Any, message: str) -> dict[str, Any]:
    return {"error": False, "data": data, "message": message}


def _found(data: Any, what: str) -> Answer:
    return Answer(_envelope(data, f"Successfully {what}"))


def _done(message: str) -> Answer:
    return Answer(_envelope({}, message), 201)


def _of_thread(table: Table, agent: str, thread: str) -> Any:
    return and_(table.c.agent == agent, table.c.thread_id == thread)


async def _keep_newest(
    connection: AsyncConnection, age: Column[Any], of: Any, most: int, large: Column[Any] | None = None
) -> None:
    """Delete the rows of ``of`` beyond so many, those with the least ``age`` column. ``large``: the column whose sizes
    are bounded, too; None when what was added is small."""
    newest = select(age).where(of).order_by(age.desc())
    last = (await connection.execute(newest.offset(most).limit(1))).scalar()
    if large is not None:
        rows = (await connection.execute(newest.add_columns(func.length(large)))).all()
        last = _beyond([(row[0], int(row[1])) for row in rows]) or last
    if last is not None:
        await connection.execute(delete(age.table).where(and_(of, age <= last)))


def _beyond(sizes: Sequence[tuple[Any, int]]) -> Any:
    """The newest row that does not fit any more, by what tells its age; they come newest first."""
    total = 0
    for number, (name, size) in enumerate(sizes):
        total += size
        if number and total > KEPT_BYTES:
            return name
    return None


def _tuple(row: Row, pending: Iterable[Row]) -> dict[str, Any]:
    names = {name: row[name] for name in ("thread_id", "checkpoint_ns", "checkpoint_id")}
    items = [
        {"idx": each["idx"], "channel": each["channel"], "type_": each["type"], "value": each["value"]}
        for each in pending
    ]
    task = next((each["task_id"] for each in pending), "")
    return names | {
        "parent_checkpoint_id": row["parent"],
        "checkpoint": row["checkpoint"],
        "metadata": row["meta"],
        "type_": row["type"],
        "writes": names | {"task_id": task, "writes": items},
    }


def _write(given: dict[str, Any], user: str) -> Row:
    return {
        "idx": _whole(given.get("idx", 0), "writes.idx"),
        "user_id": user,
        "channel": _short(given, "channel"),
        "type": _short(given, "type_", limit=_TYPE),
        "value": _content(given, "value"),
    }


def _thread(given: dict[str, Any]) -> str:
    return _short(given, "thread_id", required=True)


def _short(given: dict[str, Any], name: str, *, required: bool = False, limit: int = _TEXT) -> str:
    value = given.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        raise BadRequest(f"{name} is required" if required else f"{name}: must be a string")
    if len(value) > limit:
        raise BadRequest(f"{name}: is longer than {limit} characters")
    return value


def _content(given: dict[str, Any], name: str, *, required: bool = False) -> str:
    value = given.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        raise BadRequest(f"{name} is required and must be a string")
    if len(value) > _LARGEST:
        raise TooLarge(f"{name}: {len(value)} characters are more than {_LARGEST}; keep less in the state")
    return value


def _dumped(value: dict[str, Any], name: str) -> str:
    return _content({name: json.dumps(value)}, name)


def _whole(value: Any, name: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise BadRequest(f"{name}: {value!r} is not a whole number") from None
    if abs(number) > 2**31 - 1:
        raise BadRequest(f"{name}: {number} is too large")
    return number


def _score(data: dict[str, Any]) -> float:
    score = data.get("score")
    return float(score) if isinstance(score, int | float) else 0.0
