"""Approvals in the database. Every change is a compare-and-set, so two gateways never use up one approval twice."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from time import time

import msgspec
from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from quarterdeck.errors import Conflict, Forbidden, NotFound
from quarterdeck.snapshot.consent import Wanted

from . import approvals as a
from .approvals import Approval, Decision, Rules, Same
from .approvals_tables import approvals
from .database import Database, Row

_OPEN = 200
"""Requests of one caller that may wait at the same time: what nobody can look through is no request."""
_KEPT = 30 * 86400.0
"""Seconds for which what is over can be looked at."""
_TRIES = 5
_LISTED = 1000
Changed = Callable[[Approval], Awaitable[None]]


class ApprovalStore:
    """``rules`` and ``same`` say who counts now; ``changed`` is told of every new state."""

    def __init__(
        self,
        database: Database,
        rules: Callable[[], Rules],
        same: Same,
        clock: Callable[[], float] = time,
    ) -> None:
        self._database = database
        self._rules = rules
        self._same = same
        self.clock = clock
        self.changed: list[Changed] = []

    async def request(self, gateway: str, wanted: Wanted) -> Approval:
        """The open approval of this call, or a new one. Raises Conflict when the caller has too many open."""
        slot = a.slot_of(gateway, wanted)
        for _ in range(_TRIES):
            found = await self._in_slot(slot)
            if found is not None and set(wanted.rules) <= set(found.wanted.rules):
                return found
            if found is not None:  # a policy came that it was not asked for
                await self._write(found, _over(found, "Void", "another policy demands an approval now", self.clock()))
                continue
            made = await self._create(gateway, wanted, slot)
            if made is not None:
                await self._tell(made)
                return made
        raise Conflict(f"too many requests for one approval of {wanted.tool} at the same time; try again")

    async def decide(self, approval: Approval, decision: Decision) -> Approval:
        """Take somebody's word. Raises Conflict when it is not open any more, Forbidden when it does not count."""
        for _ in range(_TRIES):
            now = self.clock()
            if approval.state not in a.OPEN or approval.expires <= now:
                state = approval.state if approval.state not in a.OPEN else "Expired"
                raise Conflict(f"approval {approval.id} is {state}: {approval.message or 'nothing can be decided'}")
            problem = a.objection(approval, decision.person, self._rules(), self._same)
            if problem:
                raise Forbidden(f"{decision.person.name} may not decide about approval {approval.id}: {problem}")
            after = a.decided(approval, decision, self._rules(), self._same)
            if await self._write(approval, after):
                return after
            approval = await self.get(approval.namespace, approval.name)
        raise Conflict(f"approval {approval.id} is being decided by somebody else; look again")

    async def consume(self, gateway: str, namespace: str, name: str, shown: Wanted) -> Approval:
        """Use it up for the call that was approved, once. What comes back says whether: only ``Consumed`` does.

        Raises NotFound, and Forbidden when it was given for another call.
        """
        for _ in range(_TRIES):
            found = await self.get(namespace, name)
            wrong = a.differs(found.wanted, shown) or ("gateway" if found.gateway != gateway else "")
            if wrong:
                raise Forbidden(f"approval {found.id} was given for another call: {wrong} differs")
            now = self.clock()
            if found.state == "Consumed":
                raise Forbidden(f"approval {found.id} was used already; an approval is good for one call")
            if found.state not in a.OPEN:
                return found
            if found.expires <= now:
                after = _expired(found, now)
            elif found.state == "Pending":
                return found
            elif missing := a.lacking(found, self._rules(), self._same):
                after = _over(found, "Void", f"policies or approvers have changed since: {missing}", now)
            else:
                after = _over(found, "Consumed", found.message, now)
            if await self._write(found, after):
                return after
        raise Conflict(f"approval {namespace}/{name} is being used by somebody else")

    async def get(self, namespace: str, name: str) -> Approval:
        """Raises NotFound."""
        where = and_(approvals.c.namespace == namespace, approvals.c.name == name)
        rows = await self._database.rows(select(approvals).where(where))
        if not rows:
            raise NotFound(f"approval {namespace}/{name} is not there; see: qd approvals list -A", name=name)
        return _read(rows[0])

    async def find(self, *, namespace: str = "", states: Sequence[str] = (), requester: str = "") -> list[Approval]:
        """Newest first, at most a thousand."""
        query = select(approvals).order_by(approvals.c.created.desc()).limit(_LISTED)
        if namespace:
            query = query.where(approvals.c.namespace == namespace)
        if states:
            query = query.where(approvals.c.state.in_(states))
        if requester:
            query = query.where(_holds(approvals.c.wanted, requester))
        found = [_read(row) for row in await self._database.rows(query)]
        return [one for one in found if not requester or one.wanted.requester.id == requester]

    async def said(self, message: str, person: str) -> bool:
        """Whether this message of theirs has decided about a call before."""
        rows = await self._database.rows(select(approvals.c.decisions).where(_holds(approvals.c.decisions, message)))
        decisions = (d for row in rows for d in msgspec.json.decode(row["decisions"], type=tuple[Decision, ...]))
        return any(d.message == message and d.person.name == person for d in decisions)

    async def sweep(self) -> list[Approval]:
        """Expire what is overdue and forget what is long over; gives the expired ones."""
        now = self.clock()
        overdue = and_(approvals.c.state.in_(sorted(a.OPEN)), approvals.c.expires <= now)
        expired: list[Approval] = []
        for row in await self._database.rows(select(approvals).where(overdue).limit(_LISTED)):
            before = _read(row)
            after = _expired(before, now)
            if await self._write(before, after):
                expired.append(after)
        stale = and_(approvals.c.slot.is_not(None), approvals.c.state == "Denied", approvals.c.expires <= now)
        old = and_(approvals.c.state.not_in(sorted(a.OPEN)), approvals.c.changed <= now - _KEPT)
        if await self._database.rows(select(approvals.c.name).where(or_(stale, old)).limit(1)):
            async with self._database.write() as connection:
                await connection.execute(update(approvals).where(stale).values(slot=None))
                await connection.execute(delete(approvals).where(old))
        return expired

    # -- inside
    async def _in_slot(self, slot: str) -> Approval | None:
        """What the same call led to before, if it still counts: a denial does until it expires."""
        rows = await self._database.rows(select(approvals).where(approvals.c.slot == slot))
        if not rows:
            return None
        found, now = _read(rows[0]), self.clock()
        if found.expires > now:
            return found
        if found.state in a.OPEN:
            await self._write(found, _expired(found, now))
        else:
            async with self._database.write() as connection:
                await connection.execute(update(approvals).where(approvals.c.slot == slot).values(slot=None))
        return None

    async def _create(self, gateway: str, wanted: Wanted, slot: str) -> Approval | None:
        """None when somebody else was faster."""
        caller = wanted.agent or wanted.principal
        if await self._count(and_(approvals.c.agent == caller, approvals.c.state == "Pending")) >= _OPEN:
            raise Conflict(f"{caller} has {_OPEN} requests for approval open; have some decided first")
        now = round(self.clock(), 3)
        rules = self._rules()
        unknown = [name for name in wanted.rules if rules(name) is None]
        if unknown:
            raise Conflict(f"{unknown[0]} is not known here; the gateway's configuration is older or newer")
        name = f"{_slug(wanted.tool)}-{secrets.token_hex(4)}"
        message = a.lacking(Approval("", "", gateway, wanted, "Pending", now, now, now), rules, self._same)
        made = Approval(
            wanted.namespace, name, gateway, wanted, "Pending", now, now + a.lifetime(wanted, rules), now,
            message=message,
        )  # fmt: skip
        try:
            async with self._database.write() as connection:
                await connection.execute(
                    insert(approvals).values(namespace=made.namespace, name=name, slot=slot, **_values(made))
                )
        except IntegrityError:
            return None
        return made

    async def _write(self, before: Approval, after: Approval) -> bool:
        """Whether nobody else has written since ``before`` was read."""
        where = and_(
            approvals.c.namespace == before.namespace,
            approvals.c.name == before.name,
            approvals.c.version == before.version,
        )
        values = _values(msgspec.structs.replace(after, version=before.version + 1))
        if after.state not in (*a.OPEN, "Denied"):
            values["slot"] = None
        async with self._database.write() as connection:
            done = await connection.execute(update(approvals).where(where).values(**values))
        if done.rowcount:
            await self._tell(after)
        return bool(done.rowcount)

    async def _tell(self, approval: Approval) -> None:
        for one in self.changed:
            await one(approval)

    async def _count(self, where: ColumnElement[bool]) -> int:
        rows = await self._database.rows(select(func.count().label("n")).select_from(approvals).where(where))
        return int(rows[0]["n"])


