"""What an upgraded connection carries: bytes both ways, over a WebSocket or the connection itself."""

from __future__ import annotations

import asyncio
from typing import Protocol

from quarterdeck.wire.http import Exchange

_QUEUE_LIMIT = 1 << 20


class Channel(Protocol):
    """Bytes both ways: a :class:`~quarterdeck.node.kubelet.websocket.WebSocket`, or the upgraded connection itself."""

    async def receive(self) -> bytes | None: ...
    async def send(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class RawChannel(asyncio.Protocol):
    """The connection after ``Upgrade: SPDY/3.1`` as a :class:`Channel`; reads no faster than it is asked."""

    def __init__(self, exchange: Exchange, protocol: bytes) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._queued = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport, install, rest = exchange.hijack()
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            b"X-Stream-Protocol-Version: %b\r\n\r\n" % protocol
        )
        if rest:
            self.data_received(rest)
        install(self)

    def data_received(self, data: bytes) -> None:
        self._queue.put_nowait(data)
        self._queued += len(data)
        if self._queued > _QUEUE_LIMIT:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._writable.set()
        self._queue.put_nowait(None)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def receive(self) -> bytes | None:
        data = await self._queue.get()
        if data is not None:
            self._queued -= len(data)
            if self._queued <= _QUEUE_LIMIT and not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    async def send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
            await self._writable.wait()

    def close(self) -> None:
        self._transport.close()
