"""One list of what several servers list."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Raw

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

_KEPT_BYTES = 8 * 1024 * 1024
"""What is remembered of lists, about."""


async def together(
    call: McpCall, answers: Answers, key: str, members: Sequence[Member], list_one: ListOne
) -> dict[str, Any] | None:
    """The page that the caller asked for; None when there is none, which the caller has been told."""
    start = merge.position(text_of(call.params.get("cursor")))
    if start is None:
        answers.error(call, protocol.INVALID_PARAMS, "invalid cursor")
        return None
    view = call.group.view
    asked = members if view is None else [member for member in members if view.offers(member.name, key)]
    parts = await asyncio.gather(*(list_one(member, call.method, key) for member in asked))
    problem = merge.failure(parts, fail_open=call.group.fail_open)
    if problem:
        answers.error(call, protocol.UPSTREAM_FAILED, problem)
        return None
    return merge.listing(key, parts if call.group.prefixed else merge.without_duplicates(key, parts), start)


class Listed:
    """What callers were shown of lists, so that a server that lists the same again is not looked through again.

    A list is compared as a whole, and what was shown holds for requests with the same head only, and where nothing
    else decides (:class:`~quarterdeck.gateway.way.Way`).
    """

    def __init__(self) -> None:
        self._shown: dict[tuple[Way, Member, str], tuple[Raw, Part]] = {}
        self._bytes = 0
        self._table: Table | None = None

    async def part(self, call: McpCall, member: Member, method: str, key: str, ask: Ask) -> Part:
        """What the caller may see of one server's list, under its new names, or why there is nothing."""
        label = member.route.label
        try:
            first = await ask(method, None)
            place = self._place(call, member, key)
            if place is not None:
                known = self._shown.get(place)
                if known is not None and known[0] == first:
                    return known[1]
            items = await list_all(ask, method, key, first)
            view = call.group.view
            if view is not None:
                return Part(member.name, label, view.listed(call, member, key, items))
            kept = [naming.item_out(member, key, item) for item in filter(sight(call, member, key), items)]
            found = Part(member.name, label, kept)
            if place is not None and b'"nextCursor"' not in bytes(first):
                self._keep(place, first.copy(), found)
            return found
        except RpcError as error:
            # a server without prompts or resources is no failure
            return Part(member.name, label, error="" if error.code == protocol.METHOD_NOT_FOUND else str(error))
        except (UpstreamError, TimedOut, Refused) as error:
            return Part(member.name, label, error=str(error))
        except MALFORMED as error:
            return Part(member.name, label, error=f"sent a malformed list: {error}")

    def _place(self, call: McpCall, member: Member, key: str) -> tuple[Way, Member, str] | None:
        """Where it is kept; None where the next request may be shown something else."""
        way, chain = call.way, member.chain
        if way is None or call.group.view is not None or member.route.pins is not None:
            return None
        return (way, member, key) if chain is None or chain.by_head else None

    def _keep(self, place: tuple[Way, Member, str], first: Raw, part: Part) -> None:
        size = 2 * memoryview(first).nbytes
        if self._bytes + size > _KEPT_BYTES or self._table is not place[0].table:
            self._shown.clear()
            self._bytes, self._table = 0, place[0].table
        if size <= _KEPT_BYTES:
            self._shown[place] = first, part
            self._bytes += size
