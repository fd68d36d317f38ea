"""The journal in the control plane's database: append-only events of runs, and who may write them.

A run is leased by one replica of its agent under a fence, a number that grows with each lease. Whoever writes with an
older fence is refused, so a replica that slept past its lease changes nothing any more. Whether a lease has lapsed is
told by how long *this* process has seen no sign of life, by its monotonic clock: neither a jump of the wall clock nor
a restart of the control plane takes a run from a replica that works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from secrets import token_bytes
from time import monotonic, time
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import Connection, and_, bindparam, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from quarterdeck.a2atypes import said
from quarterdeck.errors import BadRequest, Conflict, NotFound
from quarterdeck.snapshot import delegation
from quarterdeck.snapshot.permits import LIFETIME, Permit, Signer
from quarterdeck.snapshot.runs import FINAL, OPEN, WRITTEN_BY_HOST, Event

from . import runs_tasks
from .database import Database, Row, now, sessions
from .database import events as session_events
from .runs_after import after, mirrored
from .runs_tables import run_events, run_keys, runs
from .runs_tasks import event_of
from .usage import rows_of
from .usage_tables import run_usage

LEASE = 10.0
"""Seconds without a sign of life after which a run is given to another replica."""
MOST_EVENTS = 200
EVENT_LIMIT = 4 * 1024 * 1024
"""Events in one write, and the bytes of one."""
_SAID = ("created", "model.result", "tool.result")
"""Events whose message is one of the conversation."""
_SEEN, _MIRRORED = 100_000, 10_000
_SHOWN = 1000
"""Characters of a run's message in its summary, which lists and every write carry along."""


# made once: to make a statement costs more than to execute it
_LOCK = select(runs).where(runs.c.number == bindparam("this")).with_for_update()
_INSERT, _SAY, _USED = insert(run_events), insert(session_events), insert(run_usage)
_CHANGED = ("state", "reason", "holder", "beat", "seq", "cancel", "summary", "updated_at")
_BRING = update(runs).where(runs.c.number == bindparam("this")).values({name: bindparam(name) for name in _CHANGED})
_LAST = (
    select(run_events.c.kind, run_events.c.fence, run_events.c.data)
    .where(and_(run_events.c.run == bindparam("this"), run_events.c.step == bindparam("which")))
    .order_by(run_events.c.seq.desc())
    .limit(1)
)
_ASKED = (
    select(run_events.c.step)
    .where(and_(run_events.c.run == bindparam("this"), run_events.c.kind == "waiting"))
    .order_by(run_events.c.seq.desc())
    .limit(1)
)


_NEW_RUN = insert(runs)
_NEW_SESSION = {
    "sqlite": sqlite.insert(sessions).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(sessions).on_conflict_do_nothing(),
}
_SESSION = (
    select(sessions.c.id)
    .where(
        and_(
            sessions.c.agent == bindparam("of_agent"), sessions.c.user_id == bindparam("of_user"),
            sessions.c.id == bindparam("of_session"),
        )
    )
    .with_for_update()
)  # fmt: skip
_OPEN = (
    select(runs.c.number)
    .where(
        and_(
            runs.c.agent == bindparam("of_agent"), runs.c.user_id == bindparam("of_user"),
            runs.c.session_id == bindparam("of_session"), runs.c.state.in_(sorted(OPEN)),
            runs.c.number < bindparam("before"),
        )
    )
    .limit(1)
)  # fmt: skip
_KNOWN = select(runs).where(
    and_(
        runs.c.agent == bindparam("of_agent"), runs.c.user_id == bindparam("of_user"),
        or_(runs.c.task_id == bindparam("now"), runs.c.task_id == bindparam("before")),
    )
)  # fmt: skip
_LATEST = 2**62


class Stale(Conflict):
    """The writer does not hold the run (any more)."""

    reason = "StaleFence"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to begin. ``replica`` is who wants to work on it; empty: whoever comes first."""

    agent: str
    user: str
    session: str
    task: str
    message: dict[str, Any]
    source: str = "chat"
    replica: str = ""
    origin: dict[str, Any] = field(default_factory=dict[str, Any])
    before: str = ""
    """Another task of this user that the same message may have begun already."""
    asks: bool = False
    """Whether ``replica``, if it gets the run, asks the model at once: that needs no write of its own."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An event to append."""

    kind: str
    step: int = 0
    data: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Written:
    """What became of an append: number and time of the first event, permits by step, and whether the run shall end."""

    first: int
    at: float
    permits: dict[int, str]
    cancel: bool


