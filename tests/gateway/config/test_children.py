"""stdio servers of a file: real bridges with a small server behind them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.gateway.children import Children, child_environment, command_path
from quarterdeck.snapshot import Child, McpServer, Snapshot
from quarterdeck.wire.client import Pool

SERVER = str(Path(__file__).with_name("tiny_server.py"))
INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}  # fmt: skip


def snapshot(*children: Child) -> Snapshot:
    servers = tuple(McpServer("file", child.server.rpartition("/")[2], "Target", "/mcp") for child in children)
    return Snapshot(mcp=servers, children=children)


def real(name: str = "tiny", **more: Any) -> Child:
    return Child(f"Target/file/{name}", sys.executable, (SERVER,), **more)


async def at_once(attempt: int) -> None:
    await asyncio.sleep(0)


@pytest.fixture
async def children(tmp_path: Path) -> AsyncIterator[Children]:
    made = Children(tmp_path / "children", at_once)
    yield made
    await made.stop()


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool()
    yield made
    made.close()


async def initialize(pool: Pool, placed: Snapshot, index: int = 0) -> tuple[str, dict[str, Any]]:
    socket = placed.mcp[index].endpoints[0].host
    headers = [(b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")]
    body = msgspec.json.encode(INITIALIZE)
    response = await pool.request("POST", (socket, 0, False), "/mcp", headers, body, timeout=50)
    data = await response.read()
    if (response.header(b"content-type") or b"").startswith(b"text/event-stream"):
        data = next(line[5:] for line in data.splitlines() if line.startswith(b"data:") and len(line) > 6)
    return (response.header(b"mcp-session-id") or b"").decode(), msgspec.json.decode(data)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(40):
        while not condition():
            await asyncio.sleep(0.02)


async def test_the_first_call_waits_for_the_start(children: Children, pool: Pool) -> None:
    placed = children.place(snapshot(real()))
    _, answer = await initialize(pool, placed)  # nothing runs yet at this moment
    assert answer["result"]["serverInfo"]["name"] == "tiny"
    socket = Path(placed.mcp[0].endpoints[0].host)
    assert socket.stat().st_mode & 0o777 == 0o600 and socket.parent.stat().st_mode & 0o777 == 0o700


async def test_a_bridge_that_dies_is_started_again(children: Children, pool: Pool) -> None:
    placed = children.place(snapshot(real()))
    await initialize(pool, placed)
    first = children.pids["Target/file/tiny"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: children.pids.get("Target/file/tiny", first) != first)
    _, answer = await initialize(pool, placed)
    assert "result" in answer


async def test_a_command_that_is_not_there_is_an_error_and_not_silence(children: Children, pool: Pool) -> None:
    placed = children.place(snapshot(Child("Target/file/gone", "/no/such/command")))
    _, answer = await initialize(pool, placed)
    assert "/no/such/command" in answer["error"]["message"]


async def test_what_stays_the_same_is_not_touched(children: Children, pool: Pool) -> None:
    first = children.place(snapshot(real()))
    await initialize(pool, first)
    pid = children.pids["Target/file/tiny"]
    second = children.place(snapshot(real(), Child("Target/file/gone", "/no/such/command")))
    children.keep(second.children)
    assert second.mcp[0].endpoints == first.mcp[0].endpoints
    assert children.pids["Target/file/tiny"] == pid


async def test_what_is_gone_from_the_file_ends(children: Children, pool: Pool) -> None:
    placed = children.place(snapshot(real()))
    await initialize(pool, placed)
    pid = children.pids["Target/file/tiny"]
    children.keep(())
    await children.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not Path(placed.mcp[0].endpoints[0].host).exists()


async def test_leftovers_of_dead_gateways_go() -> None:
    with tempfile.TemporaryDirectory(prefix="qd-") as folder:  # a socket's path must be short
        parent = Path(folder, "children")
        gone = parent / str(2**22 + 1)  # above the largest process id
        gone.mkdir(parents=True)
        children = Children(parent, at_once)
        children.place(snapshot(Child("Target/file/x", "/no/such/command")))
        assert not gone.exists()
        await children.stop()
        assert list(parent.iterdir()) == []


def test_environments() -> None:
    ours = {"PATH": "/bin", "HOME": "/h", "QUARTERDECK_GATEWAY_TOKEN_FILE": "/secret"}
    child = Child("s", "c", env=(("A", "1"), ("HOME", "/other")))
    assert child_environment(child, ours) == {
        "PATH": "/bin", "HOME": "/other", "A": "1", "npm_config_yes": "true",
    }  # fmt: skip
    assert child_environment(msgspec.structs.replace(child, clear_env=True), ours) == {"A": "1", "HOME": "/other"}


def test_uvx_comes_with_us(tmp_path: Path) -> None:
    assert command_path("uvx", str(tmp_path)) == str(Path(sys.executable).with_name("uvx"))
    assert command_path("no-such-command", "/bin") == "no-such-command"
