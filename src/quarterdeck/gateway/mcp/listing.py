"""One list of what several servers list."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import protocol

from . import merge, naming
from .answers import Answers, sight
from .call import McpCall, text_of
from .client import Ask, RpcError, list_all
from .groups import Member
from .merge import Part
from .search import ListOne
from .shared import Refused

if TYPE_CHECKING:
    from ..table import Table
    from ..way import Way

Place = tuple["Way", Member, str]
FRESH = 10.0
"""Longest time in seconds: a change may have been told to another worker or replica."""
_KEPT_BYTES = 8 * 1024 * 1024
"""What is remembered of lists, about."""


class _Said(Struct, gc=False):
    ttl: float = msgspec.field(name="ttlMs", default=0.0)


class Shown:
    """What a server sent (its one page), and what of it a caller may see.

    ``changes``: :attr:`~quarterdeck.gateway.mcp.route.McpRoute.changes` before the server was asked.
    """

    __slots__ = ("_changes", "_fresh", "_until", "first", "part")

    def __init__(self, first: Raw, part: Part, changes: int) -> None:
        self.first = first
        self.part = part
        self._fresh = _fresh(first)
        self.renew(changes)

    def renew(self, changes: int) -> None:
        """The server has sent the same again."""
        self._changes = changes
        self._until = monotonic() + self._fresh if self._fresh else 0.0

    def holds(self, member: Member, now: float) -> bool:
        """Whether the server need not be asked: it said for how long (``ttlMs``, SEP-2549), and of no change since."""
        return self._until > 0.0 and self._changes == member.route.changes and now < self._until


class Listed:
    """What callers were shown of lists, so that a server that lists the same again is not looked through again.

    A list is compared as a whole, and what was shown holds for requests with the same head only, and where nothing
    else decides (:class:`~quarterdeck.gateway.way.Way`).
    """

    def __init__(self) -> None:
        self._shown: dict[Place, Shown] = {}
        self._bytes = 0
        self._table: Table | None = None

    async def together(
        self, call: McpCall, answers: Answers, key: str, members: Sequence[Member], list_one: ListOne
    ) -> dict[str, Any] | None:
        """The page that the caller asked for; None when there is none, which the caller has been told."""
        start = merge.position(text_of(call.params.get("cursor")))
        if start is None:
            answers.error(call, protocol.INVALID_PARAMS, "invalid cursor")
            return None
        view = call.group.view
        asked = members if view is None else [member for member in members if view.offers(member.name, key)]
        parts = self._still(call, asked, key)
        if parts is None:
            parts = await asyncio.gather(*(list_one(member, call.method, key) for member in asked))
        problem = merge.failure(parts, fail_open=call.group.fail_open)
        if problem:
            answers.error(call, protocol.UPSTREAM_FAILED, problem)
            return None
        return merge.listing(key, parts if call.group.prefixed else merge.without_duplicates(key, parts), start)

    async def part(self, call: McpCall, member: Member, method: str, key: str, ask: Ask) -> Part:
        """What the caller may see of one server's list, under its new names, or why there is nothing."""
        label = member.route.label
        try:
            place = _place(call, member, key)
            known = self._shown.get(place) if place is not None else None
            if known is not None and known.holds(member, monotonic()):
                return known.part
            changes = member.route.changes
            first = await ask(method, None)
            if known is not None and known.first == first:
                known.renew(changes)
                return known.part
            items = await list_all(ask, method, key, first)
            view = call.group.view
            if view is not None:
                return Part(member.name, label, view.listed(call, member, key, items))
            kept = [naming.item_out(member, key, item) for item in filter(sight(call, member, key), items)]
            found = Part(member.name, label, kept)
            if place is not None and b'"nextCursor"' not in bytes(first):
                self._keep(place, Shown(first.copy(), found, changes))
            return found
        except RpcError as error:
            # a server without prompts or resources is no failure
            return Part(member.name, label, error="" if error.code == protocol.METHOD_NOT_FOUND else str(error))
        except (UpstreamError, TimedOut, Refused) as error:
            return Part(member.name, label, error=str(error))
        except MALFORMED as error:
            return Part(member.name, label, error=f"sent a malformed list: {error}")

    def _still(self, call: McpCall, members: Sequence[Member], key: str) -> list[Part] | None:
        """What of all members can be shown without asking one."""
        way, found, now = call.way, list[Part](), monotonic()
        if way is None:
            return None
        for member in members:
            known = self._shown.get((way, member, key))
            if known is None or not known.holds(member, now):
                return None
            found.append(known.part)
        return found

    def _keep(self, place: Place, shown: Shown) -> None:
        size = 2 * memoryview(shown.first).nbytes
        if self._bytes + size > _KEPT_BYTES or self._table is not place[0].table:
            self._shown.clear()
            self._bytes, self._table = 0, place[0].table
        if size <= _KEPT_BYTES:
            self._shown[place] = shown
            self._bytes += size


def _place(call: McpCall, member: Member, key: str) -> Place | None:
    """Where it is kept; None where the next request may be shown something else."""
    way, chain = call.way, member.chain
    if way is None or call.group.view is not None or member.route.pins is not None:
        return None
    return (way, member, key) if chain is None or chain.by_head else None


def _fresh(page: Raw) -> float:
    """For how many seconds the page may be used again without asking. It is one caller's: its scope does not matter."""
    try:
        said = msgspec.json.decode(page, type=_Said).ttl
    except MALFORMED:
        return 0.0
    return min(max(said, 0.0) / 1000.0, FRESH)