class RunStore:
    """Reads and writes. ``guarded`` says whether the gateways hold an agent to its permits."""

    def __init__(
        self,
        database: Database,
        guarded: Callable[[str], bool] = lambda agent: False,
        *,
        clock: Callable[[], float] = time,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self.database = self._database = database
        self._guarded = guarded
        self._clock = clock
        self._monotonic = monotonic
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}
        self._changes: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        """Kept by those who wait: of most runs nothing is written any more."""
        self._queued = False
        """Whether a task was saved that somebody is to be notified of."""
        self.wrote: Callable[[Row, Sequence[Event]], None] | None = None
        """Told of all that is written, with the run as it is then."""
        self._signer: Signer | None = None
        self._numbers: dict[str, tuple[int, str]] = {}
        """Number and agent of runs that were asked for, by id."""

    async def open(self) -> str:
        """Read the key that permits are signed with, made once for all replicas; gives its public part."""
        signer, private = Signer.new()
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(run_keys).values(id=1, private=private.hex()))
        except IntegrityError:
            found = await self._database.rows(select(run_keys.c.private))
            signer = Signer(bytes.fromhex(found[0]["private"]))
        self._signer = signer
        return signer.public

    def delegation(self, trigger: str, agent: str) -> str:
        """A token for what a trigger follows in its agent's name at the gateway; empty before :meth:`open`."""
        return delegation.sign(self._signer, trigger, agent, self._clock()) if self._signer is not None else ""

    # -- reading
    async def run(self, ident: str, agent: str | None = None) -> Row:
        """By its id, else by its task's, whose agents choose them; only of ``agent``, if given. Raises NotFound."""
        query = select(runs).where(or_(runs.c.id == ident, runs.c.task_id == ident)).order_by(runs.c.number)
        found = [row for row in await self._database.rows(query) if agent in (None, row["agent"])]
        if not found:
            raise NotFound(f"run {ident!r} does not exist; see: qd run list", name=ident)
        return next((row for row in found if row["id"] == ident), found[0])

    async def events(self, row: Row, after: int = 0, limit: int = 0) -> list[Event]:
        query = select(run_events).where(and_(run_events.c.run == row["number"], run_events.c.seq > after))
        query = query.order_by(run_events.c.seq)
        return [event_of(found) for found in await self._database.rows(query.limit(limit) if limit else query)]

    async def select(
        self, *, agent: str = "", namespace: str = "", user: str = "", session: str = "", states: Sequence[str] = (),
        limit: int = 100,
    ) -> list[Row]:  # fmt: skip
        """The newest runs that fit, newest first."""
        query = select(runs).order_by(runs.c.number.desc()).limit(limit)
        if namespace:
            query = query.where(runs.c.agent.startswith(f"{namespace}/", autoescape=True))
        for column, value in ((runs.c.agent, agent), (runs.c.user_id, user), (runs.c.session_id, session)):
            if value:
                query = query.where(column == value)
        return await self._database.rows(query.where(runs.c.state.in_(states)) if states else query)

    async def background(self, since: float) -> list[Row]:
        """Runs that no conversation waits for, changed at that time (seconds since the epoch) or later."""
        where = and_(runs.c.source != "chat", runs.c.updated_at >= since)
        return await self._database.rows(select(runs).where(where).order_by(runs.c.updated_at).limit(_MIRRORED))

    # -- a replica's work
    async def create(self, new: NewRun, kept: Sequence[Draft] = ()) -> tuple[Row, bool]:
        """Begin a run; whether ``new.replica`` holds it. It does not while an earlier one of the session goes on.

        A run of that task, or of the one ``before``, is given as it is. ``kept``: what is taken over from another run.
        Raises Conflict for another user's task.
        """

        def begin(connection: Connection) -> Row:
            return (_known(connection, new) if new.before else None) or self.begin(connection, new, kept)

        try:
            row = await self._database.transact(begin)
        except IntegrityError:  # it was begun at the same time, or before by a request whose answer was lost
            known = await self._database.transact(lambda connection: _known(connection, new))
            if known is None:
                raise Conflict(f"task {new.task!r} is somebody else's") from None
            row = known
        self.begun(row)
        return row, row["state"] == "running" and row["holder"] == new.replica

    def begin(self, connection: Connection, new: NewRun, kept: Sequence[Draft] = ()) -> Row:
        """:meth:`create` as part of another's transaction; :meth:`begun` is told when that is committed."""
        at = self._clock()
        text = said.text(new.message)[:_SHOWN]
        row: Row = {
            "id": uuid7(at), "agent": new.agent, "user_id": new.user, "session_id": new.session, "task_id": new.task,
            "source": new.source, "state": "pending", "reason": "", "holder": "", "fence": 0, "beat": 0, "seq": 0,
            "cancel": 0, "summary": msgspec.json.encode({"text": text}).decode(), "created_at": at, "updated_at": at,
        }  # fmt: skip
        data = {"message": new.message, "task": new.task, "session": new.session, "source": new.source}
        drafts = [Draft("created", 0, data | ({"origin": new.origin} if new.origin else {})), *kept]
        self._create(connection, row, new, drafts)
        return row

    def begun(self, row: Row) -> None:
        """A run that was begun is in the database now: whoever may work on it is told."""
        self._numbers[row["id"]] = row["number"], row["agent"]
        self._tell(row)

    def _create(self, connection: Connection, row: Row, new: NewRun, drafts: list[Draft]) -> None:
        _session(connection, row)
        if new.replica and _first_in_session(connection, row, _LATEST):
            row |= {"state": "running", "holder": new.replica, "fence": 1}
            drafts.append(Draft("leased", 0, {"replica": new.replica}))
            drafts += [Draft("model.intent", 1)] if new.asks else []
        made = connection.execute(_NEW_RUN, row)
        row["number"] = made.inserted_primary_key[0]  # type: ignore[index]  # an insert of one row has one
        self._write(connection, row, "create", drafts)

    async def append(self, agent: str, ident: str, fence: int, batch: str, drafts: Sequence[Draft]) -> Written:
        """Write events in one transaction; the same batch again is written once.

        Raises Stale when somebody else holds the run, BadRequest for what an agent may not write.
        """
        _check(drafts)
        number = await self._number(ident, agent)
        try:
            row, written = await self._database.transact(
                lambda connection: self._append(connection, number, fence, batch, drafts)
            )
        except IntegrityError:  # the first attempt of this batch was committed just now
            row = await self.run(ident, agent)
            written = await self._batch(row, batch)
            if not written:
                raise
        self._tell(row)
        return Written(written[0].seq, written[0].at, self._permits(row, written), bool(row["cancel"]))

    def _append(
        self, connection: Connection, number: int, fence: int, batch: str, drafts: Sequence[Draft]
    ) -> tuple[Row, list[Event]]:
        row = _locked(connection, number)
        if row["fence"] != fence or not row["holder"]:
            known = _of_batch(connection, number, batch)
            if known:
                return row, known
            now_is = f"it is {row['state']}, its fence {row['fence']}"
            raise Stale(f"run {row['id']} is not held under fence {fence}: {now_is}")
        return row, self._write(connection, row, batch, self._guard(row, drafts))

    async def start(self, ident: str, step: int, fence: int, attempt: int, gateway: str, key: str = "") -> None:
        """A gateway is about to forward the call of a step: once per intent, or again with the same ``key``.

        Raises Stale, NotFound.
        """
        number = await self._number(ident, None)
        batch = f"start/{step}/{fence}/{attempt}"

        def begin(connection: Connection) -> Row:
            row = _locked(connection, number)
            if row["fence"] != fence or not row["holder"] or row["cancel"]:
                why = "it is being canceled" if row["cancel"] else f"another replica has it, fence {row['fence']}"
                raise Stale(f"step {step} of run {row['id']} may not start under fence {fence}: {why}")
            if not _intended(connection, row, step, attempt):
                raise Stale(f"step {step} of run {row['id']} has no open intent number {attempt}")
            draft = Draft("tool.started", step, {"gateway": gateway, "attempt": attempt, "key": key})
            self._write(connection, row, batch, [draft])
            return row

        try:
            self._tell(await self._database.transact(begin))
        except IntegrityError:
            known = await self._batch(await self.run(ident), batch)
            if not key or not known or known[0].data.get("key") != key:
                raise Stale(f"step {step} of run {ident} was started already") from None

    async def beat(self, agent: str, replica: str, held: dict[str, int]) -> tuple[list[str], list[str]]:
        """A replica is alive. Gives the runs that it holds no longer, and those it shall end."""
        if not held:
            return [], []
        rows = await self._database.rows(select(runs).where(and_(runs.c.agent == agent, runs.c.id.in_(held))))
        mine = [row for row in rows if row["holder"] == replica and row["fence"] == held[row["id"]]]
        if mine:
            where = and_(runs.c.number.in_([row["number"] for row in mine]), runs.c.holder == replica)
            async with self._database.write() as connection:
                await connection.execute(update(runs).where(where).values(beat=runs.c.beat + 1))
        kept = {row["id"] for row in mine}
        return [ident for ident in held if ident not in kept], [row["id"] for row in mine if row["cancel"]]

    async def release(self, agent: str, ident: str, fence: int) -> None:
        """Let a run go that was not finished: anybody may take it at once."""
        row = await self.run(ident, agent)
        where = and_(runs.c.number == row["number"], runs.c.fence == fence, runs.c.state == "running")
        async with self._database.write() as connection:
            await connection.execute(update(runs).where(where).values(holder="", state="pending"))
        self._tell(row | {"holder": ""})

    async def claim(self, agent: str, replica: str, most: int, only: str = "") -> list[tuple[Row, list[Event]]]:
        """Lease runs that nobody works on to a replica: oldest first, one per session."""
        where = and_(runs.c.agent == agent, runs.c.state.in_(OPEN))
        rows = await self._database.rows(select(runs).where(where).order_by(runs.c.number))
        if len(self._seen) > _SEEN:
            self._seen.clear()
        taken: list[tuple[Row, list[Event]]] = []
        for row in rows:
            free = row["holder"] == "" or self._lapsed(row, replica)
            if free and len(taken) < most and only in ("", row["id"], row["task_id"]):
                leased = await self._lease(row, replica)
                if leased is not None:
                    taken.append((leased, await self.events(leased)))
        return taken

    # -- from outside
    async def answer(self, ident: str, step: int, data: dict[str, Any], by: str) -> Row:
        """What a run waits for at a step; it goes on. Raises Conflict when it does not wait there."""
        number = (await self.run(ident))["number"]

        def go_on(connection: Connection) -> Row:
            row = _locked(connection, number)
            asked = connection.execute(_ASKED, {"this": number}).scalar() if row["state"] == "waiting" else None
            if asked != step:
                waits = f"waits for {'nothing' if asked is None else f'step {asked}'} (it is {row['state']})"
                raise Conflict(f"run {row['id']} {waits}, not for an answer to step {step}")
            row["state"] = "pending"
            self._write(connection, row, f"answer/{row['seq']}", [Draft("answer", step, {**data, "by": by})])
            return row

        row = await self._database.transact(go_on)
        self._tell(row)
        return row

    async def cancel(self, ident: str, by: str, agent: str | None = None) -> Row:
        """End a run: who works on it learns it; one that nobody works on is ended by the next replica."""
        row = await self.run(ident, agent)
        if row["state"] in FINAL:
            raise Conflict(f"run {row['id']} is {row['state']} already")

        number = row["number"]
        row = await self._database.transact(lambda connection: self.end(connection, number, by))
        self._tell(row)
        return row

    def end(self, connection: Connection, number: int, by: str) -> Row:
        """:meth:`cancel` of the run of that number, as part of another's transaction."""
        row = _locked(connection, number)
        if row["state"] in FINAL:
            raise Conflict(f"run {row['id']} is {row['state']} already")
        row["cancel"] = 1
        row["state"] = "pending" if row["state"] == "waiting" else row["state"]
        drafts = [Draft("cancel", 0, {"by": by})]
        if row["fence"] == 0:  # it waits for its turn: there is nothing to end, and nobody who would, before that
            drafts.append(Draft("final", 0, {"state": "canceled", "reason": "", "text": "", "usage": {}}))
        self._write(connection, row, f"cancel/{row['seq']}", drafts)
        return row

    def changed(self, key: str) -> asyncio.Event:
        """Set when something is written of a run (its id), or may be taken of an agent (its name)."""
        return self._changes.setdefault(key, asyncio.Event())

    # -- inside
    async def _lease(self, row: Row, replica: str) -> Row | None:
        old = and_(
            runs.c.number == row["number"], runs.c.fence == row["fence"], runs.c.holder == row["holder"],
            runs.c.beat == row["beat"], runs.c.state.in_(OPEN),
        )  # fmt: skip

        def take(connection: Connection) -> Row | None:
            if not _next_in_session(connection, row, row["number"]):
                return None
            values = {"fence": row["fence"] + 1, "holder": replica, "state": "running"}
            if connection.execute(update(runs).where(old).values(**values)).rowcount == 0:
                return None
            leased = _locked(connection, row["number"])
            draft = Draft("leased", 0, {"replica": replica})
            self._write(connection, leased, f"lease/{leased['fence']}", [draft])
            return leased

        return await self._database.transact(take)

    def _lapsed(self, row: Row, replica: str) -> bool:
        """Whether its holder is gone: an earlier process of the same Pod, or one that was silent for long enough."""
        pod = row["holder"].partition("/")[0]
        if pod == replica.partition("/")[0] and row["holder"] != replica:
            return True
        sign = (row["fence"], row["beat"])
        seen, since = self._seen.get(row["id"], ((0, 0), 0.0))
        if seen != sign:
            self._seen[row["id"]] = (sign, self._monotonic())
            return False
        return self._monotonic() - since >= LEASE

    async def _batch(self, row: Row, batch: str) -> list[Event]:
        return [event_of(found) for found in await self._database.rows(_batch_query(row["number"], batch))]

    async def _number(self, ident: str, agent: str | None) -> int:
        """The number of a run. Raises NotFound when there is none, or none of that agent."""
        known = self._numbers.get(ident)
        if known is None or agent not in (None, known[1]):
            row = await self.run(ident, agent)
            known = row["number"], row["agent"]
            if len(self._numbers) >= _SEEN:
                self._numbers.clear()
            self._numbers[row["id"]] = known
        return known[0]

    def _guard(self, row: Row, drafts: Sequence[Draft]) -> list[Draft]:
        """Mark the intents of calls that the gateway will let pass with a permit only."""
        if not self._guarded(row["agent"]):
            return list(drafts)
        return [
            Draft(d.kind, d.step, d.data | {"guarded": True}) if d.kind == "tool.intent" and d.data.get("server") else d
            for d in drafts
        ]

    def _write(self, connection: Connection, row: Row, batch: str, drafts: Sequence[Draft]) -> list[Event]:
        """Append to a run whose row is locked, and bring the row up to date."""
        at = self._clock()
        first = row["seq"] + 1
        written = [Event(first + i, d.kind, d.step, at, row["fence"], d.data) for i, d in enumerate(drafts)]
        texts = [msgspec.json.encode(event.data).decode() for event in written]
        if any(len(text) > EVENT_LIMIT for text in texts):
            raise BadRequest(f"an event of run {row['id']} is larger than {EVENT_LIMIT} bytes")
        values = [
            {"run": row["number"], "seq": e.seq, "batch": batch, "position": i, "kind": e.kind, "step": e.step,
             "at": at, "fence": e.fence, "data": text}
            for i, (e, text) in enumerate(zip(written, texts, strict=True))
        ]  # fmt: skip
        connection.execute(_INSERT, values)
        spoken = [e for e in written if e.kind == "compaction" or ("message" in e.data and e.kind in _SAID)]
        if spoken:
            connection.execute(_SAY, [mirrored(row, e) for e in spoken])
        row |= after(row, written, at)
        if any(event.kind == "final" for event in written):
            used = rows_of(row, msgspec.json.decode(row["summary"]), at)
            if used:
                connection.execute(_USED, used)
        self._queued |= runs_tasks.keep(self._database, connection, row, written)
        if self.wrote is not None:
            self.wrote(row, written)
        connection.execute(_BRING, {key: row[key] for key in _CHANGED} | {"this": row["number"]})
        return written

    def _permits(self, row: Row, written: Sequence[Event]) -> dict[int, str]:
        signer = self._signer
        if signer is None:
            return {}
        expires = self._clock() + LIFETIME
        return {
            e.step: signer.sign(
                Permit(
                    row["id"], e.step, e.fence, int(e.data.get("attempt", 1)), row["agent"],
                    str(e.data.get("tool", "")), str(e.data.get("hash", "")), expires,
                )
            )
            for e in written
            if e.kind == "tool.intent" and e.data.get("guarded")
        }  # fmt: skip

    def _tell(self, row: Row) -> None:
        if self._queued:
            self._queued = False
            self._database.queued.set()
        keys = [row["id"]]
        if not row["holder"]:
            keys.append(row["agent"])
        for key in keys:
            event = self._changes.pop(key, None)
            if event is not None:
                event.set()


