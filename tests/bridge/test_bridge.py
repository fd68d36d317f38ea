"""The bridge as its users meet it: a real process in front of a real stdio server, spoken to by the official client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from mcp import Client, MCPError

from quarterdeck.errors import QuarterdeckError
from quarterdeck.wire.client import Pool

SERVER = Path(__file__).parent.parent / "peers" / "stdio_server.py"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Bridge:
    def __init__(self, port: int, process: asyncio.subprocess.Process, log: Path) -> None:
        self.port = port
        self.process = process
        self.log = log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def http(self, method: str, path: str, body: bytes = b"", headers: Any = ()) -> tuple[int, bytes, Any]:
        pool = Pool()
        response = await pool.request(method, ("127.0.0.1", self.port, False), path, headers, body)
        data = await response.read()
        pool.close()
        return response.status, data, response

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@asynccontextmanager
async def bridge(tmp_path: Path, ready: bool = True, **overrides: Any) -> AsyncIterator[Bridge]:
    port = free_port()
    command = {"command": sys.executable, "args": [str(SERVER)]}
    config = {"listen": {"port": port}, "name": "support", **command, **overrides}
    path = tmp_path / "bridge.json"
    path.write_text(json.dumps(config))
    log = tmp_path / "stderr.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "quarterdeck.bridge", "--config", str(path), stderr=stderr,
            env={**os.environ, "POD_IP": "127.0.0.1", "SUPPORT_ENV": "visible"},
        )  # fmt: skip
    running = Bridge(port, process, log)
    try:
        if ready:
            await eventually(lambda: is_ready(running))
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 30)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bridge]:
    """A process for each session; for tests that leave the bridge as it was."""
    async with bridge(tmp_path_factory.mktemp("alone")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bridge]:
    """One process for all sessions; for tests that leave it as it was."""
    async with bridge(tmp_path_factory.mktemp("shared"), mode="shared") as running:
        yield running


async def is_ready(running: Bridge) -> bool:
    try:
        return (await running.http("GET", "/ready"))[0] == 200
    except QuarterdeckError:
        return False


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


def text(result: Any) -> str:
    return str(result.content[0].text)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_of_either_era_lists_and_calls(alone: Bridge, mode: Any) -> None:
    async with Client(alone.url, mode=mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert {"pid", "count", "crash", "hang"} <= set(names)
        assert text(await client.call_tool("env", {"name": "SUPPORT_ENV"})) == "visible"
        assert alone.rss_mb() < 40


@pytest.mark.asyncio(loop_scope="module")
async def test_each_legacy_session_has_its_own_process(alone: Bridge) -> None:
    async with Client(alone.url, mode="legacy") as one, Client(alone.url, mode="legacy") as two:
        first, again = text(await one.call_tool("pid", {})), text(await one.call_tool("pid", {}))
        other = text(await two.call_tool("pid", {}))
    assert first == again != other

    async def gone() -> bool:
        return not Path(f"/proc/{first}").exists()

    await eventually(gone)  # closing the session ended its process


@pytest.mark.asyncio(loop_scope="module")
async def test_shared_mode_serves_all_sessions_from_one_process(shared: Bridge) -> None:
    async with Client(shared.url, mode="legacy") as one, Client(shared.url, mode="legacy") as two:
        assert text(await one.call_tool("pid", {})) == text(await two.call_tool("pid", {}))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_progress_reaches_the_caller_it_belongs_to(shared: Bridge, mode: Any) -> None:
    async with Client(shared.url, mode=mode) as one, Client(shared.url, mode=mode) as two:
        seen: dict[str, list[float]] = {"one": [], "two": []}

        async def call(client: Client, name: str, steps: int) -> None:
            async def progress(value: float, total: float | None, message: str | None) -> None:
                seen[name].append(value)

            await client.call_tool("count", {"steps": steps}, progress_callback=progress)

        await asyncio.gather(call(one, "one", 3), call(two, "two", 5))
    assert seen == {"one": [1, 2, 3], "two": [1, 2, 3, 4, 5]}


async def test_a_crash_is_a_clear_error_and_the_next_session_works(tmp_path: Path) -> None:
    async with bridge(tmp_path) as running:
        async with Client(running.url, mode="legacy") as client:
            with pytest.raises(MCPError, match="exited with code 7"):
                await client.call_tool("crash", {})
        async with Client(running.url, mode="legacy") as client:
            assert text(await client.call_tool("env", {"name": "SUPPORT_ENV"})) == "visible"
        assert "about to crash" in running.log.read_text()
        assert b"quarterdeck_bridge_process_crashes_total 1" in (await running.http("GET", "/metrics"))[1]


COLD = """\
count=$(ls {dir} | wc -l); touch {dir}/$count
if [ $count = {fails} ]; then read line; exit 3; fi
while [ ! -e {go} ]; do sleep 0.1; done
exec {python} {server}
"""


def cold(directory: Path, fails: int = -1) -> dict[str, Any]:
    """A command that starts its server once the file ``go`` is there; its run number ``fails`` ends when spoken to."""
    (directory / "runs").mkdir()
    script = COLD.format(dir=directory / "runs", go=directory / "go", fails=fails, python=sys.executable, server=SERVER)
    return {"command": "sh", "args": ["-c", script]}


@pytest.mark.parametrize("mode", ["per-session", "shared"])
async def test_a_cold_start_gives_signs_of_life_and_fails_no_first_call(tmp_path: Path, mode: str) -> None:
    async with bridge(tmp_path, ready=False, mode=mode, **cold(tmp_path)) as running:
        await eventually(lambda: listens(running))
        pool = Pool()
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).encode()
        headers = [(b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")]
        response = await pool.request("POST", ("127.0.0.1", running.port, False), "/mcp", headers, body)
        assert response.header(b"mcp-session-id")
        said = b""
        async for chunk in response:
            said += chunk
            if b": starting" in said:
                (tmp_path / "go").touch()
        assert b'"serverInfo"' in said
        pool.close()
        async with Client(running.url, mode="auto") as client:
            assert text(await client.call_tool("env", {"name": "SUPPORT_ENV"})) == "visible"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_spare_that_ends_when_it_is_spoken_to_is_replaced(tmp_path: Path, mode: Any) -> None:
    (tmp_path / "go").touch()
    async with bridge(tmp_path, **cold(tmp_path, fails=1)) as running, Client(running.url, mode=mode) as client:
        assert text(await client.call_tool("env", {"name": "SUPPORT_ENV"})) == "visible"


async def listens(running: Bridge) -> bool:
    try:
        return (await running.http("GET", "/health"))[0] == 200
    except QuarterdeckError:
        return False


async def test_a_hanging_tool_times_out_with_the_field_to_change(tmp_path: Path) -> None:
    async with bridge(tmp_path, timeout=0.5) as running, Client(running.url, mode="legacy") as client:
        with pytest.raises(MCPError, match=r"spec\.timeout"):
            await client.call_tool("hang", {})
        assert text(await client.call_tool("env", {"name": "SUPPORT_ENV"})) == "visible"


async def test_a_shared_process_that_answers_nothing_any_more_is_replaced(tmp_path: Path) -> None:
    async with bridge(tmp_path, timeout=1, mode="shared") as running:
        async with Client(running.url, mode="legacy") as client:
            before = text(await client.call_tool("pid", {}))
            with pytest.raises(MCPError, match=r"spec\.timeout"):
                await client.call_tool("freeze", {})

            async def ended() -> bool:
                return b"quarterdeck_bridge_process_crashes_total 1" in (await running.http("GET", "/metrics"))[1]

            await eventually(ended)
        async with Client(running.url, mode="legacy") as client:
            assert text(await client.call_tool("pid", {})) != before


@pytest.mark.asyncio(loop_scope="module")
async def test_garbage_on_stdout_goes_to_the_log(alone: Bridge) -> None:
    async with Client(alone.url, mode="legacy") as client:
        assert text(await client.call_tool("garbage", {})) == "survived"
    assert "this is not json" in alone.log.read_text()


async def test_a_huge_answer_ends_the_process_not_the_bridge(tmp_path: Path) -> None:
    async with bridge(tmp_path, message_bytes=1_000_000) as running:
        async with Client(running.url, mode="legacy") as client:
            with pytest.raises(MCPError, match="longer than 1000000 bytes"):
                await client.call_tool("huge", {"size": 50_000_000})
        assert running.rss_mb() < 60
        async with Client(running.url, mode="legacy") as client:
            assert len(text(await client.call_tool("huge", {"size": 100_000}))) == 100_000


async def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    async with bridge(tmp_path, ready=False, command="no-such-command-here") as running:

        async def told() -> bool:
            try:
                status, body, _ = await running.http("GET", "/ready")
            except QuarterdeckError:
                return False
            return status == 503 and b"no-such-command-here" in body and b"check its cmd and args" in body

        await eventually(told)
        assert (await running.http("GET", "/health"))[0] == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_requests_out_of_order_are_refused(alone: Bridge) -> None:
    call = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
    assert (await alone.http("POST", "/mcp", call))[0] == 400
    assert (await alone.http("POST", "/mcp", call, [(b"mcp-session-id", b"nope")]))[0] == 404
    assert (await alone.http("POST", "/mcp", b"{not json"))[0] == 400
    assert (await alone.http("POST", "/mcp", call, [(b"origin", b"https://evil.example")]))[0] == 403
    assert (await alone.http("PUT", "/mcp"))[0] == 405
    assert (await alone.http("GET", "/elsewhere"))[0] == 404


@pytest.mark.asyncio(loop_scope="module")
async def test_pretty_printed_json_is_one_line_to_the_server(alone: Bridge) -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    init = json.dumps({"jsonrpc": "2.0", "id": "a", "method": "initialize", "params": params}, indent=2)
    status, body, response = await alone.http("POST", "/mcp", init.encode(), [(b"accept", b"application/json")])
    assert status == 200
    assert json.loads(body)["id"] == "a"
    assert response.header(b"mcp-session-id")


async def test_no_process_is_left_when_the_bridge_is_terminated(tmp_path: Path) -> None:
    async with bridge(tmp_path) as running, Client(running.url, mode="legacy") as client:
        child = int(text(await client.call_tool("pid", {})))
        running.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(running.process.wait(), 30)
    assert not Path(f"/proc/{child}").exists()
