"""One list of what several servers list."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from msgspec import Raw

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import protocol

from . import merge, naming
from .answers import Answers, sight
from .call import McpCall, text_of
from .client import RpcError
from .groups import Member
from .merge import Part
from .search import ListOne
from .shared import Refused


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


async def part(call: McpCall, member: Member, key: str, items: Awaitable[Sequence[Raw]]) -> Part:
    """What the caller may see of one server's ``items``, under their new names, or why there are none."""
    label = member.route.label
    try:
        found, view = await items, call.group.view
        if view is not None:
            kept = view.listed(call, member, key, found)
        else:
            kept = [naming.item_out(member, key, item) for item in filter(sight(call, member, key), found)]
    except RpcError as error:
        # a server without prompts or resources is no failure
        return Part(member.name, label, error="" if error.code == protocol.METHOD_NOT_FOUND else str(error))
    except (UpstreamError, TimedOut, Refused) as error:
        return Part(member.name, label, error=str(error))
    except MALFORMED as error:
        return Part(member.name, label, error=f"sent a malformed list: {error}")
    return Part(member.name, label, kept)
