"""HTTP/1.1 client side of the data path: pooled keep-alive connections on asyncio protocols.

Two ways to use it. The hot path hands :meth:`Pool.send` a :class:`Sink` whose methods are called as bytes arrive, with
no task in between. Everything else awaits :meth:`Pool.request` and reads a :class:`Response`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Any, Protocol, cast

import httptools

from quarterdeck.errors import TimedOut, UpstreamError

from .seen import NAMES, Head, Header, Seen

Origin = tuple[str, int, bool]
"""host, port, TLS; a host starting with ``/`` is a unix socket path."""


_NONE: Any = ()
_HEADER_LIMIT = 256 * 1024  # bytes of one response head
_FLOOD = 64 * 1024  # bytes of one read after which others come first


class Sink(Protocol):
    """Where a response goes. Exactly one of ``on_end`` and ``on_error`` is called, last."""

    def on_head(self, status: int, headers: list[Header]) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_error(self, error: UpstreamError) -> None: ...


class Switching(Sink, Protocol):
    """A sink that can go on with another protocol, when its request asked for one."""

    def on_upgrade(self, headers: list[Header], rest: bytes) -> None:
        """The answer was 101 (instead of all other calls); ``rest`` came after it. Then :meth:`switch`, or the
        connection ends."""
        ...


class ClientConnection(asyncio.Protocol):
    """One connection to an origin; carries one exchange at a time."""

    __slots__ = (
        "_body_bytes", "_got_bytes", "_head_only", "_header_bytes", "_headers", "_lasting", "_parser", "_paused",
        "_sink", "_switched", "_told", "_until_eof", "_upgrade", "closed", "idle_since", "origin", "pool", "reused",
        "transport",
    )  # fmt: skip

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self.pool = pool
        self.origin = origin
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set in connection_made
        self.closed = False
        self.reused = False
        self.idle_since = 0.0
        self._paused = False
        self._until_eof = False
        self._header_bytes = 0
        self._sink: Sink | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[Header] = []
        self._body_bytes = 0
        self._lasting = False  # whether the head just parsed may be remembered
        self._told = False  # whether the sink was told the head
        self._got_bytes = False
        self._head_only = False
        self._upgrade = False
        self._switched: asyncio.Protocol | None = None

    def send(self, sink: Sink, head_and_body: bytes, *, head_only: bool = False, upgrade: bool = False) -> None:
        """``upgrade``: the request asks for another protocol, and ``sink`` is :class:`Switching`."""
        self._sink = sink
        self._got_bytes = False
        self._head_only = head_only
        self._upgrade = upgrade
        self.transport.write(head_and_body)

    def pause(self) -> None:
        """Stop reading from the peer until :meth:`resume` (back-pressure)."""
        if not self.closed and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self.closed and self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _take_turns(self) -> None:
        """Read on after others were served: libuv reads a peer that floods us 32 times in a row, 8 MB."""
        if not (self.closed or self._paused):
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        if not (self.closed or self._paused):
            self.transport.resume_reading()

    def abort(self) -> None:
        """Give the exchange up; the connection cannot be reused."""
        self._sink = None
        self.closed = True
        self.transport.abort()

    # -- asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's class is no subclass of asyncio's

    def switch(self, protocol: asyncio.Protocol) -> None:
        """After a 101: ``protocol`` gets what comes from now on."""
        self._switched = protocol

    def data_received(self, data: bytes) -> None:
        if self._switched is not None:
            self._switched.data_received(data)
            return
        if self._sink is None:
            self.transport.abort()  # bytes nobody asked for: the peer is not in step
            return
        if len(data) >= _FLOOD:
            self._take_turns()
        fresh = not (self._got_bytes or self._head_only or self._upgrade)
        self._got_bytes = True
        if fresh and self._known(data, self._sink):
            return
        try:
            self._parser.feed_data(data)
            if fresh and self._lasting:
                head = Head(self._headers, status=self._parser.get_status_code())
                self.pool.seen.keep(data, self._body_bytes, head)
            elif self._told:
                self._headers = _NONE
        except httptools.HttpParserUpgrade as upgrade:
            sink = self._sink
            if self._upgrade and self._parser.get_status_code() == 101:
                self._sink = None
                cast(Switching, sink).on_upgrade(self._headers, data[int(upgrade.args[0]) :])
                return
            self._fail(f"{self.origin[0]}:{self.origin[1]} switched protocols unasked")
        except httptools.HttpParserError as error:
            self._fail(f"{self.origin[0]}:{self.origin[1]} sent malformed HTTP: {error}")

    def eof_received(self) -> bool:
        return bool(self._switched.eof_received()) if self._switched is not None else False

    def pause_writing(self) -> None:
        if self._switched is not None:
            self._switched.pause_writing()

    def resume_writing(self) -> None:
        if self._switched is not None:
            self._switched.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.pool.forget(self)
        if self._switched is not None:
            self._switched.connection_lost(exc)
        sink, self._sink = self._sink, None
        if sink is not None and self._until_eof and exc is None:
            sink.on_end()
        elif sink is not None:
            state = "in the middle of its response" if self._got_bytes else "before it answered"
            error = UpstreamError(f"{self.origin[0]}:{self.origin[1]} closed the connection {state}")
            error.retryable = self.reused and not self._got_bytes  # type: ignore[attr-defined]  # read by Pool.request
            sink.on_error(error)

    # -- httptools
    def on_message_begin(self) -> None:
        self._headers = []
        self._header_bytes = 0
        self._body_bytes = 0
        self._lasting = False
        self._told = False
        self._until_eof = False
        if self._sink is None:  # a second response to one request: the peer is not in step
            self.closed = True
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _HEADER_LIMIT:
            self._fail(f"{self.origin[0]}:{self.origin[1]} sent a response head larger than {_HEADER_LIMIT} bytes")
            return
        self._headers.append((NAMES.get(name) or name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        sink = self._sink
        if status >= 200 and sink is not None:
            self._until_eof = status not in (204, 304) and not any(
                name == b"content-length" or name == b"transfer-encoding" for name, _ in self._headers
            )
            self._told = True
            sink.on_head(status, self._headers)
            if (
                self._head_only and self._sink is sink
            ):  # llhttp cannot know that no body follows; the connection is not reused
                self.abort()
                sink.on_end()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._sink is not None:
            self._sink.on_body(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        sink, self._sink = self._sink, None
        if self._paused:
            self.resume()
        if self._parser.should_keep_alive() and not self.closed:
            self._lasting = not self._until_eof and self._parser.get_status_code() not in (204, 304)
            self.pool.release(self)
        else:
            self.closed = True
            self.transport.close()
        if sink is not None:
            sink.on_end()

    def _known(self, data: bytes, sink: Sink) -> bool:
        """Take a whole response whose head was seen before."""
        at = data.find(b"\r\n\r\n")
        found = self.pool.seen.find(data, at) if at > 0 else None
        if found is None:
            return False
        sized, varying = found
        if len(data) - at - 4 != sized.length:
            return False
        sink.on_head(sized.head.status, [*sized.headers, *varying] if varying else sized.headers)
        if sized.length and self._sink is sink:
            sink.on_body(data[at + 4 :])
        if self._sink is sink:  # it may have given up in the middle
            self._sink = None
            if self._paused:
                self.resume()
            self.pool.release(self)
            sink.on_end()
        return True

    def _fail(self, message: str) -> None:
        sink, self._sink = self._sink, None
        self.closed = True
        self.transport.abort()
        if sink is not None:
            sink.on_error(UpstreamError(message))


class Response:
    """A response being received. Iterate it for the body, or ``await read()``."""

    def __init__(self, status: int, headers: list[Header], connection: ClientConnection, limit: int) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._done = False
        self._error: UpstreamError | None = None
        self._wake = asyncio.Event()
        self._paused = False

    def header(self, name: bytes) -> bytes | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._size -= len(chunk)
                if self._paused and self._size < 64 * 1024:
                    self._paused = False
                    self._connection.resume()
                yield chunk
            if self._error is not None:
                raise self._error
            if self._done:
                return
            self._wake.clear()
            await self._wake.wait()

    async def read(self, limit: int | None = None) -> bytes:
        """The whole body. Raises UpstreamError when it has more bytes than ``limit``, or than the pool's."""
        most = self._limit if limit is None else min(limit, self._limit)
        parts: list[bytes] = []
        size = 0
        async for chunk in self:
            size += len(chunk)
            if size > most:
                self.close()
                raise UpstreamError(f"answered with more than {most} bytes")
            parts.append(chunk)
        return b"".join(parts)

    def close(self) -> None:
        """Drop what is still to come; ends the connection unless the response is complete."""
        if not self._done:
            self._done = True
            self._connection.abort()
        self._wake.set()

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > 256 * 1024 and not self._paused:
            self._paused = True
            self._connection.pause()
        self._wake.set()

    def end(self, error: UpstreamError | None = None) -> None:
        self._done = True
        self._error = error
        self._wake.set()


