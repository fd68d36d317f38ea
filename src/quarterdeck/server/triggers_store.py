"""Firings in the database: the run is begun in the transaction that writes its firing down, or neither happens.

So a firing that two control planes see starts one run, and so does one during which a control plane was killed and
that it, or another, sees again. What is asked first locks the trigger's row; all that follows is decided in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import time
from typing import Literal

from sqlalchemy import Connection, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from quarterdeck.errors import Conflict
from quarterdeck.snapshot.runs import FINAL
from quarterdeck.translate.triggers import KEPT as KEPT

from .database import Database, Row, events, sessions, tasks
from .runs_store import NewRun, RunStore
from .runs_tables import UNENDED, run_events, runs
from .triggers_tables import firings, resources, triggers

Outcome = Literal["Started", "DryRun", "Duplicate", "Deduplicated", "Limited", "Forbidden", "Missed"]
_AT_ONCE = 500
_COUNTED = {
    "Started": "started", "Deduplicated": "deduplicated", "Limited": "limited", "Forbidden": "skipped",
    "Missed": "skipped",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for the firings of a trigger. ``window`` and ``per`` in seconds."""

    uid: str
    label: str
    policy: str = "Allow"
    window: float = 0.0
    most: int = 30
    per: float = 3600.0


@dataclass(frozen=True, slots=True)
class Firing:
    """One firing. ``key``: its own name among those of the trigger; ``same``: what it has in common with its like.

    ``due``: when it should have been, seconds since the epoch; a schedule's are not looked for before that again.
    ``run`` None: a dry run. ``missed``: times of the schedule before this one that passed without a firing.
    ``content``: digests of a resource's URI and content; it fires when the content is another than at the last look.
    """

    key: str
    source: str
    run: NewRun | None
    same: str = ""
    due: float = 0.0
    message: str = ""
    missed: int = 0
    content: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Fired:
    """What came of it; ``run`` is the id of the run, of the earlier one for what was told before."""

    outcome: Outcome
    reason: str = ""
    run: str = ""
    retry_after: float = 0.0