def _holds(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """Rows whose JSON may hold a text, so that no others count against a limit; where it stands is not looked at."""
    return column.contains(msgspec.json.encode(text).decode(), autoescape=True)


def _over(approval: Approval, state: a.State, message: str, now: float) -> Approval:
    return msgspec.structs.replace(
        approval, state=state, message=message, changed=round(now, 3), version=approval.version + 1
    )


def _expired(approval: Approval, now: float) -> Approval:
    text = "nobody decided in time" if approval.state == "Pending" else "it was approved and not used in time"
    return _over(approval, "Expired", f"expired: {text}", now)


def _values(approval: Approval) -> Row:
    wanted = approval.wanted
    return {
        "gateway": approval.gateway,
        "agent": wanted.agent or wanted.principal,
        "state": approval.state,
        "wanted": msgspec.json.encode(wanted).decode(),
        "decisions": msgspec.json.encode(approval.decisions).decode(),
        "message": approval.message,
        "created": approval.created,
        "expires": approval.expires,
        "changed": approval.changed,
        "version": approval.version,
    }


def _read(row: Row) -> Approval:
    return Approval(
        row["namespace"],
        row["name"],
        row["gateway"],
        msgspec.json.decode(row["wanted"], type=Wanted),
        row["state"],
        row["created"],
        row["expires"],
        row["changed"],
        msgspec.json.decode(row["decisions"], type=tuple[Decision, ...]),
        row["message"],
        row["version"],
    )


def _slug(tool: str) -> str:
    """The tool's name as far as it fits into the name of an object."""
    return re.sub(r"[^a-z0-9]+", "-", tool.lower()).strip("-")[:40].strip("-") or "call"
