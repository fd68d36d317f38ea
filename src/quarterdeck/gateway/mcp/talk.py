"""Calls of clients with sessions that a :class:`Conversation` carries: progress, questions and answer as they come."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import jsonrpc, lists
from quarterdeck.wire.http import Disconnected

from ..upstream import Upstreams
from . import naming
from .answers import EVENTS, GONE, KEEP_ALIVE, Answers, departure, event, first
from .call import McpCall, text_of
from .conversation import Conversation, Event, Flight, Running
from .sessions import Asked, ClientSession

HOLD = 600.0
"""Seconds a call waits for its client's answers."""
_CANCELLED = -32800
"""Error code by which JSON-RPC peers (the Language Server Protocol first) say that a request was cancelled."""


class Talk:
    """Follows calls to their end."""

    def __init__(self, answers: Answers, upstreams: Upstreams) -> None:
        self._answers = answers
        self._upstreams = upstreams

    async def follow(
        self, call: McpCall, session: ClientSession, conversation: Conversation, params: dict[str, Any]
    ) -> None:
        """Send the request of ``call`` and pass on what comes of it."""
        try:
            if call.method in conversation.kept_here:
                self._answers.result(call, await conversation.ask(call.method, params))
                return
            flight = await conversation.send(call.method, params)
        except (UpstreamError, TimedOut) as error:
            self._answers.failed(call, error)
            return
        session.runs(call.raw_id, call.member, flight)
        running = Running(call, flight)
        self._upstreams.held.add(running)
        try:
            await self._pass_on(call, session, conversation, flight)
        except asyncio.CancelledError:
            await conversation.cancel(flight, GONE)
            self._answers.gone(call)
            raise
        except (UpstreamError, TimedOut) as error:
            await conversation.cancel(flight, str(error))
            self._answers.failed(call, error)
        except MALFORMED as error:
            await conversation.cancel(flight, "malformed")
            self._answers.failed(call, UpstreamError(f"sent what MCP does not know: {error}"))
        finally:
            self._upstreams.held.discard(running)
            session.forget(flight)
            session.running.pop(call.raw_id, None)

    async def _pass_on(self, call: McpCall, session: ClientSession, conversation: Conversation, flight: Flight) -> None:
        gone = departure(call.exchange)
        most = conversation.route.server.timeout
        silent = 0.0
        while True:
            found: Event | None = await first(_next(flight, KEEP_ALIVE if call.exchange.started else most), gone)
            if found is None and gone.done():
                await conversation.cancel(flight, GONE)
                self._answers.gone(call)
                return
            if flight.over:
                self._answers.error(call, _CANCELLED, "cancelled by the client")
                return
            if found is None:
                silent += KEEP_ALIVE if call.exchange.started else most
                # while the client thinks, its server is not to blame for the silence
                patience = HOLD if flight.asked else most
                if patience and silent >= patience:
                    raise TimedOut(f"gave no sign of life for {patience:g} s")
                await self._write(call, b": keep-alive\n\n")
                continue
            silent = 0.0
            if found.kind == "answer":
                self._answer(call, found.message)
                return
            if found.kind == "end":
                raise found.error or UpstreamError("ended before it answered")
            await self._say(call, session, conversation, flight, found)

    async def _say(
        self, call: McpCall, session: ClientSession, conversation: Conversation, flight: Flight, said: Event
    ) -> None:
        """A notification, or a question under an id that leads back to this call."""
        message = said.message
        if said.kind == "notice":
            params = naming.notice_out(call.member, message.method, message.params)
            await self._write(call, event(jsonrpc.notification(message.method, params)))
            return
        capability = message.method.partition("/")[0]
        if capability not in session.said.capabilities:
            await conversation.refuse(message, f"the client did not declare {capability}")
            return
        key = _key(flight, message)
        flight.asked[key] = message
        ident = session.ask(Asked(conversation, flight, key))
        await self._write(call, event(jsonrpc.request(ident, message.method, message.params)))

    async def _write(self, call: McpCall, data: bytes) -> None:
        exchange = call.exchange
        if not exchange.started:
            exchange.start(200, EVENTS)
        try:
            await exchange.send(data)
        except Disconnected:
            return  # noticed by the loop

    def _answer(self, call: McpCall, message: jsonrpc.Message) -> None:
        body = msgspec.json.encode(jsonrpc.response(Raw(call.raw_id), message.result, message.error))
        if call.transform is not None:
            body = call.transform(body)
        failed = message.error is not UNSET
        result = lists.members(message.result) if isinstance(message.result, Raw) else {}
        outcome = "error" if failed else "tool_error" if result.get("isError") == Raw(b"true") else "ok"
        self._answers.message(call, 200, body)
        self._answers.finish(call, outcome, 200)


async def _next(flight: Flight, seconds: float) -> Event | None:
    """The next event; None after so many silent seconds (0: never)."""
    try:
        async with asyncio.timeout(seconds or None):
            return await flight.take()
    except TimeoutError:
        return None


def _key(flight: Flight, message: jsonrpc.Message) -> str:
    """The key of a question: of a modern server it is in the id, else any will do."""
    raw = message.id if isinstance(message.id, Raw) else Raw(b"0")
    head, slash, key = text_of(raw).partition("/")
    return key if slash and head == flight.id else f"{len(flight.asked)}:{bytes(raw)!r}"
