"""The GET stream of a session with several servers: all of theirs in one, with a bounded memory of what was sent.

Events are numbered; a client that comes back with ``Last-Event-ID`` gets what it missed. While it is away the servers'
streams stay open for a moment, and its memory is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import jsonrpc
from quarterdeck.wire import sse
from quarterdeck.wire.http import Disconnected

from ..upstream import Upstreams
from . import client, ids
from .answers import EVENTS, KEEP_ALIVE, TOOLS_CHANGED, Answers, departure, first
from .call import McpCall
from .conversation import Conversation
from .groups import Member
from .muxrelay import outgoing
from .sessions import ClientSession

EVENTS_KEPT = 256
BYTES_KEPT = 1024 * 1024
"""What is kept of a stream for a client that comes back."""
AWAY = 60.0
"""Seconds the servers' streams stay open for a client that has gone."""
_RETRY = 1.0


class MergedStream:
    """One per session, in the process that owns it. ``close`` ends it; so does a client that stays away."""

    def __init__(self, session: ClientSession, members: list[Member], call: McpCall, upstreams: Upstreams) -> None:
        """``call``: that which asked for it first."""
        self.principal = call.principal
        self.group = call.group
        self.target = ("", "") if call.group.view is None else ("mcp", call.group.view.label)
        self._session = session
        self._upstreams = upstreams
        self._kept: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._number = 0
        self._wake = asyncio.Event()
        self._readers = 0
        self._closed = False
        self._away: asyncio.TimerHandle | None = None
        self._detach: list[Callable[[], None]] = []
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._follow(member)) for member in members if member.name not in session.conversations
        ]
        for member in members:
            conversation = session.conversations.get(member.name)
            if conversation is not None:
                self._listen(member, conversation)
        upstreams.held.add(self)

    async def serve(self, call: McpCall, last: bytes, answers: Answers) -> None:
        """Write to the client of ``call`` what comes, and first what it missed since event ``last``."""
        exchange = call.exchange
        gone = departure(exchange)
        if self._away is not None:
            self._away.cancel()
            self._away = None
        self._readers += 1
        reader = self._readers
        at = int(last) if last.isdigit() else self._number
        exchange.start(200, EVENTS)
        try:
            # an event without data gives the client an id to come back with before anything has happened (SEP-1699)
            await exchange.send(sse.encode(b"", ident=ids.event_out("", b"%d" % at)))
            while not gone.done() and not self._closed and reader == self._readers:
                for number, data in [kept for kept in self._kept if kept[0] > at]:
                    await exchange.send(data)
                    at = number
                self._wake.clear()
                if self._number == at and await first(self._news(), gone) is False:
                    await exchange.send(b": keep-alive\n\n")
            if not gone.done():
                exchange.finish()
        except Disconnected:
            pass
        finally:
            if reader == self._readers and not self._closed:
                self._away = asyncio.get_running_loop().call_later(AWAY, self.close)
            answers.finish(call, "ok", 200)

    def close(self) -> None:
        """End the stream and those of the servers."""
        self._closed = True
        self._wake.set()
        if self._away is not None:
            self._away.cancel()
        for task in self._tasks:
            task.cancel()
        for detach in self._detach:
            detach()
        if self._session.stream is self:
            self._session.stream = None
        self._upstreams.held.discard(self)

    def changed(self) -> None:
        """The tools of its virtual server are others now."""
        self._put(jsonrpc.notification(TOOLS_CHANGED, {}))

    def give_up(self, error: Exception) -> None:
        """The gateway ends the stream."""
        del error
        self.close()

    async def _news(self) -> bool:
        """True when something came, False when it is time for a sign of life."""
        try:
            async with asyncio.timeout(KEEP_ALIVE):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def _put(self, data: bytes) -> None:
        self._number += 1
        encoded = sse.encode(data, event=b"message", ident=ids.event_out("", b"%d" % self._number))
        self._kept.append((self._number, encoded))
        self._bytes += len(encoded)
        while len(self._kept) > EVENTS_KEPT or self._bytes > BYTES_KEPT:
            self._bytes -= len(self._kept.popleft()[1])
        self._wake.set()

    # -- where events come from
    async def _follow(self, member: Member) -> None:
        """The member's own GET stream, opened again when it ends; a server may have none (405)."""
        last = b""
        while not self._closed:
            link = self._session.links.get(member.name)
            origin = member.route.origin(link.origin[0], link.origin[1]) if link is not None else None
            if link is not None and origin is not None:
                link.origin = origin
                try:
                    response = await client.listen(member.route, member.route.lane(self.principal), link, last)
                    if response.status != 200:
                        response.close()
                        if response.status == 405:
                            return
                    else:
                        last = await self._take(member, response, last)
                except (UpstreamError, TimedOut):
                    pass  # tried again below
            await asyncio.sleep(_RETRY)

    async def _take(self, member: Member, response: Any, last: bytes) -> bytes:
        parser = sse.SseParser()
        try:
            async for chunk in response:
                for event in parser.feed(chunk):
                    last = event.id or last
                    if event.data:
                        self._take_one(member, event.data)
        finally:
            response.close()
        return last

    def _take_one(self, member: Member, data: bytes) -> None:
        try:
            self._put(outgoing(member, data))
        except (UpstreamError, *MALFORMED):
            return  # what is no MCP is nothing to pass on

    def _listen(self, member: Member, conversation: Conversation) -> None:
        def tell(message: jsonrpc.Message) -> None:
            if message.method:
                self._take_one(member, jsonrpc.notification(message.method, message.params))

        conversation.attach(tell)
        self._detach.append(lambda: conversation.detach(tell))
