"""Relaying an upgraded connection (WebSocket or SPDY alike) as raw bytes, with back-pressure both ways."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

import httptools

from quarterdeck.errors import ApiError, BadRequest, InternalError, api_error_from_status
from quarterdeck.wire.http import Exchange

_FORWARDED = (b"connection", b"upgrade", b"x-stream-protocol-version")
_WEBSOCKET = b"sec-websocket-"
_HEAD_LIMIT = 64 * 1024
_BODY_LIMIT = 64 * 1024
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0


class _Side(asyncio.Protocol):
    """One of the two connections: what it receives goes to ``other``, whose speed it follows."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.done = done
        self.transport: asyncio.Transport | None = None
        self.other: asyncio.Transport | None = None

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.is_closing():
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.is_closing():
            self.other.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.other is not None:
            self.other.close()  # flushes what is buffered first
        if not self.done.done():
            self.done.set_result(None)


class _Upstream(_Side):
    """The connection to the kubelet: first its answer, parsed; after a 101 only bytes."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        super().__init__(done)
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.head = b""
        self.body = b""
        self.early = b""
        self._raw = b""
        self._status = 0
        self._parsing = False
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)
        elif self.answer.done():
            self.early += data
            if len(self.early) > _HEAD_LIMIT and self.transport is not None:
                self.transport.pause_reading()
        else:
            self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            if self._status:
                self.answer.set_result(self._status)
            else:
                self.answer.set_exception(InternalError("error dialing backend: the kubelet closed the connection"))
        super().connection_lost(exc)

    def on_body(self, body: bytes) -> None:
        self.body = (self.body + body)[:_BODY_LIMIT]

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        if self._status != 101 and not self.answer.done():
            self.answer.set_result(self._status)

    def _feed(self, data: bytes) -> None:
        """Until the head is complete bytes are kept raw: a 101 is passed on as it came, anything else is parsed."""
        if not self._parsing:
            self._raw += data
            head, separator, rest = self._raw.partition(b"\r\n\r\n")
            if not separator:
                if len(self._raw) > _HEAD_LIMIT:
                    self.answer.set_exception(InternalError("error dialing backend: the kubelet's answer is too long"))
                return
            if head[9:12] == b"101":
                self.head, self.early = head + separator, rest
                self.answer.set_result(101)
                return
            self._parsing, data = True, self._raw
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.answer.set_exception(InternalError(f"error dialing backend: malformed answer of the kubelet: {error}"))


async def relay_upgrade(exchange: Exchange, origin: tuple[str, int, bool], target: str, tls: ssl.SSLContext) -> None:
    """Ask ``origin`` for the same upgrade and join the two connections until either side ends.

    Raises BadRequest when the request is no upgrade, InternalError when the peer cannot be reached, and the peer's
    refusal as ApiError; nothing has been sent to the client then.
    """
    if not exchange.upgrade:
        raise BadRequest("Upgrade request required")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    upstream = _Upstream(done)
    host, port, secure = origin
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await loop.create_connection(lambda: upstream, host, port, ssl=tls if secure else None)
    except TimeoutError:
        raise InternalError(f"error dialing backend: {host}:{port} did not answer in {_CONNECT_SECONDS:g} s") from None
    except (OSError, ssl.SSLError) as error:
        raise InternalError(f"error dialing backend: dial tcp {host}:{port}: {error}") from error
    transport = cast(asyncio.Transport, upstream.transport)
    try:
        transport.write(_request(exchange, origin, target))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                status = await upstream.answer
        except TimeoutError:
            raise InternalError(f"error dialing backend: {host}:{port} did not accept the upgrade") from None
        if status != 101:
            raise refusal(status, upstream.body)
        _join(exchange, upstream, done)
        await done
    finally:
        transport.close()


def refusal(status: int, body: bytes) -> ApiError:
    """The kubelet's error as the API server passes it on: its text, its status."""
    text = body.decode("utf-8", "replace").strip() or f"the kubelet answered with status {status}"
    if status == 500:
        text = f"Internal error occurred: {text}"
    reason = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}.get(status, "InternalError")
    return api_error_from_status({"message": text, "reason": reason, "code": status if status >= 400 else 500})


def _request(exchange: Exchange, origin: tuple[str, int, bool], target: str) -> bytes:
    parts = [f"{exchange.method} {target} HTTP/1.1\r\nhost: {origin[0]}:{origin[1]}\r\n".encode("latin-1")]
    for key, value in exchange.headers:
        if key == b"sec-websocket-protocol":  # a browser's bearer token in this list must not reach the kubelet
            offered = [p.strip() for p in value.split(b",")]
            value = b", ".join(p for p in offered if not p.startswith(b"base64url.bearer."))
        if (key in _FORWARDED or key.startswith(_WEBSOCKET)) and value:
            parts.append(b"%b: %b\r\n" % (key, value))
    if exchange.method != "GET":
        parts.append(b"content-length: 0\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def _join(exchange: Exchange, upstream: _Upstream, done: asyncio.Future[None]) -> None:
    client_transport, install, rest = exchange.hijack()
    transport = cast(asyncio.Transport, upstream.transport)
    client = _Side(done)
    client.transport, client.other = client_transport, transport
    client_transport.write(upstream.head + upstream.early)
    upstream.other = client_transport
    upstream.early = b""
    if rest:
        transport.write(rest)
    if transport.is_closing():
        client_transport.close()
        return
    transport.resume_reading()
    install(client)
