"""Two workers as one gateway, in real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.errors import UpstreamError
from quarterdeck.gateway.options import parse
from quarterdeck.snapshot import policies as p
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Policies
from quarterdeck.wire.client import Pool, Response

SAYS = Policies(direct_response=p.DirectResponse(200, "here"))
LISTENER = r.Listener("web", 0, "127.0.0.1", routes=(r.Route("default/r", policies=SAYS),))


class Running:
    """A supervisor and its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: asyncio.subprocess.Process = None  # type: ignore[assignment]  # set in start
        self.endpoints: dict[str, Any] = {}

    async def start(self, snapshot: s.Snapshot, *flags: str) -> None:
        (self.folder / "snapshot.json").write_bytes(msgspec.json.encode(snapshot))
        await self.run(f"--config={self.folder / 'snapshot.json'}", *flags)

    async def run(self, *flags: str) -> None:
        zero = [f"--{name}=127.0.0.1:0" for name in ("local", "workloads", "stats", "ready", "admin")]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "quarterdeck.gateway", *zero, "--workers=2",
            f"--data-dir={self.folder / 'data'}", f"--endpoints-file={self.folder / 'endpoints.json'}",
            *flags, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def ready(self) -> None:
        assert self.process.stderr is not None
        async with asyncio.timeout(20):
            async for line in self.process.stderr:
                if line.startswith(b"{"):
                    break
        self.endpoints = msgspec.json.decode((self.folder / "endpoints.json").read_bytes())

    async def ask(self, listener: str, target: str = "/", method: str = "GET") -> Response:
        """On a connection of its own."""
        host, _, port = self.endpoints[listener].removeprefix("http://").rpartition(":")
        pool = Pool(max_idle=0)
        return await pool.request(method, (host, int(port), False), target, timeout=60)

    async def text(self, listener: str, target: str = "/") -> str:
        return (await (await self.ask(listener, target)).read()).decode()

    async def rpc(self, listener: str, path: str, method: str, params: Any, session: str = "") -> tuple[str, Any]:
        """Session and answer of one MCP request, on a connection of its own."""
        host, _, port = self.endpoints[listener].removeprefix("http://").rpartition(":")
        headers = [(b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")]
        if session:
            headers += [(b"mcp-session-id", session.encode()), (b"mcp-protocol-version", b"2025-11-25")]
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        pool = Pool(max_idle=0)
        response = await pool.request("POST", (host, int(port), False), path, headers, body, timeout=30)
        data = await response.read()
        if (response.header(b"content-type") or b"").startswith(b"text/event-stream"):
            data = next(line[5:] for line in data.splitlines() if line.startswith(b"data:") and len(line) > 6)
        return (response.header(b"mcp-session-id") or b"").decode(), msgspec.json.decode(data)

    def pids(self) -> list[int]:
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path)
    yield running
    if running.process.returncode is None:
        running.process.terminate()
        await running.process.wait()


async def test_two_workers_are_one_gateway(running: Running) -> None:
    await running.start(s.Snapshot(version="v1", listeners=(LISTENER,)))
    await running.ready()
    assert running.endpoints["pid"] == running.process.pid
    assert {"web", "local", "workloads", "stats", "ready", "admin"} <= set(running.endpoints)
    assert len(running.pids()) == 2
    for _ in range(64):
        assert await running.text("web") == "here"
    metrics = await running.text("stats", "/metrics")
    assert "quarterdeck_gateway_workers 2" in metrics
    served = [float(line.rpartition(" ")[2]) for line in metrics.splitlines()
              if line.startswith("agentgateway_requests_total{") and 'status="200"' in line]  # fmt: skip
    assert served == [64.0]
    assert (await running.ask("ready", "/healthz/ready")).status == 200
    assert '"v1"' in await running.text("admin", "/config_dump")
    records = [msgspec.json.decode(line) for line in (running.folder / "data/audit.jsonl").read_bytes().splitlines()]
    served_by = Counter(record["chain"] for record in records if record.get("route") == "default/r")
    assert sum(served_by.values()) == 64
    assert len(served_by) == 2


@pytest.mark.slow
async def test_a_worker_that_dies_is_started_again(running: Running) -> None:
    await running.start(s.Snapshot(version="v1", listeners=(LISTENER,)))
    await running.ready()
    before = running.pids()
    for _ in range(8):
        await running.text("web")
    await running.text("stats", "/metrics")
    os.kill(before[0], signal.SIGKILL)
    async with asyncio.timeout(20):
        while len(set(running.pids()) - {before[0]}) < 2 or "_workers 2" not in await running.text("stats", "/metrics"):
            await asyncio.sleep(0.05)
    assert before[1] in running.pids()
    metrics = await running.text("stats", "/metrics")
    assert "quarterdeck_gateway_worker_restarts_total 1" in metrics
    assert 'status="200"' in metrics
    served = sum(float(line.rpartition(" ")[2]) for line in metrics.splitlines()
                 if line.startswith("agentgateway_requests_total{") and 'status="200"' in line)  # fmt: skip
    assert served == 8
    for _ in range(16):
        assert await running.text("web") == "here"


@pytest.mark.slow
async def test_all_end_with_the_supervisor(running: Running) -> None:
    await running.start(s.Snapshot(version="v1", listeners=(LISTENER,)))
    await running.ready()
    workers = running.pids()
    running.process.kill()
    await running.process.wait()
    async with asyncio.timeout(30):
        while any(Path(f"/proc/{pid}/status").exists() and "Z (" not in Path(f"/proc/{pid}/status").read_text()
                  for pid in workers):  # fmt: skip
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_drained_stop(running: Running) -> None:
    await running.start(s.Snapshot(version="v1", listeners=(LISTENER,)))
    await running.ready()
    running.process.terminate()
    async with asyncio.timeout(20):
        assert await running.process.wait() == 0
    with pytest.raises(UpstreamError):
        await running.ask("web")


async def test_a_configuration_that_cannot_be_served_ends_all(running: Running) -> None:
    await running.start(s.Snapshot(version="v1"), "--audit-file=/proc/nothing/audit")
    async with asyncio.timeout(20):
        assert running.process.stderr is not None
        said = await running.process.stderr.read()
        assert await running.process.wait() == 1
    assert b"audit" in said


FILE = f"""
binds:
- port: 0
  listeners:
  - name: web
    routes:
    - backends:
      - mcp:
          targets:
          - name: local
            stdio: {{cmd: {sys.executable}, args: [{Path(__file__).parents[2] / "peers" / "stdio_server.py"}]}}
"""
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


@pytest.mark.slow
async def test_a_session_with_a_stdio_server_is_served_by_any_worker(running: Running) -> None:
    (running.folder / "gateway.yaml").write_text(FILE)
    await running.run(f"--file={running.folder / 'gateway.yaml'}", "--compat=oct", "--allow-anonymous")
    await running.ready()
    web = next(name for name in running.endpoints if name.endswith("web"))
    session, answer = await running.rpc(web, "/mcp", "initialize", HELLO)
    assert "result" in answer, answer
    counted: Counter[str] = Counter()
    for _ in range(16):
        _, answer = await running.rpc(web, "/mcp", "tools/list", {}, session)
        assert answer["result"]["tools"], answer
    for line in (running.folder / "data/audit.jsonl").read_bytes().splitlines():
        record = msgspec.json.decode(line)
        counted[record["chain"]] += record.get("method") == "tools/list"
    assert sum(counted.values()) >= 16


def test_the_number_of_workers(tmp_path: Path) -> None:
    config = f"--config={tmp_path}/c.json"
    assert parse([config]).workers == 1
    assert parse([config, "--workers=3"]).workers == 3
    assert parse([config, "--workers=auto"]).workers >= 1
    for wrong in ("0", "65", "-1", "many"):
        with pytest.raises(Exception, match="workers"):
            parse([config, f"--workers={wrong}"])