class TriggerStore:
    """``clock`` gives seconds since the epoch."""

    def __init__(self, database: Database, store: RunStore, clock: Callable[[], float] = time) -> None:
        self._database = database
        self._runs = store
        self._clock = clock

    async def fire(self, rules: Rules, firing: Firing) -> Fired:
        """Start the run of a firing unless a rule, or an earlier one, is against it."""
        begun: list[Row] = []

        def work(connection: Connection) -> Fired:
            begun.clear()
            return self._fire(connection, rules, firing, begun)

        fired = await self._database.transact(work)
        for row in begun:
            self._runs.begun(row)
        return fired

    async def look(self, rules: Rules, firing: Firing) -> Fired:
        """What :meth:`fire` would say now; nothing is written."""

        def work(connection: Connection) -> Fired:
            return self._refusal(connection, rules, firing, self._clock()) or Fired("Started")

        return await self._database.transact(work)

    async def since(self, rules: Rules, schedule: str, created: float) -> float:
        """Until when a schedule was looked at: another one than before begins now, a first one when it was made."""
        now = self._clock()

        def work(connection: Connection) -> float:
            row = _locked(connection, rules, created)
            if row["schedule"] == schedule:
                return row["since"]
            since = now if row["schedule"] else created
            _change(connection, rules.uid, schedule=schedule, since=since)
            return since

        return await self._database.transact(work)

    async def missed(self, rules: Rules, latest: float, count: int) -> None:
        """Times of a schedule up to ``latest`` passed without a run, and will have none."""

        def work(connection: Connection) -> None:
            row = _locked(connection, rules, latest)
            if row["since"] < latest:  # else another control plane has counted them
                _change(connection, rules.uid, since=latest)
                if count:
                    _told(connection, rules.uid, "Missed", self._clock(), count=count)

        await self._database.transact(work)

    async def noted(self, rules: Rules, uri: str, content: str) -> None:
        """A resource was looked at, and its content fires nothing (digests, as in :class:`Firing`)."""

        def work(connection: Connection) -> None:
            _locked(connection, rules, self._clock())
            _new_content(connection, rules.uid, uri, content)

        await self._database.transact(work)

    async def numbers(self) -> dict[str, Row]:
        """The rows of all triggers by UID, with ``active`` runs."""
        open_runs = and_(runs.c.id == firings.c.run, UNENDED)
        active = select(firings.c.uid, func.count().label("n")).join(runs, open_runs).group_by(firings.c.uid)
        counts = {row["uid"]: row["n"] for row in await self._database.rows(active)}
        found = await self._database.rows(select(triggers))
        return {row["uid"]: row | {"active": counts.get(row["uid"], 0)} for row in found}

    async def history(self, uid: str, limit: int) -> list[Row]:
        """The newest firings, newest first, with the ``state`` of their runs (None: there is none any more)."""
        query = (
            select(firings, runs.c.state, runs.c.reason.label("why"))
            .outerjoin(runs, runs.c.id == firings.c.run)
            .where(firings.c.uid == uid)
            .order_by(firings.c.number.desc())
            .limit(limit)
        )
        return await self._database.rows(query)

    async def pending(self) -> list[str]:
        """Agents (``namespace/name``) that nobody works for though a trigger's run waits for that."""
        query = select(runs.c.agent).join(firings, firings.c.run == runs.c.id)
        waiting = query.where(and_(UNENDED, runs.c.state == "pending")).distinct()
        return [row["agent"] for row in await self._database.rows(waiting)]

    async def prune(self, uid: str, completed: int, others: int) -> int:
        """Delete ended runs beyond these numbers, with their journals and conversations; how many."""

        def work(connection: Connection) -> int:
            gone: list[Row] = []
            for states, kept in ((("completed",), completed), (tuple(FINAL - {"completed"}), others)):
                query = (
                    select(runs.c.number, runs.c.agent, runs.c.user_id, runs.c.session_id)
                    .join(firings, firings.c.run == runs.c.id)
                    .where(and_(firings.c.uid == uid, runs.c.state.in_(states)))
                    .order_by(runs.c.number.desc())
                    .offset(kept)
                    .limit(_AT_ONCE)
                )
                gone += [dict(row) for row in connection.execute(query).mappings()]
            numbers = [row["number"] for row in gone]
            if numbers:
                connection.execute(delete(run_events).where(run_events.c.run.in_(numbers)))
                connection.execute(delete(runs).where(runs.c.number.in_(numbers)))
            for row in gone:
                _forget_conversation(connection, row)
            return len(gone)

        return await self._database.transact(work)

    async def forget(self, live: Iterable[str]) -> None:
        """Delete what is older than :data:`KEPT` and has no run that goes on, and what is known of triggers that are
        gone."""
        before = self._clock() - KEPT
        under_way = select(runs.c.id).where(UNENDED)
        async with self._database.write() as connection:
            await connection.execute(
                delete(firings).where(and_(firings.c.at < before, firings.c.run.notin_(under_way)))
            )
            await connection.execute(delete(resources).where(resources.c.uid.notin_(list(live))))
            await connection.execute(
                delete(triggers).where(and_(triggers.c.uid.notin_(list(live)), triggers.c.last_at < before))
            )

    # -- inside
    def _fire(self, connection: Connection, rules: Rules, firing: Firing, begun: list[Row]) -> Fired:
        now = self._clock()
        row = _locked(connection, rules, firing.due or now)
        if firing.source == "cron" and row["since"] < firing.due:
            _change(connection, rules.uid, since=firing.due)
            if firing.missed:
                _told(connection, rules.uid, "Missed", now, count=firing.missed)
        if firing.content is not None and not _new_content(connection, rules.uid, *firing.content):
            return Fired("Duplicate", "the resource is as it was")
        refused = self._refusal(connection, rules, firing, now)
        if refused is not None and refused.outcome == "Duplicate":
            return refused
        if refused is not None and firing.source != "cron":
            _told(connection, rules.uid, refused.outcome, now)
            return refused
        fired = refused or Fired("DryRun")
        if refused is None and firing.run is not None:
            if rules.policy == "Replace":
                for number in _active(connection, rules.uid):
                    with suppress(Conflict):  # it has ended by itself meanwhile
                        begun.append(self._runs.end(connection, number, f"trigger {rules.label}"))
            made = self._runs.begin(connection, firing.run)
            begun.append(made)
            fired = Fired("Started", run=str(made["id"]))
        connection.execute(
            insert(firings),
            {"uid": rules.uid, "key": firing.key, "source": firing.source, "outcome": fired.outcome,
             "reason": fired.reason[:255], "run": fired.run, "same": firing.same, "due": firing.due, "at": now,
             "message": "" if fired.run else firing.message},
        )  # fmt: skip
        _told(connection, rules.uid, fired.outcome, now, fired.run)
        return fired

    def _refusal(self, connection: Connection, rules: Rules, firing: Firing, now: float) -> Fired | None:
        """What is against a firing."""
        own = firings.c.uid == rules.uid
        known = connection.execute(select(firings.c.run).where(and_(own, firings.c.key == firing.key))).first()
        if known is not None:
            return Fired("Duplicate", "this very firing was seen before", known[0])
        started = and_(own, firings.c.outcome.in_(("Started", "DryRun")))
        if firing.same and rules.window:
            like = and_(started, firings.c.same == firing.same, firings.c.at > now - rules.window)
            known = connection.execute(select(firings.c.run, firings.c.at).where(like).limit(1)).first()
            if known is not None:
                return Fired("Deduplicated", f"the same was told {now - known[1]:.0f} s ago", known[0])
        if rules.policy == "Forbid" and (active := _active(connection, rules.uid)):
            return Fired("Forbidden", f"concurrencyPolicy Forbid: {len(active)} run goes on")
        since = select(firings.c.at).where(and_(started, firings.c.at > now - rules.per)).order_by(firings.c.at.desc())
        times = [row[0] for row in connection.execute(since.limit(rules.most))]
        if len(times) >= rules.most:
            wait = max(1.0, times[-1] + rules.per - now)
            return Fired("Limited", f"{rules.most} runs in {rules.per:g} s were started", retry_after=wait)
        return None