def _check(drafts: Sequence[Draft]) -> None:
    if not 0 < len(drafts) <= MOST_EVENTS:
        raise BadRequest(f"events: must hold 1 to {MOST_EVENTS} events")
    wrong = next((d.kind for d in drafts if d.kind not in WRITTEN_BY_HOST), None)
    if wrong is not None:
        raise BadRequest(f"events: an agent may not write {wrong!r}")


def _known(connection: Connection, new: NewRun) -> Row | None:
    """The run that a message has begun before."""
    wanted = {"of_agent": new.agent, "of_user": new.user, "now": new.task, "before": new.before}
    found = connection.execute(_KNOWN, wanted).mappings().first()
    return dict(found) if found is not None else None


def _locked(connection: Connection, number: int) -> Row:
    """The row as it is now, kept from others until the transaction ends."""
    return dict(connection.execute(_LOCK, {"this": number}).mappings().one())


def _of_batch(connection: Connection, number: int, batch: str) -> list[Event]:
    return [event_of(dict(found)) for found in connection.execute(_batch_query(number, batch)).mappings()]


def _batch_query(number: int, batch: str) -> Any:
    where = and_(run_events.c.run == number, run_events.c.batch == batch)
    return select(run_events).where(where).order_by(run_events.c.position)


def _session(connection: Connection, row: Row) -> None:
    """Make the session of a run unless it is there; others who decide about it wait until we have."""
    stamp = now()
    values: Row = {
        "id": row["session_id"], "agent": row["agent"], "user_id": row["user_id"], "name": None,
        "source": row["source"], "created_at": stamp, "updated_at": stamp,
    }  # fmt: skip
    connection.execute(_NEW_SESSION[connection.dialect.name], values)
    connection.execute(_SESSION, _session_of(row))