class _Awaited:
    """The sink behind :meth:`Pool.request`."""

    def __init__(self, connection: ClientConnection, limit: int) -> None:
        self.connection = connection
        self.limit = limit
        self.head: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.response: Response | None = None

    def on_head(self, status: int, headers: list[Header]) -> None:
        self.response = Response(status, headers, self.connection, self.limit)
        if not self.head.done():
            self.head.set_result(self.response)

    def on_body(self, data: bytes) -> None:
        if self.response is not None:
            self.response.feed(data)

    def on_end(self) -> None:
        if self.response is not None:
            self.response.end()

    def on_error(self, error: UpstreamError) -> None:
        if self.response is not None:
            self.response.end(error)
        elif not self.head.done():
            self.head.set_exception(error)


class Pool:
    """Connections to upstreams, kept open between requests. One per event loop."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        max_idle: int = 64,
        max_idle_seconds: float = 4.0,
        connect_timeout: float = 5.0,
        body_limit: int = 64 * 1024 * 1024,
        refuse: Callable[[str, str, int], str] | None = None,
    ) -> None:
        """``refuse(host, address, port)`` says why the address that a host led to may not be talked to; "" when it may.

        It is asked after the connection is there, so no name can mean one address to it and another to us.
        """
        self._refuse = refuse
        self._tls = tls
        self._server_hostname = server_hostname
        self._max_idle = max_idle
        self._max_idle_seconds = max_idle_seconds  # uvicorn and Node close after 5 s: a request must not cross that
        self._connect_timeout = connect_timeout
        self._body_limit = body_limit
        self._idle: dict[Origin, list[ClientConnection]] = {}
        self.seen = Seen()

    def idle(self, origin: Origin) -> ClientConnection | None:
        """An idle connection, taken out of the pool, or None: then :meth:`connect`."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if monotonic() - connection.idle_since > self._max_idle_seconds:
                connection.transport.close()
            elif not connection.closed and not connection.transport.is_closing():
                connection.reused = True
                return connection
        return None

    async def connect(self, origin: Origin) -> ClientConnection:
        """A new connection. Raises UpstreamError naming the address when nobody answers there."""
        loop = asyncio.get_running_loop()
        host, port, secure = origin
        context = (self._tls or ssl.create_default_context()) if secure else None
        try:
            async with asyncio.timeout(self._connect_timeout):
                if host.startswith("/"):
                    _, protocol = await loop.create_unix_connection(lambda: ClientConnection(self, origin), host)
                else:
                    _, protocol = await loop.create_connection(
                        lambda: ClientConnection(self, origin),
                        host,
                        port,
                        ssl=context,
                        server_hostname=(self._server_hostname or host) if secure else None,
                    )
        except TimeoutError:
            raise UpstreamError(
                f"{host}:{port} did not accept a connection within {self._connect_timeout:g} s"
            ) from None
        except (OSError, ssl.SSLError) as error:
            raise UpstreamError(f"cannot connect to {host}:{port}: {error}") from error
        if self._refuse is not None and not host.startswith("/"):  # sockets are our own children's
            peer: Any = protocol.transport.get_extra_info("peername")
            known = isinstance(peer, tuple)
            reason = self._refuse(host, str(peer[0]), int(peer[1])) if known else "is no network address"
            if reason:
                protocol.transport.abort()
                raise UpstreamError(f"{host}:{port} {reason}")
        return protocol

    async def request(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: list[Header] | tuple[Header, ...] = (),
        body: bytes = b"",
        *,
        timeout: float | None = 30.0,
    ) -> Response:
        """Send one request; returns when the response head is there. ``timeout`` bounds the wait for that head.

        A request that was lost on a reused connection before any answer is sent once more on a new one, as RFC 9112
        §9.3.1 allows for idempotent methods only; other methods raise UpstreamError.
        """
        data = encode_request(method, origin, target, headers, body)
        connection = self.idle(origin)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    if connection is None:
                        connection = await self.connect(origin)
                    sink = _Awaited(connection, self._body_limit)
                    connection.send(sink, data, head_only=method == "HEAD")
                    try:
                        return await sink.head
                    except UpstreamError as error:
                        if getattr(error, "retryable", False) and method in ("GET", "HEAD", "PUT", "DELETE"):
                            connection = None
                            continue
                        raise
                    except asyncio.CancelledError:
                        connection.abort()
                        raise
        except TimeoutError:
            raise TimedOut(
                f"{method} http://{origin[0]}:{origin[1]}{target} gave no answer within {timeout:g} s"
            ) from None

    def release(self, connection: ClientConnection) -> None:
        idle = self._idle.setdefault(connection.origin, [])
        if connection.closed or len(idle) >= self._max_idle:
            connection.transport.close()
        else:
            connection.idle_since = monotonic()
            idle.append(connection)

    def forget(self, connection: ClientConnection) -> None:
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)

    def close(self) -> None:
        for idle in self._idle.values():
            for connection in list(idle):
                connection.transport.close()
        self._idle.clear()


def encode_request(
    method: str, origin: Origin, target: str, headers: list[Header] | tuple[Header, ...], body: bytes
) -> bytes:
    """The request's bytes. Host and Content-Length are added unless given."""
    host = "localhost" if origin[0].startswith("/") else f"{origin[0]}:{origin[1]}"
    parts = [f"{method} {target} HTTP/1.1\r\n".encode("latin-1")]
    if not any(k == b"host" for k, _ in headers):
        parts.append(f"host: {host}\r\n".encode("latin-1"))
    parts.extend(b"%b: %b\r\n" % header for header in headers)
    if body or method not in ("GET", "HEAD", "DELETE"):
        parts.append(b"content-length: %d\r\n" % len(body))
    parts.append(b"\r\n")
    parts.append(body)
    return b"".join(parts)