def _locked(connection: Connection, rules: Rules, since: float) -> Row:
    """The trigger's row, made when it is not there, kept from other control planes until the transaction ends.

    The first statement is a write: a reader that wants to write later may be refused by SQLite.
    """
    own = triggers.c.uid == rules.uid
    touch = update(triggers).where(own).values(label=rules.label[:320])
    if connection.execute(touch).rowcount == 0:
        row: Row = {
            "uid": rules.uid, "label": rules.label[:320], "schedule": "", "since": since, "started": 0, "skipped": 0,
            "deduplicated": 0, "limited": 0, "last_at": 0.0, "last_outcome": "", "last_run": "",
        }  # fmt: skip
        try:
            with connection.begin_nested():
                connection.execute(insert(triggers), row)
        except IntegrityError:
            connection.execute(touch)
    return dict(connection.execute(select(triggers).where(own)).mappings().one())


def _new_content(connection: Connection, uid: str, uri: str, content: str) -> bool:
    """Whether a resource has changed since somebody looked; the first look changes nothing."""
    own = and_(resources.c.uid == uid, resources.c.uri == uri)
    before = connection.execute(select(resources.c.content).where(own)).scalar_one_or_none()
    if before is None:
        connection.execute(insert(resources), {"uid": uid, "uri": uri, "content": content})
    elif before != content:
        connection.execute(update(resources).where(own).values(content=content))
    return before is not None and before != content


def _forget_conversation(connection: Connection, run: Row) -> None:
    """What was said in a run, unless somebody made it again: then it is that run's, too."""
    where = {"agent": run["agent"], "user_id": run["user_id"], "session_id": run["session_id"]}
    if connection.execute(select(runs.c.number).filter_by(**where).limit(1)).first() is None:
        for table in (events, tasks):
            connection.execute(delete(table).filter_by(**where))
        where["id"] = where.pop("session_id")
        connection.execute(delete(sessions).filter_by(**where))


def _active(connection: Connection, uid: str) -> Sequence[int]:
    """Numbers of the runs of a trigger that have not ended and are not being ended."""
    open_runs = and_(runs.c.id == firings.c.run, UNENDED, runs.c.cancel == 0)
    return [
        row[0] for row in connection.execute(select(runs.c.number).join(firings, open_runs).where(firings.c.uid == uid))
    ]


def _change(connection: Connection, uid: str, **values: str | float) -> None:
    connection.execute(update(triggers).where(triggers.c.uid == uid).values(**values))


def _told(connection: Connection, uid: str, outcome: Outcome, at: float, run: str = "", count: int = 1) -> None:
    values: Row = {"last_at": at, "last_outcome": outcome} | ({"last_run": run} if run else {})
    if (column := _COUNTED.get(outcome)) is not None:
        values[column] = triggers.c[column] + count
    connection.execute(update(triggers).where(triggers.c.uid == uid).values(values))
