"""Port-forward: SPDY/3.1 streams, directly or tunnelled in WebSocket messages (KEP-4006), joined to PodIP:port."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from quarterdeck.errors import BadRequest
from quarterdeck.node.kubelet import spdy
from quarterdeck.node.kubelet.channel import Channel, RawChannel
from quarterdeck.node.kubelet.websocket import WebSocket
from quarterdeck.node.worker import PodWorker
from quarterdeck.wire.http import Exchange

TUNNEL = "SPDY/3.1+portforward.k8s.io"
_PROTOCOL = b"portforward.k8s.io"


async def serve_forward(exchange: Exchange, worker: PodWorker) -> None:
    """Serve until the client goes away."""
    upgrade = (exchange.header(b"upgrade") or b"").lower()
    channel: Channel
    if upgrade == b"websocket":
        channel = WebSocket(exchange, (TUNNEL,))
    elif upgrade == b"spdy/3.1":
        channel = RawChannel(exchange, _PROTOCOL)
    else:
        raise BadRequest(f"port-forward needs an upgrade to SPDY/3.1 or a WebSocket with {TUNNEL}")
    session = _Forward(channel, worker)
    try:
        await session.run()
    finally:
        await session.end()
        channel.close()


@dataclass(slots=True)
class _Pair:
    port: int
    error: int = 0
    data: int = 0
    writer: asyncio.StreamWriter | None = None
    early: list[bytes] = field(default_factory=list[bytes])
    finished: bool = False


class _Forward:
    def __init__(self, channel: Channel, worker: PodWorker) -> None:
        self._channel = channel
        self._worker = worker
        self._framer = spdy.Framer()
        self._requests: dict[str, _Pair] = {}
        self._streams: dict[int, _Pair] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while (data := await self._channel.receive()) is not None:
            try:
                frames = self._framer.feed(data)
            except ValueError:
                return
            for frame in frames:
                await self._frame(frame)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _frame(self, frame: spdy.Frame) -> None:
        if frame.kind == spdy.SYN_STREAM:
            await self._open(frame)
        elif frame.kind == spdy.DATA and (pair := self._streams.get(frame.stream)) is not None:
            await self._deliver(pair, frame)
        elif frame.kind == spdy.PING:
            await self._channel.send(spdy.ping_frame(frame.data))
        elif frame.kind == spdy.RST_STREAM and (pair := self._streams.pop(frame.stream, None)) is not None:
            self._closed(pair, frame.stream)

    def _closed(self, pair: _Pair, stream: int) -> None:
        if pair.writer is not None and pair.data == stream:
            pair.writer.close()

    async def _open(self, frame: spdy.Frame) -> None:
        headers = {k.lower(): v for k, v in frame.headers}
        request, port = headers.get("requestid", ""), headers.get("port", "")
        if not port.isdigit() or headers.get("streamtype") not in ("data", "error"):
            await self._channel.send(spdy.reset_frame(frame.stream, 1))
            return
        pair = self._requests.setdefault(request, _Pair(int(port)))
        self._streams[frame.stream] = pair
        await self._channel.send(self._framer.reply(frame.stream))
        if headers["streamtype"] == "error":
            pair.error = frame.stream
            return
        pair.data = frame.stream
        task = asyncio.get_running_loop().create_task(self._carry(request, pair))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, pair: _Pair, frame: spdy.Frame) -> None:
        if pair.data != frame.stream:
            return
        fin = bool(frame.flags & spdy.FIN)
        if pair.writer is None:
            pair.early.append(frame.data)
            pair.finished = fin
            return
        try:
            pair.writer.write(frame.data)
            await pair.writer.drain()
            if fin and pair.writer.can_write_eof():
                pair.writer.write_eof()
        except OSError:
            pair.writer.close()

    async def _carry(self, request: str, pair: _Pair) -> None:
        """Connect to the Pod and copy what it says; the error stream tells the client what went wrong."""
        try:
            reader, writer = await asyncio.open_connection(self._worker.ip, pair.port)
        except OSError as error:
            name = self._worker.pod["metadata"]["name"]
            text = f"error forwarding port {pair.port} to pod {name}: {error.strerror or error}"
            await self._channel.send(spdy.data_frame(pair.error, text.encode(), fin=True))
            await self._channel.send(spdy.data_frame(pair.data, b"", fin=True))
            return
        try:
            writer.write(b"".join(pair.early))
            pair.writer = writer
            if pair.finished:
                writer.write_eof()
            while data := await reader.read(32768):
                await self._channel.send(spdy.data_frame(pair.data, data))
            await self._channel.send(spdy.data_frame(pair.data, b"", fin=True))
            await self._channel.send(spdy.data_frame(pair.error, b"", fin=True))
        except OSError as error:
            await self._channel.send(spdy.data_frame(pair.error, str(error).encode(), fin=True))
        finally:
            writer.close()
            self._requests.pop(request, None)
            self._streams.pop(pair.data, None)
            self._streams.pop(pair.error, None)
