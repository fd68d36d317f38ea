"""Many calls at once while backends fail, configurations, certificates and keys change, and workers are killed.

No call is lost without an error, none is executed twice, nobody gets another's answer, other backends do not notice,
and nothing is left behind. Figures (p99, memory) are measured by ``bench/faults.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.errors import QuarterdeckError
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.options import Options
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Breaker, Policies, Retry
from quarterdeck.telemetry.audit import verify
from quarterdeck.wire.client import Pool

from .conftest import Rig
from .routes.certs import Authority
from .workers.test_supervisor import Running

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
MODES = (
    "ok", "reset", "ok", "cut", "stream", "cut stream", "garbage", "html", "500", "close", "half", "slow", "early",
    "another's",
)  # fmt: skip


class Marked:
    """An MCP server that executes marks, and fails in all ways in turn: before, while and after it executes."""

    def __init__(self, *modes: str) -> None:
        self.modes = modes or ("ok",)
        self.executed: Counter[str] = Counter()
        self.asked = 0
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
                message = msgspec.json.decode(await reader.readexactly(size) or b"{}")
                if not await self._answer(reader, writer, message):
                    break
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: Any) -> bool:
        mode = self.modes[self.asked % len(self.modes)]
        self.asked += 1
        if mode == "early":
            return False
        mark = message["params"]["arguments"]["mark"]
        self.executed[mark] += 1
        ident = message["id"] if mode != "another's" else f"not {message['id']}"
        body = {"jsonrpc": "2.0", "id": ident, "result": {"content": [{"type": "text", "text": mark}]}}
        data, media = msgspec.json.encode(body), b"application/json"
        if mode == "reset":
            return False
        if mode == "slow":
            await asyncio.sleep(0.05)
        if mode in ("stream", "cut stream"):
            data, media = b"event: message\ndata: " + data + b"\n\n", b"text/event-stream"
        if mode in ("cut", "cut stream"):
            writer.write((HEAD % (media, len(data))) + data[: len(data) // 2])
            await writer.drain()
            return False
        if mode == "garbage":
            writer.write(b"\x00\x01not HTTP\r\n\r\n")
            return False
        if mode == "html":
            data, media = b"<html>sorry</html>", b"text/html"
        head = HEAD % (media, len(data))
        writer.write((head.replace(b"200 OK", b"500 Oops") if mode == "500" else head) + data)
        if mode == "half":
            writer.write_eof()
            await reader.read()
            return False
        return mode != "close"


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[Marked]]]:
    made: list[Marked] = []

    async def begin(*modes: str) -> Marked:
        server = Marked(*modes)
        await server.start()
        made.append(server)
        return server

    yield begin
    for server in made:
        server.stop()


def world(number: int = 0, *, https: tuple[str, str] | None = None, **servers: Marked) -> s.Snapshot:
    """Each server behind ``/NAME`` of one listener; retries are allowed, breakers never open; no two are the same."""
    rules = Policies(open=True, retry=Retry(2, backoff=0.001), breaker=Breaker(10**9), max_body=1_000_000 + number)
    known = tuple(
        s.McpServer("ns", name, "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", server.port),), timeout=5.0)
        for name, server in servers.items()
    )
    routes = tuple(
        r.Route(
            f"ns/{name}",
            matches=(r.Match(r.PathMatch("prefix", f"/{name}")),),
            policies=rules,
            backends=(r.RouteBackend(mcp=r.McpBackend(name, (_target(name),)), policies=rules),),
        )
        for name in servers
    )
    secured: dict[str, Any] = {"protocol": "HTTPS", "certificates": (r.Certificate(*https),)} if https else {}
    listener = r.Listener("web", 0, "127.0.0.1", routes=routes, **secured)
    return s.Snapshot(version=f"w{number}", mcp=known, listeners=(listener,))


def _target(name: str) -> r.McpTarget:
    return r.McpTarget(name, f"Target/ns/{name}")


class Caller:
    """Calls marks by name; what came of each is in :attr:`outcomes`."""

    def __init__(self, port: int, pool: Pool | None = None, secure: bool = False) -> None:
        self.origin = ("127.0.0.1", port, secure)
        self.pool = pool or Pool()
        self.outcomes: dict[str, str] = {}

    async def call(self, name: str, mark: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        body = {
            "jsonrpc": "2.0", "id": mark, "method": "tools/call", "params": {"name": "do", "arguments": {"mark": mark}},
        }  # fmt: skip
        lines = [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers]
        lines.append((b"accept", b"application/json, text/event-stream"))
        try:
            response = await self.pool.request(
                "POST", self.origin, f"/{name}", lines, msgspec.json.encode(body), timeout=20
            )
            data = await response.read()
        except QuarterdeckError as error:
            self.outcomes[mark] = f"lost: {error}"
            return
        if (response.header(b"content-type") or b"").startswith(b"text/event-stream"):
            data = next(line[5:] for line in reversed(data.splitlines()) if line.startswith(b"data:"))
        answer = msgspec.json.decode(data)
        assert answer["id"] == mark, f"{mark} was given the answer to {answer['id']}"
        if "result" in answer:
            assert answer["result"]["content"][0]["text"] == mark
        self.outcomes[mark] = "ok" if "result" in answer else "error"

    async def many(self, name: str, calls: int, at_once: int, each: Callable[[int], None] | None = None) -> None:
        numbers = iter(range(calls))

        async def work() -> None:
            for number in numbers:
                if each is not None:
                    each(number)
                await self.call(name, f"{name}-{number}")

        await asyncio.gather(*(work() for _ in range(at_once)))

    def of(self, name: str) -> Counter[str]:
        return Counter(outcome for mark, outcome in self.outcomes.items() if mark.startswith(f"{name}-"))


async def serve(rig: Rig, snapshot: s.Snapshot) -> int:
    rig.gateway.use(snapshot)
    await rig.gateway.listeners.settled()
    return int(rig.gateway.endpoints["web"].rpartition(":")[2])


async def test_every_call_is_answered_and_none_is_executed_twice(bare: Rig, start: Any) -> None:
    bad, good = await start(*MODES), await start("ok", "stream")
    caller = Caller(await serve(bare, world(bad=bad, good=good)))
    await asyncio.gather(caller.many("bad", 280, 16), caller.many("good", 280, 8))
    assert caller.of("good") == {"ok": 280} and len(good.executed) == 280
    found = caller.of("bad")
    assert set(found) == {"ok", "error"} and found["ok"] >= 100 and found["error"] >= 100, found
    assert max((bad.executed + good.executed).values()) == 1
    done = {mark for mark, outcome in caller.outcomes.items() if outcome == "ok"}
    assert done <= {*bad.executed, *good.executed}
    upstreams = bare.gateway.upstreams
    assert not upstreams.in_flight and not upstreams.held and upstreams.collected == 0
    records = [record for record in bare.records() if record["method"] == "tools/call"]
    assert len(records) == 560 and Counter(record["outcome"] for record in records)["ok"] == len(done)
    assert verify(bare.audit_file).ok
    caller.pool.close()


async def test_reloads_lose_nothing_and_leave_nothing(bare: Rig, start: Any) -> None:
    """Every 20 calls another configuration: as 10 a second at 200 calls a second would be."""
    bad, good = await start(*MODES), await start("ok")
    caller = Caller(await serve(bare, world(bad=bad, good=good)))
    gone: list[Any] = []

    def reload(number: int) -> None:
        if number % 20 == 10:
            import weakref

            gone.append(weakref.ref(bare.gateway._router.table))  # pyright: ignore[reportPrivateUsage]
            bare.gateway.use(world(number, bad=bad, good=good))

    await asyncio.gather(caller.many("good", 1000, 8, reload), caller.many("bad", 140, 4))
    assert caller.of("good") == {"ok": 1000} and max(good.executed.values()) == 1 and max(bad.executed.values()) == 1
    assert set(caller.of("bad")) == {"ok", "error"} and len(gone) == 50
    gc.collect()
    assert sum(table() is not None for table in gone) <= 2, "old configurations go when their last call has ended"
    assert not bare.gateway.upstreams.in_flight
    caller.pool.close()


async def test_certificates_change_under_load(bare: Rig, start: Any, tmp_path: Path) -> None:
    good = await start("ok")
    authority = Authority("CA")
    pairs = [authority.sign("localhost") for _ in range(2)]
    trust = ssl.create_default_context(cadata=authority.pem)
    port = await serve(bare, world(https=pairs[0], good=good))
    kept = Caller(port, Pool(tls=trust, server_hostname="localhost"), secure=True)
    fresh = Caller(port, Pool(tls=trust, server_hostname="localhost", max_idle=0), secure=True)

    def rotate(number: int) -> None:
        if number % 10 == 0:
            bare.gateway.use(world(number, https=pairs[number // 10 % 2], good=good))

    await asyncio.gather(kept.many("good", 200, 4, rotate), _numbered(fresh, 60))
    assert kept.of("good") == {"ok": 200} and fresh.of("fresh") == {"ok": 60}
    assert max(good.executed.values()) == 1
    for caller in (kept, fresh):
        caller.pool.close()


async def _numbered(caller: Caller, many: int) -> None:
    for number in range(many):
        await caller.call("good", f"fresh-{number}")


async def test_keys_of_sessions_change_under_load(tmp_path: Path, peer: int) -> None:
    """A new key in front each time, the old one behind it: the session goes on, and is gone with its key."""
    key = tmp_path / "key"
    keys = [bytes([number]) * 32 for number in range(1, 9)]
    key.write_bytes(keys[0])
    zero = ("127.0.0.1", 0)
    config, audit = tmp_path / "snapshot.json", tmp_path / "audit.jsonl"
    config.write_bytes(s.encode(s.Snapshot(version="v0")))
    gateway = Gateway(
        Options(zero, zero, zero, zero, zero, data_dir=tmp_path / "d", config=config, key_file=key, audit_file=audit)
    )
    await gateway.start()
    rig = Rig(gateway, audit)
    server = s.McpServer("kagent", "peer", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", peer),))
    gateway.use(s.Snapshot(version="v1", mcp=(server,), identities=s.Identities(anonymous_local=True)))
    session = await rig.initialize("/mcp/kagent/peer", listener="local")
    headers = {"mcp-session-id": session}
    statuses: Counter[int] = Counter()
    numbers = count(1)

    async def calls(many: int) -> None:
        for _ in range(many):
            body = {"jsonrpc": "2.0", "id": next(numbers), "method": "ping"}
            response = await rig.request("/mcp/kagent/peer", body, listener="local", headers=headers)
            await response.read()
            statuses[response.status] += 1

    for at in range(1, len(keys)):
        key.write_bytes(keys[at] + keys[0])
        gateway._keys.look()  # pyright: ignore[reportPrivateUsage]
        await asyncio.gather(*(calls(4) for _ in range(4)))
    assert statuses == {200: 16 * (len(keys) - 1)}
    key.write_bytes(keys[-1])
    gateway._keys.look()  # pyright: ignore[reportPrivateUsage]
    await calls(1)
    assert statuses[404] == 1
    rig.pool.close()
    await gateway.stop(0.2)


async def test_a_killed_worker_takes_its_calls_along_and_nothing_else(tmp_path: Path, start: Any) -> None:
    """Its connections break, which callers see; no call is executed twice, and the revoked stay so in the new one."""
    slow, good, gone = await start("slow"), await start("ok"), await start("ok")
    running = Running(tmp_path)
    await running.start(world(slow=slow, good=good, gone=gone))
    try:
        await running.ready()
        port = int(running.endpoints["web"].rpartition(":")[2])
        caller = Caller(port, Pool(max_idle=0))
        admin = running.endpoints["admin"].removeprefix("http://").rpartition(":")
        where = (admin[0], int(admin[2]), False)
        host = [(b"host", f"localhost:{admin[2]}".encode())]
        made = await caller.pool.request("POST", where, "/revocations", host, b'{"server":"ns/gone"}')
        assert made.status == 201 and await made.read()
        load = asyncio.gather(caller.many("slow", 120, 12), caller.many("good", 200, 4))
        while slow.asked < 20:
            await asyncio.sleep(0.01)
        os.kill(running.pids()[0], signal.SIGKILL)
        await load
        found = caller.of("slow") + caller.of("good")
        assert found.total() == 320 and max((slow.executed + good.executed).values()) == 1
        lost = [outcome for outcome in caller.outcomes.values() if outcome != "ok"]
        assert all(outcome.startswith("lost: ") for outcome in lost) and 1 <= len(lost) <= 40, found
        async with asyncio.timeout(20):
            while "_workers 2" not in await running.text("stats", "/metrics"):
                await asyncio.sleep(0.05)
        again = Caller(port, Pool(max_idle=0))
        await again.many("good", 40, 4)
        await again.many("gone", 24, 4)
        assert again.of("good") == {"ok": 40} and again.of("gone") == {"error": 24} and not gone.asked
    finally:
        running.process.terminate()
        await running.process.wait()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_other_backends_hardly_notice() -> None:
    """The bench of faults in short: every call to the good backend is answered, with a bound that no machine misses."""
    from bench import faults, gotools

    if gotools.binary() is None:
        pytest.skip(gotools.NO_GO)
    rows = await faults.bench(True)
    slower = {row.what: row.value for row in rows if row.unit == "\u00d7" and row.target is not None}
    assert len(slower) >= 9 and all(ratio < 20 for ratio in slower.values()), slower
    assert rows[-1].unit == "MB" and rows[-1].value < 150
