"""Streamable HTTP at ``/mcp`` in front of a stdio server, both protocol eras; ``/health``, ``/ready``, ``/metrics``.

Specification: modelcontextprotocol.io, transports of 2025-11-25 (sessions) and of 2026-07-28 (stateless).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from quarterdeck.errors import QuarterdeckError, UpstreamError
from quarterdeck.mcptypes import ERA_MODERN, era_of, protocol
from quarterdeck.mcptypes.jsonrpc import FramingError, Message, error_response, parse, read
from quarterdeck.wire.http import Exchange

from .frames import encode_line, request_version
from .link import Link
from .processes import Processes
from .reply import Reply, Stream
from .sessions import Session, Sessions
from .stateless import Stateless

_JSON = [(b"content-type", b"application/json")]
_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


class Endpoint:
    """The HTTP handler of the bridge."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.config = processes.config
        self.sessions = Sessions(processes)
        self.requests = 0
        self.failures = 0
        self._stateless = Stateless(processes, self._send_modern)
        self._starting = asyncio.Lock()

    def handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        path = exchange.raw_path.rstrip(b"/")
        if path == b"/mcp":
            return self._mcp(exchange)
        if path == b"/health":
            exchange.respond(200, b"ok\n", _TEXT)
        elif path == b"/ready":
            problem = "" if self.processes.ready else self.processes.last_error or "the server process is starting"
            exchange.respond(503 if problem else 200, (problem or "ok").encode() + b"\n", _TEXT)
        elif path == b"/metrics":
            exchange.respond(200, self._metrics(), _TEXT)
        else:
            exchange.respond(404, b"not here; the MCP endpoint is /mcp\n", _TEXT)
        return None

    async def _mcp(self, exchange: Exchange) -> None:
        if exchange.header(b"origin") is not None:
            exchange.respond(403, b"browsers have no business here; use the gateway\n", _TEXT)
        elif exchange.method == "POST":
            await self._post(exchange)
        elif exchange.method == "GET":
            await self._listen(exchange)
        elif exchange.method == "DELETE":
            session = self._session(exchange)
            if session is not None:
                self.sessions.end(session)
                exchange.respond(200)
        else:
            exchange.respond(405, b"", [(b"allow", b"GET, POST, DELETE")])

    async def _post(self, exchange: Exchange) -> None:
        try:
            message = parse(exchange.body)
        except FramingError as error:
            exchange.respond(400, error_response(b"null", error.code, str(error)), _JSON)
            return
        if request_version(message) is not None or era_of(exchange.header(protocol.H_VERSION)) == ERA_MODERN:
            await self._stateless.post(exchange, message)
        else:
            await self._post_legacy(exchange, message)

    # -- 2025-03-26 … 2025-11-25
    async def _post_legacy(self, exchange: Exchange, message: Message) -> None:
        if message.method == protocol.INITIALIZE and isinstance(message.id, msgspec.Raw):
            await self._initialize(exchange, message)
            return
        session = self._session(exchange)
        if session is None:
            return
        link = session.link
        assert link is not None
        if not message.method:
            known = link.answer(message)
            exchange.respond(202 if known else 400)
        elif isinstance(message.id, msgspec.Raw):
            await self._request(exchange, link, message, session.id, self.config.timeout)
        else:
            if not (self.config.mode == "shared" and message.method == protocol.INITIALIZED):
                link.notify(message, session.id)
            await link.child.drain()
            exchange.respond(202)

    async def _initialize(self, exchange: Exchange, message: Message) -> None:
        assert isinstance(message.id, msgspec.Raw)
        reply = Reply(exchange, bytes(message.id))
        try:
            session = await self.sessions.open()
        except UpstreamError as error:
            reply.on_failure(error)
            return
        reply.session_id = session.id
        stop = reply.starting()
        try:
            if self.config.mode == "shared":
                await self._initialize_shared(reply, session, message)
            else:
                await self._initialize_own(reply, session, message)
        finally:
            stop()

    async def _initialize_own(self, reply: Reply, session: Session, message: Message) -> None:
        """Greet the session's own process; a spare that has ended meanwhile is replaced, once."""
        self.requests += 1
        holder = _Holder(reply)
        for _ in range(2):
            link = session.link
            assert link is not None
            holder = _Holder(reply)
            try:
                link.request(message, holder, session.id, self.config.start_timeout)
                await holder.done.wait()
            except UpstreamError as error:
                holder.on_failure(error)
            if holder.error is None or link.child.alive:
                break
            try:
                await self.sessions.replace(session)
            except UpstreamError as error:
                holder.on_failure(error)
                break
        if holder.error is None:
            reply.on_answer(holder.message)
            return
        self.failures += 1
        reply.on_failure(holder.error)
        self.sessions.end(session)

    async def _initialize_shared(self, reply: Reply, session: Session, message: Message) -> None:
        """The first client's greeting reaches the process; later clients are told what it answered then."""
        link = session.link
        assert link is not None and isinstance(message.id, msgspec.Raw)
        async with self._starting:
            if link.greeting is msgspec.UNSET:
                holder = _Holder(reply)
                link.request(message, holder, session.id, self.config.start_timeout)
                await holder.done.wait()
                answer = read(holder.message)
                if answer is None or answer.result is msgspec.UNSET:
                    self.sessions.end(session)
                    reply.on_failure(holder.error or UpstreamError(f"MCP server {self.config.name} refused initialize"))
                    return
                link.greeting = answer.result
                link.notify(Message(method=protocol.INITIALIZED), session.id)
        assert isinstance(link.greeting, msgspec.Raw)
        reply.on_answer(encode_line(id=message.id, result=link.greeting))

    def _session(self, exchange: Exchange) -> Session | None:
        """The session of the request; answers 400 or 404 itself when there is none."""
        raw = exchange.header(protocol.H_SESSION)
        if raw is None:
            exchange.respond(
                400,
                error_response(b"null", protocol.INVALID_REQUEST, "Mcp-Session-Id is missing; initialize first"),
                _JSON,
            )
            return None
        session = self.sessions.get(raw.decode("latin-1"))
        if session is None:
            text = "unknown or ended session; initialize again"
            exchange.respond(404, error_response(b"null", protocol.INVALID_REQUEST, text), _JSON)
        return session

    async def _listen(self, exchange: Exchange) -> None:
        if era_of(exchange.header(protocol.H_VERSION)) == ERA_MODERN:
            exchange.respond(405, b"", [(b"allow", b"POST")])
            return
        session = self._session(exchange)
        if session is None:
            return
        gone = asyncio.Event()
        exchange.on_disconnect(gone.set)
        stream = Stream(exchange)
        session.attach(stream)
        await gone.wait()
        stream.close()

    # -- both
    async def _request(self, exchange: Exchange, link: Link, message: Message, session: str, timeout: float) -> None:
        assert isinstance(message.id, msgspec.Raw)
        await self._answered(link, message, Reply(exchange, bytes(message.id)), session, timeout)

    async def _send_modern(
        self, exchange: Exchange, link: Link, message: Message, reply: Reply, timeout: float
    ) -> None:
        """A stateless client cancels by closing the connection."""

        def on_sent(number: int) -> None:
            exchange.on_disconnect(lambda: link.cancel(number, "the client closed the connection"))
            exchange.on_disconnect(reply.done.set)

        await self._answered(link, message, reply, "", timeout, on_sent)

    async def _answered(
        self,
        link: Link,
        message: Message,
        reply: Reply,
        session: str,
        timeout: float,
        on_sent: Callable[[int], None] | None = None,
    ) -> None:
        self.requests += 1
        try:
            number = link.request(message, reply, session, timeout)
        except QuarterdeckError as error:
            self.failures += 1
            reply.on_failure(error)
            return
        if on_sent is not None:
            on_sent(number)
        await link.child.drain()
        await reply.done.wait()
        if reply.failed:
            self.failures += 1

    def _metrics(self) -> bytes:
        values = (
            ("quarterdeck_bridge_requests_total", "counter", self.requests),
            ("quarterdeck_bridge_request_errors_total", "counter", self.failures),
            ("quarterdeck_bridge_sessions", "gauge", len(self.sessions)),
            ("quarterdeck_bridge_process_starts_total", "counter", self.processes.starts),
            ("quarterdeck_bridge_process_crashes_total", "counter", self.processes.crashes),
            ("quarterdeck_bridge_ready", "gauge", int(self.processes.ready)),
        )
        return "".join(f"# TYPE {name} {kind}\n{name} {value}\n" for name, kind, value in values).encode()


class _Holder:
    """Receives an answer the bridge itself keeps; what comes before it is the caller's."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.message = b""
        self.error: QuarterdeckError | None = None
        self.done = asyncio.Event()

    def on_interim(self, message: bytes) -> None:
        self._reply.on_interim(message)

    def on_answer(self, message: bytes) -> None:
        self.message = message
        self.done.set()

    def on_failure(self, error: QuarterdeckError) -> None:
        self.error = error
        self.done.set()
