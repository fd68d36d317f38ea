"""The client against the official SDK's servers, in both eras, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.errors import Denied, TimedOut, UpstreamError
from quarterdeck.mcpclient import McpClient, RpcError, split_url
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Server

SERVER = Path(__file__).parent.parent / "peers" / "stdio_server.py"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The support server over Streamable HTTP, as the SDK serves it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    code = (
        f"import sys; sys.path.insert(0, {str(SERVER.parent)!r}); from stdio_server import server; "
        f"server.run('streamable-http', host='127.0.0.1', port={port})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/mcp"
    process.terminate()
    process.wait(90)


async def test_lists_and_calls_a_real_server(url: str) -> None:
    pool = Pool()
    client = McpClient(pool, url)
    tools = await client.list_tools()
    assert {"pid", "count"} <= {tool.name for tool in tools}
    assert next(t for t in tools if t.name == "count").schema["required"] == ["steps"]
    result = await client.call_tool("count", {"steps": 2})
    assert result["content"][0]["text"] == "counted to 2"
    await client.close()
    assert await client.list_tools()  # a closed client opens a new session
    await client.close()
    pool.close()


async def test_a_call_that_takes_too_long_is_timed_out(url: str) -> None:
    pool = Pool()
    client = McpClient(pool, url, timeout=60)
    await client.list_tools()
    client._timeout = 0.3  # only this call is meant to be short
    with pytest.raises(TimedOut, match="tools/call gave no answer"):
        await client.call_tool("hang", {})
    pool.close()


class Answers:
    """A server that answers each method as told."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.seen: list[tuple[str, dict[bytes, bytes]]] = []

    def __call__(self, exchange: Exchange) -> None:
        if exchange.method == "DELETE":
            exchange.respond(200)
            return
        message = json.loads(exchange.body)
        self.seen.append((message["method"], dict(exchange.headers)))
        answer = self.answers.get(message["method"], 202)
        if isinstance(answer, int):
            exchange.respond(answer, b"no")
        elif isinstance(answer, bytes):
            exchange.respond(200, answer, [(b"content-type", b"application/json")])
        else:
            body = json.dumps({"jsonrpc": "2.0", "id": message.get("id")} | answer).encode()
            exchange.respond(200, body, [(b"content-type", b"application/json")])


async def ask(answers: dict[str, Any]) -> tuple[Any, Answers]:
    handler = Answers(answers)
    server = Server(handler)
    host, port = await server.listen("127.0.0.1", 0)
    pool = Pool()
    try:
        return await McpClient(pool, f"http://{host}:{port}/mcp", timeout=5).list_tools(), handler
    finally:
        pool.close()
        await server.stop(0.1)


GREETING = {"result": {"protocolVersion": "2025-11-25", "capabilities": {}}}


async def test_a_stateless_server_is_asked_the_stateless_way() -> None:
    unknown = {"error": {"code": -32601, "message": "unknown method"}}
    listed = {"result": {"resultType": "complete", "tools": [{"name": "a", "inputSchema": {}}]}}
    tools, handler = await ask({"initialize": unknown, "server/discover": {"result": {}}, "tools/list": listed})
    assert [tool.name for tool in tools] == ["a"]
    method, headers = handler.seen[-1]
    assert method == "tools/list"
    assert headers[b"mcp-protocol-version"] == b"2026-07-28" and headers[b"mcp-method"] == b"tools/list"


async def test_pages_are_followed_and_bounded() -> None:
    endless = {"result": {"tools": [{"name": "a"}], "nextCursor": "again"}}
    with pytest.raises(UpstreamError, match="more than 100 pages"):
        await ask({"initialize": GREETING, "tools/list": endless})


@pytest.mark.parametrize(
    ("answers", "error", "words"),
    [
        ({"initialize": 401}, Denied, "credentials"),
        ({"initialize": 404, "server/discover": 404}, RpcError, "path of an MCP endpoint"),
        ({"initialize": b"<html>"}, UpstreamError, "not JSON"),
        ({"initialize": b"[]"}, UpstreamError, "not a JSON-RPC message"),
        ({"initialize": GREETING, "tools/list": {"result": {"tools": [1]}}}, UpstreamError, "without a name"),
        ({"initialize": GREETING, "tools/list": {"error": {"code": 4003, "message": "no"}}}, Denied, "no"),
    ],
)
async def test_what_is_wrong_is_said(answers: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        await ask(answers)


async def test_a_cancelled_call_is_cancelled_at_the_server(url: str) -> None:
    pool = Pool()
    client = McpClient(pool, url, timeout=30)
    await client.list_tools()
    task = asyncio.create_task(client.call_tool("hang", {}))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await client.call_tool("env", {"name": "HOME"}))["content"]
    await client.close()
    pool.close()


def test_urls() -> None:
    assert split_url("http://h") == (("h", 80, False), "/")
    assert split_url("https://h:8443/a?b=c") == (("h", 8443, True), "/a?b=c")
