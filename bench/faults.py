"""What a broken backend, slow clients and reloads cost the calls to other backends, and what they leave in memory.

One gateway (``-f``) serves a good and a bad backend. The good one's calls are measured (Go, closed loop, 4 connections)
while callers of the bad one go on at a steady rate, its circuit breaker off: that is the worst case. Ratios are to the
same traffic with the bad backend well, in the same run. Without Go nothing is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from . import gotools
from .gateway_rig import body, request
from .measure import ROOT, Figures, Row, rss

WORSE = 2.0
"""Times the p99 that other backends may have while one is broken."""
CALLERS, RATE = 64, 200.0
"""Connections to the bad backend, and calls a second on all of them together."""
SLOW = 5_000
"""Clients that send a head bit by bit and never end it."""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
ANSWER = b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"hello"}],"isError":false}}'
GIB = 1 << 30


@dataclass
class Bad:
    """The backend that is broken in the way its ``mode`` says."""

    mode: str = "well"
    port: int = 0
    asked: int = 0
    server: asyncio.Server | None = None
    waiting: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Nobody listens any more; connections are reset."""
        assert self.server is not None
        self.server.close()
        for writer in list(self.waiting):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.waiting.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                size = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
                await reader.readexactly(size)
                self.asked += 1
                if not await self._answer(reader, writer):
                    break
        self.waiting.discard(writer)
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays."""
        mode = self.mode
        if mode == "hung":
            await reader.read()
        elif mode == "reset":
            return False
        elif mode == "cut off in the middle":
            writer.write(HEAD % (b"text/event-stream", 1000) + b": hello\n\ndata: {")
            await writer.drain()
            return False
        elif mode == "slow":
            for at in range(0, len(ANSWER), 10):
                writer.write((HEAD % (b"application/json", len(ANSWER)) if not at else b"") + ANSWER[at : at + 10])
                await writer.drain()
                await asyncio.sleep(0.02)
            return True
        elif mode == "garbage":
            writer.write(b"Segmentation fault (core dumped)\n")
            await writer.drain()
            return False
        elif mode == "wrong content type":
            writer.write(HEAD % (b"text/html", 5) + b"<b/>\n")
            return True
        elif mode == "half closed":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + ANSWER)
            writer.write_eof()
            await reader.read()
        elif mode in ("answers of 1 GB", *HEAVY):
            head = HEAD % (b"application/json", GIB)
            writer.write(head if mode not in HEAVY else head.replace(b"content-length", b"x-length"))
            for _ in range(GIB >> 16):
                writer.write(b" " * 65_536)
                await writer.drain()
        else:
            writer.write(HEAD % (b"application/json", len(ANSWER)) + ANSWER)
            return True
        return False


HEAVY = ("answers without end",)
MODES = (
    "hung", "reset", "cut off in the middle", "slow", "garbage", "wrong content type", "half closed", "killed",
    "answers of 1 GB", *HEAVY,
)  # fmt: skip


def config(good: int, bad: int, number: int = 0) -> str:
    """A file of today's generation; ``number`` makes another one of it."""

    def route(name: str, port: int) -> dict[str, object]:
        target = {"name": name, "mcp": {"host": f"http://127.0.0.1:{port}/mcp"}}
        policies = {"responseHeaderModifier": {"set": {"x-number": str(number)}}} if name == "bad" else {}
        match = [{"path": {"pathPrefix": f"/{name}"}}]
        return {"name": name, "matches": match, "policies": policies, "backends": [{"mcp": {"targets": [target]}}]}

    routes = [route("good", good), route("bad", bad)]
    return json.dumps({"binds": [{"port": 0, "listeners": [{"name": "web", "routes": routes}]}]})


@dataclass(frozen=True)
class Gateway:
    """The process, the port of its listener and of ``/config_dump``, and its file."""

    pid: int
    port: int
    admin: int
    file: Path


@contextlib.asynccontextmanager
async def serving(text: str) -> AsyncIterator[Gateway]:
    """A gateway process. Raises RuntimeError when it does not start."""
    with tempfile.TemporaryDirectory(prefix="qd-bench-") as name:
        folder = Path(name)
        file, endpoints = folder / "gateway.json", folder / "endpoints.json"
        file.write_text(text)
        flags = [f"--{port}=127.0.0.1:0" for port in ("admin", "stats", "ready")] + ["--local=off", "--workloads=off"]
        flags += [f"--file={file}", "--compat=now", f"--data-dir={folder}/data", f"--endpoints-file={endpoints}"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "quarterdeck.gateway", *flags], stderr=log, cwd=ROOT, env=dict(os.environ)
            )
            try:
                deadline = time.monotonic() + 20.0
                while not endpoints.exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"the gateway did not start: {(folder / 'log').read_text()[-500:]}")
                    await asyncio.sleep(0.05)
                found = {k: int(str(v).rpartition(":")[2]) for k, v in json.loads(endpoints.read_text()).items()}
                web = next(port for listener, port in found.items() if listener.endswith("web"))
                yield Gateway(process.pid, web, found["admin"], file)
            finally:
                process.terminate()
                process.wait()


