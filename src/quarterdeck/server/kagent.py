"""kagent's REST contract (Service ``kagent-controller:8083``): what agent Pods keep behind the control plane.

Paths, members and the ``{error, data, message}`` envelope are those of kagent 0.9/0.10 (reference/kagent.md §6), so BYO
images built on kagent's SDKs work here. Unlike there, the caller must present its Pod's token: an agent sees its own
rows only, whatever ``agent_ref`` it sends, and a BYO agent those of users who have an open session with it
(:mod:`.kagent_sessions`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from quarterdeck import __version__
from quarterdeck.errors import BadRequest, NotFound, QuarterdeckError

from .database import Database, Row, TaskRow
from .http import Answer, Call, Route, Router, route
from .identity import Identity
from .kagent_frameworks import Frameworks
from .kagent_sessions import DEFAULT_USER, Conversations


def envelope(data: Any, message: str = "") -> dict[str, Any]:
    return {"error": False, "data": data, "message": message}


def failure(error: QuarterdeckError) -> dict[str, Any]:
    return {"error": True, "data": None, "message": str(error)}


class KagentApi:
    """Sessions, events and tasks of agents."""

    def __init__(
        self,
        database: Database,
        identity: Identity,
        more: Sequence[Route] = (),
        conversations: Conversations | None = None,
    ) -> None:
        """``more``: routes of others on the same port. Without ``conversations`` all agents are of our own host."""
        self._more = more
        self._database = database
        self._identity = identity
        self._conversations = conversations or Conversations(database)

    def router(self, more: Sequence[Route] = ()) -> Router:
        """``more``: further routes that :meth:`who` may serve."""
        return Router([*self._routes(), *more], failure)

    def _routes(self) -> list[Route]:
        return [
            route("GET", "/health", self.health),
            route("GET", "/version", self.version),
            route("GET", "/api/me", self.me),
            route("POST", "/api/sessions", self.create_session),
            route("GET", "/api/sessions", self.list_sessions),
            route("GET", "/api/sessions/agent/{namespace}/{name}", self.list_agent_sessions),
            route("GET", "/api/sessions/{id}", self.get_session),
            route("PUT", "/api/sessions", self.update_session),
            route("DELETE", "/api/sessions/{id}", self.delete_session),
            route("GET", "/api/sessions/{id}/tasks", self.session_tasks),
            route("POST", "/api/sessions/{id}/events", self.append_event),
            route("POST", "/api/tasks", self.save_task),
            route("GET", "/api/tasks/{id}", self.get_task),
            route("DELETE", "/api/tasks/{id}", self.delete_task),
            *Frameworks(self._database, self.who).routes(),
            *self._more,
        ]

    async def health(self, call: Call) -> Answer:
        del call
        return Answer(envelope({"status": "ok"}))

    async def version(self, call: Call) -> Answer:
        del call
        return Answer(envelope({"version": __version__}))

    async def me(self, call: Call) -> Answer:
        agent, user = await self.who(call)
        return Answer(envelope({"user_id": user, "agent": agent}))

    async def create_session(self, call: Call) -> Answer:
        return await self._keep_session(call, 201)

    async def update_session(self, call: Call) -> Answer:
        return await self._keep_session(call, 200)

    async def _keep_session(self, call: Call, status: int) -> Answer:
        body = call.body()
        ident = call.text(body, "id")
        agent, user = await self.who(call, ident or "", (body.get("user_id"),))
        name, source = call.text(body, "name"), call.text(body, "source")
        if not self._conversations.hosted(agent):
            ident = ident or str(uuid4())
            await self._conversations.adopt(agent, user, ident)
        row = await self._database.create_session(agent, user, ident, name, source)
        return Answer(envelope(_session(row), "Successfully created session"), status)

    async def list_sessions(self, call: Call) -> Answer:
        agent, user = await self.who(call)
        rows = await self._database.list_sessions(agent, user)
        return Answer(envelope([_session(row) for row in rows]))

    async def list_agent_sessions(self, call: Call) -> Answer:
        agent, user = await self.who(call)
        asked = f"{call.parameters['namespace']}/{call.parameters['name']}"
        rows = await self._database.list_sessions(agent, user) if asked == agent else []
        return Answer(envelope([_session(row) for row in rows]))

    async def get_session(self, call: Call) -> Answer:
        """``?limit=`` the newest so many, ``?order=asc`` the oldest first, ``?after=`` an RFC 3339 time."""
        agent, user = await self.who(call, call.parameters["id"])
        row = await self._database.session(agent, user, call.parameters["id"])
        limit = _integer(call.query.get("limit", "-1"), "limit")
        after = _moment(call.query.get("after", ""))
        ascending = call.query.get("order", "desc") == "asc"
        found = await self._database.list_events(agent, user, str(row["id"]), limit=limit, ascending=ascending)
        found = [e for e in found if after is None or datetime.fromisoformat(e["created_at"]) > after]
        return Answer(envelope({"session": _session(row), "events": [_event(e) for e in found]}))

    async def delete_session(self, call: Call) -> Answer:
        agent, user = await self.who(call, call.parameters["id"])
        await self._database.delete_session(agent, user, call.parameters["id"])
        await self._conversations.forget(agent, call.parameters["id"])
        return Answer(envelope({}, "Session deleted successfully"))

    async def session_tasks(self, call: Call) -> Answer:
        agent, user = await self.who(call, call.parameters["id"])
        rows = await self._database.list_tasks(agent, user, call.parameters["id"])
        return Answer(envelope([json.loads(row["data"]) for row in rows]))

    async def append_event(self, call: Call) -> Answer:
        agent, user = await self.who(call, call.parameters["id"])
        body = call.body()
        data = body.get("data")
        if data is None:
            raise BadRequest("data: is missing; an event holds its content there")
        if not self._conversations.hosted(agent):
            await self._conversations.adopt(agent, user, call.parameters["id"])
        text = data if isinstance(data, str) else json.dumps(data)
        event_id = call.text(body, "id") or str(uuid4())
        row = await self._database.append_event(agent, user, call.parameters["id"], event_id, text)
        return Answer(envelope(_event(row), "event added"), 201)

    async def save_task(self, call: Call) -> Answer:
        body = call.body()
        ident = call.text(body, "id", required=True) or ""
        session_id = call.text(body, "contextId") or call.text(body, "context_id") or ""
        agent, user = await self.who(call, session_id)
        if not self._conversations.hosted(agent):
            session_id = await self._conversations.check(agent, user, session_id, (ident,))
        await self._database.save_task(task_row(agent, user, session_id, body))
        return Answer(envelope(body, "task saved"), 201)

    async def get_task(self, call: Call) -> Answer:
        """A task of the user for whom it is asked; our host's requests without ``X-User-ID`` are for nobody's."""
        agent = await self._identity.agent(call.header(b"authorization"))
        row = await self._task(call, agent, anybodys=self._conversations.hosted(agent))
        return Answer(envelope(json.loads(row["data"])))

    async def delete_task(self, call: Call) -> Answer:
        agent = await self._identity.agent(call.header(b"authorization"))
        if not self._conversations.hosted(agent):
            await self._task(call, agent)
        await self._database.delete_task(agent, call.parameters["id"])
        return Answer(None, 204)

    async def _task(self, call: Call, agent: str, *, anybodys: bool = False) -> Row:
        """The task that a request names. ``anybodys``: whoever's it is where the request has no ``X-User-ID``."""
        row = await self._database.task(agent, call.parameters["id"])
        _, user = await self.who(call, str(row["session_id"] or ""))
        if row["user_id"] != user and not (anybodys and not call.header(b"x-user-id")):
            raise NotFound(f"task {row['id']!r} of agent {agent} does not exist", name=str(row["id"]))
        return row

    async def who(self, call: Call, session: str = "", said: Iterable[object] = ()) -> tuple[str, str]:
        """The verified agent, and the user it works for. ``session``: of which the request is, "" for none.

        Our own host's word is taken; a BYO agent's only as far as :class:`Conversations` knows of that user, and
        ``said`` are users that its request names elsewhere than in ``X-User-ID`` and ``?user_id=``. Raises Forbidden
        and NotFound.
        """
        agent = await self._identity.agent(call.header(b"authorization"))
        header, query = call.header(b"x-user-id"), call.query.get("user_id")
        if not self._conversations.hosted(agent):
            if query and " " in query and not await self._conversations.has(agent, query):
                query = query.replace(" ", "+")  # kagent-adk does not quote it
            reads = call.exchange.method in ("GET", "DELETE")
            return agent, await self._conversations.user(agent, (header, query, *said), session, reads=reads)
        user = header or query or DEFAULT_USER
        if len(user) > 255:
            raise BadRequest("X-User-Id: is longer than 255 characters")
        return agent, user


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise BadRequest(f"after: {text!r} is not an RFC 3339 time") from None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found


