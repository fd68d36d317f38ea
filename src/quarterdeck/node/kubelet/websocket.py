"""Server side of a WebSocket over a hijacked connection, by the sans-I/O protocol of ``websockets``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from quarterdeck.errors import BadRequest
from quarterdeck.wire.http import Exchange

_SUBPROTOCOL = b"sec-websocket-protocol"


class WebSocket(asyncio.Protocol):
    """Binary messages both ways. ``receive()`` gives None when the peer has closed.

    The first of ``protocols`` that the peer offers is spoken; raises BadRequest when it offers none. It is chosen here
    because Kubernetes' ``SPDY/3.1+portforward.k8s.io`` is no token of RFC 6455, so ``websockets`` refuses the header.
    """

    def __init__(self, exchange: Exchange, protocols: Sequence[str]) -> None:
        head = [b"%b %b HTTP/1.1" % (exchange.method.encode(), exchange.target)]
        head += [b"%b: %b" % pair for pair in exchange.headers if pair[0] != _SUBPROTOCOL]
        offered = {p.strip() for k, v in exchange.headers if k == _SUBPROTOCOL for p in v.decode("latin-1").split(",")}
        self.subprotocol = next((p for p in protocols if p in offered), "")
        if not self.subprotocol:
            raise BadRequest(
                f"WebSocket handshake: offer one of the subprotocols {', '.join(protocols)} in Sec-WebSocket-Protocol"
            )
        self._protocol = ServerProtocol(max_size=16 << 20)
        self._protocol.receive_data(b"\r\n".join(head) + b"\r\n\r\n")
        events = self._protocol.events_received()
        if not events or not isinstance(events[0], Request):
            raise BadRequest("malformed WebSocket handshake")
        response = self._protocol.accept(events[0])
        if response.status_code != 101:
            raise BadRequest(f"WebSocket handshake: {(response.body or b'').decode(errors='replace')}")
        response.headers["Sec-WebSocket-Protocol"] = self.subprotocol
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._queued = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._message = bytearray()
        self.closed = False
        self._transport, install, rest = exchange.hijack()
        self._protocol.send_response(response)
        self._flush()
        install(self)
        if rest:
            self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                self._message += event.data
                if event.fin:
                    self._queue.put_nowait(bytes(self._message))
                    self._queued += len(self._message)
                    self._message.clear()
        if self._queued > 1 << 20:
            self._transport.pause_reading()
        self._flush()
        if self._protocol.state is not State.OPEN:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def receive(self) -> bytes | None:
        data = await self._queue.get()
        if data is not None:
            self._queued -= len(data)
            if self._queued <= 1 << 20 and not self.closed:
                self._transport.resume_reading()
        return data

    async def send(self, data: bytes) -> None:
        if self.closed:
            return
        self._protocol.send_binary(data)
        self._flush()
        await self._writable.wait()

    def close(self) -> None:
        if not self.closed and self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._flush()
        self._transport.close()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.write_eof() if self._transport.can_write_eof() else self._transport.close()

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            self._writable.set()
            self._queue.put_nowait(None)