async def callers(port: int, until: asyncio.Event) -> int:
    """Call the bad backend at :data:`RATE` until told; gives the number of calls. Whoever waits 0.5 s leaves."""
    message = request("/bad", b"", body("user"))
    made = 0

    async def one() -> None:
        nonlocal made
        while not until.is_set():
            made += 1
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(0.5):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    try:
                        writer.write(message)
                        await reader.readuntil(b"\r\n\r\n")
                    finally:
                        writer.transport.abort()
            await asyncio.sleep(CALLERS / RATE)

    await asyncio.gather(*(one() for _ in range(CALLERS)))
    return made


async def beside(command: Path, gateway: Gateway, seconds: float, *, bad: bool = True) -> Figures:
    """Calls to the good backend, with or without those to the bad one at the same time."""
    until = asyncio.Event()
    others = asyncio.create_task(callers(gateway.port, until)) if bad else None
    try:
        return await gotools.load(
            command, gateway.pid, gateway.port, request("/good", b"", body("user")), connections=4, seconds=seconds
        )
    finally:
        until.set()
        if others is not None:
            await others


@contextlib.asynccontextmanager
async def slow_clients(port: int, count: int) -> AsyncIterator[None]:
    """Connections that have sent half a head."""
    writers: list[asyncio.StreamWriter] = []
    for number in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /good HTTP/1.1\r\nhost: localhost\r\nx-a: " + b"y" * (number % 900))
        writers.append(writer)
    try:
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def broken(bad: Bad, mode: str) -> AsyncIterator[None]:
    """The bad backend is; ``killed``: nobody listens there."""
    bad.mode = mode
    if mode == "killed":
        await bad.kill()
    try:
        yield
    finally:
        bad.mode = "well"
        if mode == "killed":
            await bad.start()


@contextlib.asynccontextmanager
async def reloading(gateway: Gateway, ports: tuple[int, int], per_second: float) -> AsyncIterator[None]:
    """Another file and SIGHUP, again and again. Raises RuntimeError when the last one is not what is served then."""
    until, number = asyncio.Event(), 0

    async def change() -> None:
        nonlocal number
        while not until.is_set():
            number += 1
            fresh = gateway.file.with_suffix(".new")
            fresh.write_text(config(*ports, number))
            fresh.replace(gateway.file)
            os.kill(gateway.pid, signal.SIGHUP)
            await asyncio.sleep(1 / per_second)

    changing = asyncio.create_task(change())
    try:
        yield
    finally:
        until.set()
        await changing
    await asyncio.sleep(1.5)
    if f'"{number}"' not in await served(gateway):
        raise RuntimeError(f"the last of {number} files is not what is served")


async def served(gateway: Gateway) -> str:
    """What is served now, as ``/config_dump`` has it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.admin)
    writer.write(b"GET /config_dump HTTP/1.1\r\nhost: localhost:%d\r\nconnection: close\r\n\r\n" % gateway.admin)
    text = (await reader.read()).decode("utf-8", "replace")
    writer.close()
    return text


async def bench(quick: bool) -> list[Row]:
    """Rows; one that says so where there is no Go. Raises RuntimeError when a call to the good backend fails."""
    command = gotools.binary()
    if command is None:
        return [Row(gotools.NO_GO, 0.0, "")]
    seconds, slow = (1.5, SLOW // 10) if quick else (5.0, SLOW)
    bad = Bad()
    await bad.start()
    with gotools.upstream(command) as (_, good):
        ports = good, bad.port
        async with serving(config(*ports)) as gateway:
            alone = await beside(command, gateway, seconds, bad=False)
            well = await beside(command, gateway, seconds)
            rows = [Row("all well: p99, c=4", well.p99, "ms", None, f"without the other's calls {alone.p99:.2f}")]
            start = rss(gateway.pid)

            async def measure(
                what: str, spoilt: contextlib.AbstractAsyncContextManager[None], limit: float | None
            ) -> None:
                """Beside the same traffic with all well just before: machines change from minute to minute."""
                well = await beside(command, gateway, seconds)
                async with spoilt:
                    found = await beside(command, gateway, seconds)
                note = f"{found.p99:.2f} ms ({well.p99:.2f}), {found.rate:,.0f} calls/s ({well.rate:,.0f}); none failed"
                rows.append(Row(f"{what}: p99 of the other, times all well", found.p99 / well.p99, "×", limit, note))

            for mode in MODES:
                await measure(f"backend {mode}", broken(bad, mode), None if mode in HEAVY else WORSE)
            await measure(f"{slow:,} slow clients", slow_clients(gateway.port, slow), WORSE)
            await measure("10 reloads/s", reloading(gateway, ports, 10.0), None)
            grown = rss(gateway.pid) - start
            rows.append(Row("memory after all of it, on top", grown, "MB", 40.0, f"{start:.0f} MB before"))
    await bad.kill()
    return rows
