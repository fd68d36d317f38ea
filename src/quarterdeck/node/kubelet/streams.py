"""The streams of one exec or attach: stdin, stdout, stderr, error and resize, over either transport.

WebSocket: the first byte of a message is the channel; ``v5.channel.k8s.io`` adds 255, close of a channel (KEP-4006).
SPDY/3.1 (what kube-apiserver speaks to kubelets): one SPDY stream each, named by its header ``streamtype``.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from quarterdeck.errors import BadRequest
from quarterdeck.node.kubelet import spdy
from quarterdeck.node.kubelet.channel import Channel, RawChannel
from quarterdeck.node.kubelet.websocket import WebSocket
from quarterdeck.wire.http import Exchange

STDIN, STDOUT, STDERR, ERROR, RESIZE = 0, 1, 2, 3, 4
_CLOSE = 255
_WEBSOCKET_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_SPDY_PROTOCOL = "v4.channel.k8s.io"
_NAMES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}


class Streams(Protocol):
    """``receive`` gives (channel, data), data None at the end of that channel, and None when the peer is gone."""

    async def receive(self) -> tuple[int, bytes | None] | None: ...
    async def send(self, channel: int, data: bytes) -> None: ...
    async def finish(self, status: dict[str, Any]) -> None:
        """Send the v1.Status that ends the session."""
        ...

    def close(self) -> None: ...


async def accept(exchange: Exchange, wanted: set[int]) -> Streams:
    """Answer the upgrade. ``wanted``: the channels the request asks for. Raises BadRequest."""
    upgrade = (exchange.header(b"upgrade") or b"").lower()
    if exchange.upgrade and upgrade == b"websocket":
        return WebSocketStreams(WebSocket(exchange, _WEBSOCKET_PROTOCOLS))
    if exchange.upgrade and upgrade == b"spdy/3.1":
        offered = [v for k, v in exchange.headers if k == b"x-stream-protocol-version"]
        if _SPDY_PROTOCOL.encode() not in {p.strip() for value in offered for p in value.split(b",")}:
            raise BadRequest(f"unable to upgrade: no supported protocol; this kubelet speaks {_SPDY_PROTOCOL}")
        streams = SpdyStreams(RawChannel(exchange, _SPDY_PROTOCOL.encode()), wanted | {ERROR})
        await streams.opened()
        return streams
    raise BadRequest("exec and attach need an upgrade to SPDY/3.1 or a WebSocket with v5.channel.k8s.io")


class WebSocketStreams:
    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> tuple[int, bytes | None] | None:
        while (message := await self._socket.receive()) is not None:
            if not message:
                continue
            if message[0] == _CLOSE:
                return (message[1], None) if len(message) > 1 else None
            return message[0], message[1:]
        return None

    async def send(self, channel: int, data: bytes) -> None:
        await self._socket.send(bytes([channel]) + data)

    async def finish(self, status: dict[str, Any]) -> None:
        await self.send(ERROR, json.dumps(status).encode())

    def close(self) -> None:
        self._socket.close()


class SpdyStreams:
    def __init__(self, channel: Channel, wanted: set[int]) -> None:
        self._channel = channel
        self._wanted = wanted
        self._framer = spdy.Framer()
        self._frames: list[spdy.Frame] = []
        self._ids: dict[int, int] = {}
        self._channels: dict[int, int] = {}

    async def opened(self) -> None:
        """Wait until the client has opened every stream it asked for. Raises BadRequest when it goes away before."""
        held: list[spdy.Frame] = []
        while not self._wanted <= set(self._ids):
            frame = await self._next()
            if frame is None:
                self._channel.close()
                return
            if frame.kind == spdy.SYN_STREAM:
                await self._open(frame)
            else:
                held.append(frame)
        self._frames = held + self._frames

    async def _next(self) -> spdy.Frame | None:
        while not self._frames:
            data = await self._channel.receive()
            if data is None:
                return None
            try:
                self._frames = self._framer.feed(data)
            except ValueError:
                return None
        return self._frames.pop(0)

    async def _open(self, frame: spdy.Frame) -> None:
        name = {k.lower(): v for k, v in frame.headers}.get("streamtype", "")
        if name not in _NAMES or _NAMES[name] in self._ids:
            await self._channel.send(spdy.reset_frame(frame.stream, 1))
            return
        self._ids[_NAMES[name]] = frame.stream
        self._channels[frame.stream] = _NAMES[name]
        await self._channel.send(self._framer.reply(frame.stream))

    async def receive(self) -> tuple[int, bytes | None] | None:
        while (frame := await self._next()) is not None:
            if frame.kind == spdy.PING:
                await self._channel.send(spdy.ping_frame(frame.data))
            elif frame.kind == spdy.SYN_STREAM:
                await self._open(frame)
            elif frame.kind == spdy.DATA and frame.stream in self._channels:
                channel = self._channels[frame.stream]
                if frame.flags & spdy.FIN:
                    if frame.data:
                        self._frames.insert(0, spdy.Frame(spdy.DATA, frame.stream, spdy.FIN))
                        return channel, frame.data
                    return channel, None
                if frame.data:
                    return channel, frame.data
            elif frame.kind == spdy.GOAWAY:
                return None
        return None

    async def send(self, channel: int, data: bytes) -> None:
        if channel in self._ids:
            await self._channel.send(spdy.data_frame(self._ids[channel], data))

    async def finish(self, status: dict[str, Any]) -> None:
        """A success is an empty error stream; then every stream ends."""
        text = json.dumps(status).encode()
        for channel, stream in self._ids.items():
            if channel in (STDOUT, STDERR):
                await self._channel.send(spdy.data_frame(stream, b"", fin=True))
        if ERROR in self._ids:
            await self._channel.send(spdy.data_frame(self._ids[ERROR], text, fin=True))

    def close(self) -> None:
        self._channel.close()
