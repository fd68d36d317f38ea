"""What the control plane keeps for its gateways: checkpoints of audit chains, revocations, approved tools.

Every replica looks twice a second whether revocations or approvals have changed and hands them to the configuration it
streams, so a kill switch thrown at one of them works at all gateways within a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from time import time
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.errors import BadRequest, Conflict, NotFound
from quarterdeck.kube.clock import SystemClock, sleep
from quarterdeck.snapshot.pins import Approved, ServerPins, ToolPin
from quarterdeck.snapshot.revocations import Revocation
from quarterdeck.telemetry.audit import Checkpoint
from quarterdeck.telemetry.audit.checkpoint import genuine

from .database import Database, Row
from .governance_tables import changes, checkpoints, revocations, tool_pins

log = logging.getLogger(__name__)
_SLOT = 600.0
"""Seconds: of each such time the last checkpoint of a chain is kept."""
_POLL = 0.5
_ALONE = 60.0
"""Seconds between looks: of a database that others may write to, and of one that is this process's own."""
_MOST = 10_000

T = TypeVar("T")
Server = tuple[str, str, str]
"""kind, namespace, name"""


class Governance:
    """Reads and writes; times are seconds since the epoch."""

    def __init__(self, database: Database, clock: Callable[[], float] = time) -> None:
        self._database = database
        self._clock = clock

    # -- checkpoints
    async def keep(self, gateway: str, point: Checkpoint) -> None:
        """Raises BadRequest for one that is not genuine, Conflict for one that contradicts what is kept."""
        if point.gateway != gateway or not genuine(point):
            raise BadRequest(f"the checkpoint of record {point.seq} is not one that gateway {gateway} signed")
        where = checkpoints.c.chain == point.chain
        kept = await self._database.rows(select(checkpoints).where(where).order_by(checkpoints.c.seq.desc()).limit(1))
        if kept:
            _consistent(msgspec.json.decode(kept[0]["data"], type=Checkpoint), point)
        elif await self._count(checkpoints.c.gateway == gateway) >= _MOST * 100:
            raise Conflict(f"gateway {gateway} has too many checkpoints")
        slot = int(self._clock() // _SLOT)
        values: Row = {
            "gateway": gateway, "replica": point.replica, "seq": point.seq,
            "data": msgspec.json.encode(point).decode(),
        }  # fmt: skip
        of_slot = and_(where, checkpoints.c.slot == slot)
        async with self._database.write() as connection:
            done = await connection.execute(update(checkpoints).where(of_slot).values(**values))
            if done.rowcount == 0:
                await connection.execute(insert(checkpoints).values(chain=point.chain, slot=slot, **values))

    async def checkpoints(self, gateway: str) -> list[Checkpoint]:
        """Oldest first."""
        query = select(checkpoints.c.data).where(checkpoints.c.gateway == gateway)
        rows = await self._database.rows(query.order_by(checkpoints.c.slot, checkpoints.c.seq))
        return [msgspec.json.decode(row["data"], type=Checkpoint) for row in rows]

    # -- revocations
    async def revoke(self, revocation: Revocation) -> None:
        """Raises Conflict when there are too many."""
        if len(await self.revocations()) >= _MOST:
            raise Conflict(f"there are {_MOST} revocations already; undo some first")
        async with self._database.write() as connection:
            await connection.execute(insert(revocations).values(**msgspec.structs.asdict(revocation)))
            await _changed(connection)

    async def revocations(self) -> list[Revocation]:
        """Those that hold, oldest first; the others are forgotten."""
        rows = await self._database.rows(select(revocations).order_by(revocations.c.created, revocations.c.id))
        found = [Revocation(**row) for row in rows]
        now = self._clock()
        over = [r.id for r in found if 0.0 < r.expires <= now]
        if over:
            async with self._database.write() as connection:
                await connection.execute(delete(revocations).where(revocations.c.id.in_(over)))
        return [r for r in found if r.id not in over]

    async def undo(self, ident: str) -> Revocation:
        """Raises NotFound."""
        found = next((r for r in await self.revocations() if r.id == ident), None)
        if found is None:
            raise NotFound(f"no revocation {ident!r}; see: qd gateway revocations", name=ident)
        async with self._database.write() as connection:
            await connection.execute(delete(revocations).where(revocations.c.id == ident))
            await _changed(connection)
        return found

    # -- approved tools
    async def approve(self, server: Server, tools: Sequence[Approved]) -> None:
        """Approve these definitions in the place of those of before."""
        kind, namespace, name = server
        async with self._database.write() as connection:
            for one in tools:
                await connection.execute(delete(tool_pins).where(and_(_of(server), tool_pins.c.tool == one.tool)))
                try:
                    await connection.execute(
                        insert(tool_pins).values(
                            kind=kind, namespace=namespace, server=name, tool=one.tool, digest=one.digest,
                            definition=msgspec.json.encode(one.definition).decode(), by=one.by, at=one.at,
                        )
                    )  # fmt: skip
                except IntegrityError:
                    raise Conflict(f"somebody else approved {one.tool} at the same time; look again") from None
            await _changed(connection)

    async def withdraw(self, server: Server, tools: Sequence[str] | None) -> int:
        """Forget approvals, of all tools when None; how many there were."""
        where = _of(server) if tools is None else and_(_of(server), tool_pins.c.tool.in_(tools))
        async with self._database.write() as connection:
            count = (await connection.execute(delete(tool_pins).where(where))).rowcount
            await _changed(connection)
        return count

    async def approved(self, server: Server) -> list[Approved]:
        rows = await self._database.rows(select(tool_pins).where(_of(server)).order_by(tool_pins.c.tool))
        return [
            Approved(row["tool"], row["digest"], msgspec.json.decode(row["definition"]), row["by"], row["at"])
            for row in rows
        ]

    async def pins(self) -> tuple[ServerPins, ...]:
        """All approvals, as the snapshot has them."""
        columns = (tool_pins.c.kind, tool_pins.c.namespace, tool_pins.c.server, tool_pins.c.tool, tool_pins.c.digest)
        servers: dict[Server, list[ToolPin]] = {}
        for row in await self._database.rows(select(*columns).order_by(*columns)):
            servers.setdefault((row["kind"], row["namespace"], row["server"]), []).append(
                ToolPin(row["tool"], row["digest"])
            )
        return tuple(ServerPins(*server, tuple(tools)) for server, tools in servers.items())

    # -- to the gateways
    async def publish(self, configuration: GatewayConfig) -> None:
        """Hand what holds now to the stream of configurations."""
        await configuration.govern(tuple(await self.revocations()), await self.pins())

    async def follow(
        self, configuration: GatewayConfig, pause: Callable[[float], Awaitable[None]] | None = None
    ) -> None:
        """Until cancelled: :meth:`publish` whenever another replica has changed something."""
        clock, failures, seen = SystemClock(), 0, -1
        while True:
            try:
                seen, failures = await _whole(self._look(configuration, seen)), 0
            except (SQLAlchemyError, OSError) as error:
                failures += 1
                if failures in (3, 300):
                    log.warning(
                        "revocations and approved tools cannot be read, gateways keep what they have: %s", error
                    )
            wait = _POLL if self._database.shared else _ALONE
            await (pause(wait) if pause is not None else sleep(clock, wait))

    async def _look(self, configuration: GatewayConfig, seen: int) -> int:
        rows = await self._database.rows(select(changes.c["count"]))
        count = int(rows[0]["count"]) if rows else 0
        if count != seen:
            await self.publish(configuration)
        return count

    async def _count(self, where: ColumnElement[bool]) -> int:
        rows = await self._database.rows(select(func.count().label("n")).select_from(checkpoints).where(where))
        return int(rows[0]["n"])


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """To its end even if cancelled: a driver that is cut off in a statement may keep its thread waiting for ever."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _changed(connection: AsyncConnection) -> None:
    done = await connection.execute(update(changes).values(count=changes.c["count"] + 1))
    if done.rowcount == 0:
        await connection.execute(insert(changes).values(id=1, count=1))


def _consistent(kept: Checkpoint, point: Checkpoint) -> None:
    """Raises Conflict when both cannot be true of one chain that only grows."""
    if kept.gateway != point.gateway or kept.key != point.key:
        raise Conflict(f"chain {point.chain} belongs to another process: somebody forges checkpoints")
    if point.seq < kept.seq or (point.seq == kept.seq and point.hash != kept.hash):
        raise Conflict(f"chain {point.chain} had come to record {kept.seq} already: its log was cut off or rewritten")


def _of(server: Server) -> ColumnElement[bool]:
    kind, namespace, name = server
    return and_(tool_pins.c.kind == kind, tool_pins.c.namespace == namespace, tool_pins.c.server == name)