def _integer(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f"{name}: {text!r} is not a whole number") from None


def task_row(agent: str, user: str, session: str, task: dict[str, Any]) -> TaskRow:
    """A task of A2A 1.0 or 0.3 as it is saved."""
    version = "0.3" if task.get("kind") == "task" else "1.0"
    text = msgspec.json.encode(task).decode()
    return TaskRow(agent, user, str(task["id"]), session, version, _state(task), text, _status_at(task))


def _state(task: dict[str, Any]) -> str:
    """The state's word in A2A 0.3 (``input-required``), whichever version the task is written in."""
    status = task.get("status")
    state = status.get("state") if isinstance(status, dict) else None
    return str(state or "unknown").removeprefix("TASK_STATE_").lower().replace("_", "-")[:32]


def _status_at(task: dict[str, Any]) -> str:
    """When the status was reported, in the one form that sorts; empty when it does not say."""
    status = task.get("status")
    try:
        moment = datetime.fromisoformat(str(status["timestamp"])) if isinstance(status, dict) else None
    except (KeyError, ValueError):
        return ""
    if moment is None:
        return ""
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _session(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "user_id": row["user_id"],
        "agent_id": row["agent"],
        "source": row["source"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def _event(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "session_id": row["session_id"],
        "user_id": row["user_id"],
        "data": row["data"],
        "created_at": row["created_at"],
    }
