"""One connection of a listener: an asyncio protocol around httptools (llhttp)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from sys import intern
from typing import TYPE_CHECKING, Any, cast

import httptools

from .exchange import Exchange, Header
from .limits import Disconnected
from .seen import NAMES, Head
from .status import refusal

if TYPE_CHECKING:
    from .http import Server

_HIGH_WATER = 256 * 1024
_FRAMING = 1024 * 1024
"""Bytes of chunk extensions and trailers that a request may have besides 16 for each byte of its body."""
_BLANKS = (b" ", b"\t")
_NOTHING: Any = ()
"""What connections have in place of lists that are empty: nobody can add to it by mistake."""
_CORK = 64 * 1024  # bytes of a streamed response gathered before they are written in the middle of a loop iteration


class ServerConnection(asyncio.Protocol):
    """One accepted connection. Ten thousand of them may be idle: what is seldom needed is made when it is."""

    __slots__ = (
        "_backlog", "_between", "_body", "_body_bytes", "_chunk", "_corked", "_corked_bytes", "_current", "_ended",
        "_exempt", "_head_bytes", "_header_limit", "_headers", "_held", "_hijacked", "_in_head", "_lasting",
        "_metered", "_parser", "_partial", "_queue", "_received", "_refused", "_target", "_task", "_unsent",
        "_upgraded", "_upgrading", "_waiting", "closed", "deadline", "peer", "server", "transport", "writable",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set in connection_made
        self.peer: tuple[str, int] | None = None
        self.closed = False
        self._parser: Any = None  # made when there is something to parse
        self._target = b""
        self._headers: list[Header] = _NOTHING
        self._head_bytes = 0  # received before the current chunk while the head is not complete
        self._chunk = 0  # bytes that the parser is being fed
        self._in_head = True
        self._between = True  # no byte of the next request has come
        self._lasting = False  # whether the head just parsed may be remembered
        self._header_limit = server.limits.header_bytes
        self._body: list[bytes] = _NOTHING
        self._body_bytes = 0
        self._metered = server.limits.bodies_bytes > 0
        self._held = 0  # bytes of bodies that count against that bound
        self._received = 0  # since the head of the current request was complete
        self._upgrading = False
        self._current: Exchange | None = None
        self._queue: list[Exchange] = _NOTHING
        self._task: asyncio.Task[None] | None = None
        self.deadline = 0.0  # loop time at which the connection is closed; 0 = none
        self.writable = True  # False while the client reads slower than we write
        self._waiting: asyncio.Event | None = None  # of who waits for that to change
        self._refused = False
        self._upgraded: asyncio.Protocol | None = None
        self._hijacked = False
        self._backlog: list[bytes] = _NOTHING
        self._corked: list[bytes] = _NOTHING
        self._corked_bytes = 0
        self._unsent = 0  # bytes the client had not taken when we last looked, while it is slow
        self._partial = False  # whether a part of the current response is on its way
        self._ended = False
        self._exempt = False

    # -- asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's class is no subclass of asyncio's
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        peer: Any = transport.get_extra_info("peername")
        if isinstance(peer, tuple) and len(peer) >= 2:
            self.peer = (intern(str(peer[0])), int(peer[1]))
        self.server.opened(self)
        self._arm(self.server.limits.header_timeout)

    def data_received(self, data: bytes) -> None:
        if self._hijacked or self._upgrading:
            self._keep_for_upgrade(data)
            return
        if self._refused:
            return
        fresh = self._between
        if fresh and self._known(data):
            return
        self._chunk = len(data)
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
            if self._in_head:
                self._head_bytes += self._chunk
                if self._metered and self._target:
                    self._hold(self._chunk)
                if self._head_bytes > self._header_limit and self._target:
                    self._refuse_head()
            else:
                self._received += self._chunk
                if self._received > _FRAMING + 16 * self._body_bytes:
                    self._refuse(400, "malformed HTTP request: more framing than body")
            if fresh and self._lasting and self._between and self._headers and parser.get_method() == b"POST":
                head = Head(self._headers, method="POST", target=self._target)
                self.server.seen.keep(data, self._body_bytes, head)
        except httptools.HttpParserUpgrade as upgrade:
            self._keep_for_upgrade(data[int(upgrade.args[0]) :])
        except httptools.HttpParserError as error:
            self._refuse(400, f"malformed HTTP request: {error}")
        self._chunk = 0

    def eof_received(self) -> bool:
        if self._upgraded is not None:
            return bool(self._upgraded.eof_received())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._release()
        self._caught_up()
        self._disarm()
        self._wake()
        if self._upgraded is not None:
            self._upgraded.connection_lost(exc)
        if self._current is not None:
            self._current.lost()
        if self._task is not None:
            self._task.cancel()
        self.server.lost(self)

    def pause_writing(self) -> None:
        self.writable = False
        if not self._hijacked:
            self._fall_behind()
        if self._current is not None and self._current.flow is not None:
            self._current.flow.pause()
        if self._upgraded is not None:
            self._upgraded.pause_writing()

    def resume_writing(self) -> None:
        self._wake()
        behind = self._unsent > 0
        self._caught_up()
        if self._current is not None and self._current.flow is not None:
            self._current.flow.resume()
        if self._upgraded is not None:
            self._upgraded.resume_writing()
        if behind and not self._ended:
            self._disarm()
            if self._current is None:
                self._next()

    # -- httptools callbacks
    def on_message_begin(self) -> None:
        self._between = False
        self._lasting = False
        self._target = b""
        self._headers = []
        self._head_bytes = 0
        self._in_head = True
        self._body = []
        self._body_bytes = 0
        self._received = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # trailer fields are dropped: taken for headers they would get round whoever checked those (RFC 9110 §6.5.1)
        if self._in_head:  # llhttp leaves the white space after a value (RFC 9112 §5.1)
            self._headers.append(
                (NAMES.get(name) or name.lower(), value if value[-1:] not in _BLANKS else value.rstrip(b" \t"))
            )

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._refused:
            return
        if self._head_too_large():
            self._refuse_head()
            return
        for name, value in self._headers:
            if name == b"content-length" and value.isdigit() and int(value) > self.server.limits.body_bytes:
                self._refuse(413, f"request body is larger than {self.server.limits.body_bytes} bytes")
                return
            if name == b"expect" and value.lower() == b"100-continue" and self._current is None:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._arm(self.server.limits.body_timeout)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self.server.limits.body_bytes:
            self._refuse(413, f"request body is larger than {self.server.limits.body_bytes} bytes")
        elif not self._refused:
            self._body.append(body)
            if self._metered:
                self._hold(len(body))

    def on_message_complete(self) -> None:
        if self._refused:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        exchange = Exchange(
            self,
            self._parser.get_method().decode("ascii"),
            self._target,
            self._headers,
            body,
            self._parser.should_keep_alive() and not self.server.draining,
        )
        exchange.old = self._parser.get_http_version() == "1.0"
        if self._parser.should_upgrade():
            # what follows may be another protocol: if nobody takes the connection over, it ends with the response
            exchange.upgrade = self._upgrading = True
            exchange.keep_alive = False
        self._between = True
        self._lasting = exchange.keep_alive and not exchange.old
        self._arrived(exchange)

    # -- what an Exchange calls
    def rest(self) -> None:
        """A response has begun that may take long: nothing is kept of the request that was parsed last."""
        if self._between and not self._upgrading and not self._chunk:
            self._parser = None
            self._headers = self._body = _NOTHING

    def write(self, data: bytes) -> None:
        if self._corked:
            self.flush()
        if not self.closed and not self.transport.is_closing():
            self.transport.write(data)

    def answer(self, data: bytes) -> None:
        """The end of a response: sent now, or after the server's barrier with all others of this loop iteration."""
        if self.server.barrier is not None:
            if data:
                self.cork(data)
        elif self._corked:
            self._corked.append(data)
            self.flush()
        elif data:
            self.write(data)

    def cork(self, data: bytes) -> None:
        """Write together with what follows in this loop iteration: uvloop makes a system call of every write."""
        if self._corked:
            self._corked.append(data)
        else:
            self.server.corked(self)
            self._corked = [data]
        self._corked_bytes += len(data)
        if self._corked_bytes >= _CORK:
            self.flush()

    def flush(self) -> None:
        """Send what is corked, in the middle of an iteration."""
        if self._corked:
            barrier = self.server.barrier
            self.release(barrier is None or barrier())

    def release(self, passed: bool) -> None:
        """Send what is corked; where the barrier was not ``passed``, the client gets 503 or a broken stream instead."""
        if not self._corked:
            return
        data = b"".join(self._corked)
        self._corked = _NOTHING
        self._corked_bytes = 0
        if self.closed or self.transport.is_closing():
            return
        exempt, self._exempt = self._exempt, False
        if passed or exempt:
            current = self._current
            self._partial = current is not None and current.started
            self.transport.write(data)
            if self._ended:
                self._close()
        elif self._partial or (self._current is not None and self._current.started):
            self.transport.abort()
        else:
            self.transport.write(refusal(503, *self.server.error_body(503, "the answer could not be recorded")))
            self.transport.close()

    def pass_barrier(self) -> None:
        """What is corked next goes out whatever the barrier says."""
        self._exempt = not self._corked

    def end(self) -> None:
        """Close after what is corked."""
        self._ended = True
        if not self._corked:
            self._close()

    async def drain(self) -> None:
        while not (self.writable or self.closed):
            if self._waiting is None:
                self._waiting = asyncio.Event()
            await self._waiting.wait()
        if self.closed:
            raise Disconnected("client closed the connection")

    def exchange_done(self, exchange: Exchange) -> None:
        if exchange is not self._current:
            return
        self._current = None
        self._task = None
        if self._held and not self._queue:
            self._release()
        if not exchange.keep_alive:
            self.end()
        elif not self._unsent:  # else: when the client has taken what it was given
            self._next()

    def _next(self) -> None:
        """Nothing is under way: serve the request that waits, or wait for one."""
        if self._queue:
            self.transport.resume_reading()
            self._dispatch(self._queue.pop(0))
        else:
            self._arm(self.server.limits.idle_timeout)

    def hijack(self) -> tuple[asyncio.Transport, Callable[[asyncio.Protocol], None], bytes]:
        self.flush()
        self._hijacked = True
        self._disarm()
        self.transport.resume_reading()
        self._current = None
        rest = b"".join(self._backlog)
        self._backlog = _NOTHING

        def install(protocol: asyncio.Protocol) -> None:
            self._upgraded = protocol
            late, self._backlog = self._backlog, _NOTHING
            for data in late:
                protocol.data_received(data)

        return self.transport, install, rest

    def drain_and_close(self) -> None:
        """Close when idle; a request in flight is finished first."""
        if self._current is None and not self._hijacked:
            self.end()
        elif self._current is not None:
            self._current.keep_alive = False

    def _keep_for_upgrade(self, data: bytes) -> None:
        if self._upgraded is not None:
            self._upgraded.data_received(data)
        else:
            if not self._backlog:
                self._backlog = []
            self._backlog.append(data)
            if sum(map(len, self._backlog)) > _HIGH_WATER and not self._hijacked:
                self.transport.pause_reading()

    # -- inside
    def _wake(self) -> None:
        self.writable = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.set()

    def _known(self, data: bytes) -> bool:
        """Take a whole request whose head was seen before."""
        at = data.find(b"\r\n\r\n")
        found = self.server.seen.find(data, at) if at > 0 else None
        if found is None:
            return False
        sized, varying = found
        size = sized.length
        if len(data) - at - 4 != size or size > self.server.limits.body_bytes:
            return False
        if self._metered:
            self._hold(len(data))
            if self._refused:
                return True
        head = sized.head
        headers, fields = sized.headers, sized.fields
        if varying is not None:
            headers = [*headers, *varying]
            fields = {**fields, **dict(varying)}
        exchange = Exchange(self, head.method, head.target, headers, data[at + 4 :], not self.server.draining)
        exchange.context = fields
        exchange.head = head
        self._arrived(exchange)
        return True

    def _arrived(self, exchange: Exchange) -> None:
        if self._current is None and not self._unsent:
            self.deadline = 0.0
            self._dispatch(exchange)
        else:
            self._disarm()
            if not self._queue:
                self._queue = []
            self._queue.append(exchange)
            if len(self._queue) > 16:
                self.transport.pause_reading()

    def _dispatch(self, exchange: Exchange) -> None:
        self._current = exchange
        try:
            coroutine = self.server.handler(exchange)
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001 - as in _run: answered and reported, never lost in the parser
            self._broken(exchange, error)
            return
        if coroutine is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(exchange, coroutine))

    async def _run(self, exchange: Exchange, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Disconnected:
            return
        except asyncio.CancelledError:
            if self.closed:
                return
            raise
        except Exception as error:  # noqa: BLE001 - the last line of defence: the client gets an answer, the owner gets the traceback
            self._broken(exchange, error)

    def _broken(self, exchange: Exchange, error: Exception) -> None:
        self.server.on_error(exchange, error)
        if not exchange.started:
            media, body = self.server.error_body(500, "internal error")
            exchange.respond(500, body, [(b"content-type", media)])
        elif not exchange.finished:
            exchange.abort()

    def _head_too_large(self) -> bool:
        """Counted exactly only when the bytes received could be too many."""
        if self._head_bytes + self._chunk <= self._header_limit:
            return False
        return len(self._target) + sum(len(k) + len(v) + 4 for k, v in self._headers) > self._header_limit

    def _hold(self, size: int) -> None:
        server = self.server
        if server.held + size > server.limits.bodies_bytes:
            self._body = []
            self._release()
            self._refuse(503, "busy with the bodies of other requests; try again")
        else:
            server.held += size
            self._held += size

    def _release(self) -> None:
        self.server.held -= self._held
        self._held = 0

    def _refuse_head(self) -> None:
        self._refuse(431, f"request head is larger than {self._header_limit} bytes")

    def _refuse(self, status: int, message: str) -> None:
        if self._refused or self.closed or self.transport.is_closing():
            return
        self._refused = True
        if self._current is not None:  # its response must not be broken into; the connection ends with it
            self._queue = _NOTHING
            self._current.keep_alive = False
            return
        self.write(refusal(status, *self.server.error_body(status, message)))
        self.transport.close()

    def _arm(self, seconds: float) -> None:
        """Not while the client is behind: nothing it sends wins it time."""
        if not self._unsent:
            self.deadline = self.server.clock() + seconds if seconds else 0.0

    def _disarm(self) -> None:
        self._arm(0.0)

    def _fall_behind(self) -> None:
        """The client takes what it gets slower than it comes."""
        server = self.server
        self._caught_up()
        self._arm(server.limits.write_timeout)
        self._unsent = self.transport.get_write_buffer_size()
        server.unsent += self._unsent
        if 0 < server.limits.unsent_bytes < server.unsent:
            self.transport.abort()

    def _caught_up(self) -> None:
        self.server.unsent -= self._unsent
        self._unsent = 0

    def _close(self) -> None:
        """After what is still to be sent: a client that does not take it must not keep the connection."""
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._fall_behind()

    def expire(self) -> None:
        """The peer took too long: to send its request, to send another one, or to take its response."""
        before, now = self._unsent, self.transport.get_write_buffer_size()
        if not now or not self.server.limits.write_timeout:
            self.transport.close()
        elif before and now >= before:
            self.transport.abort()
        else:
            self._fall_behind()
