"""The stage of tool calls at which pins are kept: what the server lists must have been seen lately."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec
from msgspec import Raw

from quarterdeck.errors import NotFound, QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import protocol
from quarterdeck.wire.http import Exchange

from ..pins import FRESH, RENEW, Pins
from ..policy.principal import LOCAL_USER
from . import client
from .answers import JSON, Answers
from .call import McpCall
from .client import RpcError
from .conversation import Conversation
from .legs import translated
from .newer import NewerConversation
from .route import Lane, McpRoute

Later = Coroutine[Any, Any, None]


class Pinned:
    """``keep(call)`` is the stage; ``go_on`` takes a call through the stages after it."""

    def __init__(self, answers: Answers, go_on: Callable[[McpCall], Later | None]) -> None:
        self._answers = answers
        self._go_on = go_on
        self._looking: dict[Pins, asyncio.Task[None]] = {}

    def keep(self, call: McpCall) -> bool:
        """False when the call was answered, or goes on later."""
        pins = call.route.pins
        if pins is None or call.method != protocol.TOOLS_CALL:
            return True
        age = pins.age
        if age > FRESH:
            call.later = self._look_first(call, pins)
            return False
        if age > RENEW:
            self._look(call, pins)
        return self._decide(call, pins)

    def _decide(self, call: McpCall, pins: Pins) -> bool:
        denial = pins.decide(call.tool)
        if denial is None:
            return True
        call.decision = denial
        self._answers.unknown(call, call.exposed or call.tool, denial.reason)
        return False

    async def _look_first(self, call: McpCall, pins: Pins) -> None:
        call.later = None
        try:
            await asyncio.shield(self._look(call, pins))
        except (UpstreamError, TimedOut) as error:
            if pins.enforce:
                self._answers.failed(call, error)
                return
        if self._decide(call, pins):
            rest = self._go_on(call)
            if rest is not None:
                await rest

    def _look(self, call: McpCall, pins: Pins) -> asyncio.Task[None]:
        """Ask the server for its tools, once for all that wait."""
        task = self._looking.get(pins)
        if task is None:
            work = _seen(pins, call.route, call.lane, call.added(call.member))
            task = self._looking[pins] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(lambda done: self._looked(pins, done))
        return task

    def _looked(self, pins: Pins, done: asyncio.Task[None]) -> None:
        del self._looking[pins]
        if not done.cancelled():
            done.exception()  # told to those who wait; a renewal in the background is tried again by the next call


async def _seen(pins: Pins, route: McpRoute, lane: Lane, extra: bytes) -> None:
    try:
        pins.seen(await definitions(route, lane, extra))
    except MALFORMED as error:
        raise UpstreamError(f"sent a malformed list of tools: {error}") from error


async def definitions(route: McpRoute, lane: Lane, extra: bytes) -> list[Raw]:
    """All tools as the server lists them, in a session of our own. Raises UpstreamError, TimedOut."""
    only = translated(route)
    kinds: tuple[Callable[..., Conversation], ...] = (only,) if only is not None else (Conversation, NewerConversation)
    for kind in kinds[:-1]:
        try:
            return await _listed(kind, route, lane, extra)
        except (RpcError, client.NoAnswer):
            continue  # it may speak nothing but 2026-07-28
    return await _listed(kinds[-1], route, lane, extra)


async def _listed(kind: Callable[..., Conversation], route: McpRoute, lane: Lane, extra: bytes) -> list[Raw]:
    conversation = kind(route, lane, {})
    conversation.extra = extra
    try:
        return await client.list_all(conversation.ask, protocol.TOOLS_LIST, "tools")
    finally:
        link = conversation.link
        conversation.close()
        if link is not None and link.session:
            with contextlib.suppress(UpstreamError, TimedOut):  # it forgets the session by itself
                await client.close(route, lane, link)


def tools_handler(targets: Callable[[], Iterable[McpRoute]]) -> Callable[[Exchange], Later]:
    """``GET /tools/[NAMESPACE/]NAME`` on the admin port: the tools as a server lists them, past pins and rules."""

    async def handle(exchange: Exchange) -> None:
        wanted = exchange.path.removeprefix("/tools/")
        routes = [route for route in targets() if wanted in (route.label, route.server.name)]
        try:
            if exchange.method != "GET" or len(routes) != 1:
                raise NotFound(f"{wanted!r} names {len(routes)} servers; GET /tools/NAMESPACE/NAME", name=wanted)
            route = routes[0]
            tools = await definitions(route, route.lane(LOCAL_USER), b"")
        except QuarterdeckError as error:
            body = {"error": {"reason": error.reason, "message": str(error)}}
            exchange.respond(error.http_status, msgspec.json.encode(body), [JSON])
            return
        kind, namespace, name = route.target
        pins = route.pins
        mode = "off" if pins is None else "enforce" if pins.enforce else "warn"
        answer = {"kind": kind, "namespace": namespace, "name": name, "mode": mode, "tools": tools}
        exchange.respond(200, msgspec.json.encode(answer), [JSON])

    return handle
