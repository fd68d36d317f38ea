"""Closed-loop HTTP load over kept-alive connections: each sends its request again as soon as it has the answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from .measure import Figures, cpu


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, expected: bytes, latencies: list[float]) -> None:
        self.request = request
        self.expected = expected
        self.latencies = latencies
        self.running = True
        self.buffer = b""
        self.length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.fire()

    def fire(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self._complete():
            return
        if not self.buffer.startswith(b"HTTP/1.1 200") or self.expected not in self.buffer:
            raise AssertionError(f"unexpected answer: {self.buffer[:500]!r}")
        self.latencies.append(time.perf_counter() - self.sent)
        self.buffer = b""
        self.length = 0
        if self.running:
            self.fire()

    def _complete(self) -> bool:
        if not self.length:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return False
            at = self.buffer.find(b"content-length: ", 0, head + 2)
            self.length = head + 4 + int(self.buffer[at + 16 : self.buffer.find(b"\r", at)]) if at > 0 else -1
        return self.buffer.endswith(b"0\r\n\r\n") if self.length < 0 else len(self.buffer) >= self.length


async def run(
    pid: int, port: int, request: bytes, *, connections: int, seconds: float, expected: bytes = b'"hello"'
) -> Figures:
    """Load ``port`` for ``seconds`` after half a second of warm-up; CPU is that of process ``pid``."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    clients: list[Client] = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(request, expected, latencies), "127.0.0.1", port)
        clients.append(client)
    await asyncio.sleep(0.5)
    latencies.clear()
    before, start = cpu(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    used, elapsed, count = cpu(pid) - before, time.perf_counter() - start, len(latencies)
    for client in clients:
        client.running = False
    await asyncio.sleep(0.1)
    for client in clients:
        client.transport.close()
    if not count:
        raise RuntimeError(f"no answer from port {port} within {seconds} s")
    ordered = sorted(latencies[:count])
    return Figures(
        count, count / elapsed, ordered[count // 2] * 1e3, ordered[int(count * 0.99)] * 1e3, used / count * 1e6
    )