def _session_of(row: Row) -> dict[str, Any]:
    return {"of_agent": row["agent"], "of_user": row["user_id"], "of_session": row["session_id"]}


def _next_in_session(connection: Connection, row: Row, before: int) -> bool:
    """Whether no run of the session before that number is open: messages to one conversation are worked on in turn."""
    connection.execute(_SESSION, _session_of(row))
    return _first_in_session(connection, row, before)


def _first_in_session(connection: Connection, row: Row, before: int) -> bool:
    """The same of a session that is ours already."""
    return connection.execute(_OPEN, _session_of(row) | {"before": before}).first() is None


def _intended(connection: Connection, row: Row, step: int, attempt: int) -> bool:
    """Whether the last thing that is known of a step is the intent of that number under the run's fence."""
    last = connection.execute(_LAST, {"this": row["number"], "which": step}).mappings().first()
    if last is None or last["kind"] not in ("tool.intent", "tool.started") or last["fence"] != row["fence"]:
        return False
    return int(msgspec.json.decode(last["data"]).get("attempt", 0)) == attempt


def uuid7(now: float) -> str:
    """A UUID of version 7 (RFC 9562 §5.7): ids sort by when they were made."""
    value = int(now * 1000) << 80 | int.from_bytes(token_bytes(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=value & ~(0x3 << 62) | 0x2 << 62))
