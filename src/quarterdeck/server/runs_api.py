"""``/v1/runs``: the journal for agent hosts and gateways (by their Pods' tokens) and for people (verb on ``runs``).

An agent reads and writes its own runs only; another's does not exist for it. Served on the management port and on the
agents' one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import msgspec

from quarterdeck.agents.observe import redact
from quarterdeck.errors import BadRequest, Forbidden, NotFound, QuarterdeckError
from quarterdeck.snapshot.conversation import new_id
from quarterdeck.snapshot.runs import FINAL, Event
from quarterdeck.wire import sse
from quarterdeck.wire.http import Disconnected

from .database import Row
from .http import Answer, Call, Route, Router, route
from .identity import Identity
from .runs_access import RunsAccess, Who
from .runs_again import Again
from .runs_store import Draft, NewRun, RunStore, Stale

_MOST = 1000
LONGEST_WAIT = 20.0
"""Runs in one answer; seconds that a replica may wait for something to do."""
_POLL = 0.5
"""Seconds between looks at a database that other control planes write to."""
HEARTBEAT = 15.0
log = logging.getLogger(__name__)


def failure(error: QuarterdeckError) -> dict[str, Any]:
    return {"error": {"reason": error.reason, "message": str(error)}}


class RunsApi:
    """``gateway`` says whether a name is that of a Gateway we configure."""

    def __init__(
        self,
        store: RunStore,
        again: Again,
        identity: Identity,
        gateway: Callable[[str], bool] = lambda name: False,
        *,
        agent: Callable[[str], bool] = lambda name: True,
        hosted: Callable[[str], bool] = lambda name: True,
        shared: bool = False,
    ) -> None:
        """``agent`` says whether there is one of a name, ``hosted`` whether our own host is it: no others have runs.

        ``shared``: other processes write to the database, too.
        """
        self._agent = agent
        self._hosted = hosted
        self._store = store
        self._database = store.database
        self._again = again
        self._identity = identity
        self._access = RunsAccess(store, identity)
        self._who = self._access.who
        self._redactor = redact.configured()
        self._gateway = gateway
        self._poll = _POLL if shared else None

    def routes(self) -> list[Route]:
        one = "/v1/runs/{id}"
        return [
            route("POST", "/v1/runs", self.create),
            route("GET", "/v1/runs", self.list),
            route("POST", "/v1/runs/claim", self.claim),
            route("GET", one, self.get),
            route("GET", one + "/events", self.events),
            route("POST", one + "/events", self.append),
            route("POST", one + "/release", self.release),
            route("POST", one + "/steps/{step}/start", self.start),
            route("POST", one + "/answer", self.answer),
            route("POST", one + "/cancel", self.cancel),
            route("POST", one + "/retry", self.retry),
            route("POST", one + "/fork", self.fork),
        ]

    def router(self) -> Router:
        """These routes alone."""
        return Router(self.routes(), failure)

    # -- of agent hosts
    async def create(self, call: Call) -> Answer:
        """Of an agent: ``{user, session, task, message, replica, before, asks?}``; of a person:
        ``{agent, text, session?}``. ``asks``: the intent of the first model call is written, too, if it is leased.

        An agent's run of that task, or of the task ``before``, is given as it is where there is one.
        """
        body = call.body()
        who = await self._who(call, "create", str(body.get("agent", "")).partition("/")[0])
        if who.agent:
            if not self._hosted(who.agent):  # it is believed no user: it would begin runs in anybody's name
                raise Forbidden(f"agent {who.agent} is not run by our host: it has no journal, and begins no runs")
            user, session, task = (str(_short(call, body, key, required=True)) for key in ("user", "session", "task"))
            message = _object(body, "message") | {"taskId": task, "contextId": session}
            new = NewRun(
                who.agent, user, session, task, message, replica=_short(call, body, "replica") or "",
                origin=_object(body, "origin") if "origin" in body else {}, before=_short(call, body, "before") or "",
                asks=body.get("asks") is True,
            )  # fmt: skip
        else:
            new = _background(call, body, who.name)
            if not self._agent(new.agent):
                raise NotFound(f"agent {new.agent} does not exist; see: qd get agents -A", name=new.agent)
            if not self._hosted(new.agent):
                raise BadRequest(f"agent {new.agent} is not run by our host: it has no runs; send it a message")
        row, leased = await self._store.create(new)
        return Answer(shown(row) | {"leased": leased}, 201)

    async def claim(self, call: Call) -> Answer:
        """``{replica, held: {id: fence}, most, wait, only?}``: a sign of life, and what there is to do.

        Answers at once when there is something to tell, else after ``wait`` seconds.
        """
        agent = await self._identity.agent(call.header(b"authorization"))
        body = call.body()
        replica = str(_short(call, body, "replica", required=True))
        held = _held(body)
        most, wait = _whole(body.get("most", 10), "most", _MOST), float(_whole(body.get("wait", 0), "wait", 600))
        until = asyncio.get_running_loop().time() + min(wait, LONGEST_WAIT)
        while True:
            news = self._store.changed(agent)
            lost, cancel = await self._store.beat(agent, replica, held)
            taken = await self._store.claim(agent, replica, most, call.text(body, "only") or "") if most else []
            left = until - asyncio.get_running_loop().time()
            if lost or cancel or taken or left <= 0:
                claimed = [shown(row) | {"events": msgspec.to_builtins(events)} for row, events in taken]
                return Answer({"lost": lost, "cancel": cancel, "claimed": claimed})
            await _set(news, min(left, self._poll or left))

    async def append(self, call: Call) -> Answer:
        """``{fence, batch, events: [{kind, step, data}]}``: 409 ``StaleFence`` when another replica has the run."""
        agent = await self._identity.agent(call.header(b"authorization"))
        body = call.body()
        listed = body.get("events")
        if not isinstance(listed, list):
            raise BadRequest("events: must be a list")
        drafts = [_draft(each) for each in listed]
        fence, batch = _whole(body.get("fence"), "fence"), str(call.text(body, "batch", required=True))
        if len(batch) > 80:
            raise BadRequest("batch: is longer than 80 characters")
        written = await self._store.append(agent, call.parameters["id"], fence, batch, drafts)
        return Answer(msgspec.to_builtins(written, str_keys=True))

    async def release(self, call: Call) -> Answer:
        """``{fence}``: the replica ends, others may go on at once."""
        agent = await self._identity.agent(call.header(b"authorization"))
        await self._store.release(agent, call.parameters["id"], _whole(call.body().get("fence"), "fence"))
        return Answer({"released": True})

    # -- of gateways
    async def start(self, call: Call) -> Answer:
        """``{gateway: ns/name, fence, attempt, key}``, from that gateway; 403 when the step may not start."""
        body = call.body()
        name = str(call.text(body, "gateway", required=True))
        namespace, _, short = name.partition("/")
        await self._identity.gateway(call.header(b"authorization"), namespace, short)
        if not self._gateway(name):
            raise Forbidden(f"{name} is no Gateway that is configured here")
        step = _number(call.parameters["step"], "step")
        fence, attempt = _whole(body.get("fence"), "fence"), _whole(body.get("attempt"), "attempt")
        key = call.text(body, "key") or ""
        try:
            await self._store.start(call.parameters["id"], step, fence, attempt, name, key)
        except Stale as error:
            raise Forbidden(str(error)) from error
        return Answer({"started": True})

    # -- of people, and of agents on their own
    async def list(self, call: Call) -> Answer:
        """``?agent=&namespace=&user=&session=&state=&limit=``; ``state`` may be several, with commas."""
        query = call.query
        agent, namespace = query.get("agent", ""), query.get("namespace", "")
        who = await self._who(call, "list", agent.partition("/")[0] or namespace)
        agent = who.agent or agent
        states = [state for state in query.get("state", "").split(",") if state]
        limit = min(_number(query.get("limit", "100"), "limit"), _MOST)
        rows = await self._store.select(
            agent=agent, namespace="" if agent else namespace, user=query.get("user", ""),
            session=query.get("session", ""), states=states, limit=limit,
        )  # fmt: skip
        return Answer({"runs": [shown(row) for row in rows]})

    async def get(self, call: Call) -> Answer:
        _, row = await self._of(call, "get")
        return Answer(shown(row))

    async def events(self, call: Call) -> Answer | None:
        """``?after=``: later ones only; ``?watch``: as server-sent events, until the run has ended or waits."""
        who, row = await self._of(call, "get")
        last = call.header(b"last-event-id")
        after = _number(last or call.query.get("after", "0"), "after")
        if "watch" not in call.query:
            found = self._told(who, await self._store.events(row, after))
            return Answer({"run": shown(row), "events": msgspec.to_builtins(found)})
        await self._watch(call, who, row, after)
        return None

    async def answer(self, call: Call) -> Answer:
        """``{step, data}``: what the run waits for."""
        who, row = await self._of(call, "update")
        body = call.body()
        step = _whole(body.get("step"), "step")
        answered = await self._store.answer(row["id"], step, _object(body, "data"), who.name)
        return Answer(shown(answered))

    async def cancel(self, call: Call) -> Answer:
        who, row = await self._of(call, "update")
        return Answer(shown(await self._store.cancel(row["id"], who.name)))

    async def retry(self, call: Call) -> Answer:
        """``{step}``: steps before it stay as they were, it and all later ones are made anew."""
        who, row, step = await self._of_step(call)
        return Answer(shown(await self._again.retry(row, step, who.name)), 201)

    async def fork(self, call: Call) -> Answer:
        """``{step}``: the same in a new conversation."""
        who, row, step = await self._of_step(call)
        return Answer(shown(await self._again.fork(row, step, who.name)), 201)

    # -- inside
    async def _of_step(self, call: Call) -> tuple[Who, Row, int]:
        who, row = await self._of(call, "create")
        return who, row, _whole(call.body().get("step", 1), "step")

    async def _of(self, call: Call, verb: str) -> tuple[Who, Row]:
        return await self._access.of(call, call.parameters["id"], verb)

    def _told(self, who: Who, events: Sequence[Event]) -> list[Event]:
        """Events as they may be shown: an agent's own as they are, to people without what is secret."""
        if who.agent:
            return list(events)
        return [msgspec.structs.replace(event, data=self._redactor.data(event.data)) for event in events]

    async def _watch(self, call: Call, who: Who, row: Row, after: int) -> None:
        exchange = call.exchange
        exchange.start(200, [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")])
        loop = asyncio.get_running_loop()
        silent_since = loop.time()
        try:
            while True:
                news = self._store.changed(row["id"])
                row = await self._store.run(row["id"])
                found = await self._store.events(row, after)
                for event in self._told(who, found):
                    await exchange.send(_sse(event))
                    after = event.seq
                if row["state"] in FINAL or row["state"] == "waiting":
                    exchange.finish()
                    return
                if found:
                    silent_since = loop.time()
                elif loop.time() - silent_since > HEARTBEAT:
                    silent_since = loop.time()
                    await exchange.send(b": still there\n\n")
                await _set(news, self._poll or HEARTBEAT)
        except Disconnected:
            return


def shown(row: Row) -> dict[str, Any]:
    """A run as the API has it."""
    return {
        "id": row["id"], "agent": row["agent"], "user": row["user_id"], "session": row["session_id"],
        "task": row["task_id"], "source": row["source"], "state": row["state"], "reason": row["reason"],
        "holder": row["holder"], "fence": row["fence"], "seq": row["seq"], "canceling": bool(row["cancel"]),
        "createdAt": row["created_at"], "updatedAt": row["updated_at"], "summary": msgspec.json.decode(row["summary"]),
    }  # fmt: skip


def _background(call: Call, body: dict[str, Any], by: str) -> NewRun:
    """A run that a person starts without waiting for it."""
    agent, text = str(_short(call, body, "agent", required=True)), str(call.text(body, "text", required=True))
    if agent.count("/") != 1:
        raise BadRequest("agent: must be NAMESPACE/NAME")
    session, task = _short(call, body, "session") or new_id(agent), new_id(agent)
    message = {
        "messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": text}], "taskId": task, "contextId": session,
    }  # fmt: skip
    return NewRun(agent, by, session, task, message, _short(call, body, "source", most=64) or "background")


def _short(call: Call, body: dict[str, Any], name: str, *, required: bool = False, most: int = 255) -> str | None:
    """A name as its column holds it."""
    value = call.text(body, name, required=required)
    if value is not None and (len(value) > most or "\0" in value):
        raise BadRequest(f"{name}: must have at most {most} characters, none of them NUL")
    return value


async def _set(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _sse(event: Event) -> bytes:
    return sse.encode(msgspec.json.encode(event), event=event.kind.encode(), ident=str(event.seq).encode())


def _draft(value: Any) -> Draft:
    try:
        return msgspec.convert(value, Draft)
    except msgspec.ValidationError as error:
        raise BadRequest(f"events: {error}") from error


def _held(body: dict[str, Any]) -> dict[str, int]:
    try:
        held = msgspec.convert(body.get("held", {}), dict[str, int])
    except msgspec.ValidationError as error:
        raise BadRequest(f"held: must map ids of runs to their fences: {error}") from error
    if len(held) > _MOST:
        raise BadRequest(f"held: has more than {_MOST} runs")
    return held


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if not isinstance(value, dict):
        raise BadRequest(f"{name}: must be an object")
    return value


def _whole(value: Any, name: str, most: int = 2**31) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise BadRequest(f"{name}: must be a whole number from 0 to {most}")
    return value


def _number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise BadRequest(f"{name}: {text[:40]!r} is not a whole number")
    return _whole(int(text), name)
