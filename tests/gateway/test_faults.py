"""Servers that hang, break off, talk garbage or never stop: bounded, and a clear error that names the server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from quarterdeck import snapshot as s

from .conftest import Rig, snapshot

PATH = "/mcp/kagent/peer"
CALL = {"name": "echo", "arguments": {"text": "x"}}

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve(behaviour: Behaviour) -> tuple[asyncio.Server, int]:
    """A raw socket server that reads the request, then does what it is told."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(h.split(b":")[1]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length"))
        await reader.readexactly(length)
        try:
            await behaviour(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def call(rig: Rig, behaviour: Behaviour, timeout: float = 5.0) -> dict[str, Any]:
    server, port = await serve(behaviour)
    target = s.McpServer("kagent", "peer", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", port),))
    rig.gateway.use(snapshot(port, mcp=(s.McpServer(**{**_fields(target), "timeout": timeout}),)))
    try:
        return await rig.rpc(PATH, "tools/call", CALL, listener="local")
    finally:
        server.close()


def _fields(server: s.McpServer) -> dict[str, Any]:
    return {name: getattr(server, name) for name in server.__struct_fields__}


async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def vanish(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
    await writer.drain()


async def not_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"Segmentation fault (core dumped)\n")
    await writer.drain()


async def not_json(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\nhello")
    await writer.drain()


HALF = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"cut \\\\ud83d \\ud83d\\ude00 \\ud83d"}]}}'
"""As servers in JavaScript say what they have cut in the middle of a character."""


async def half_a_character(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(HALF) + HALF)
    await writer.drain()


async def half_a_character_in_an_event(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: " + HALF + b"\n\n"
    )
    await writer.drain()


async def a_page(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 Oops\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<b/>")
    await writer.drain()


async def no_credentials(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n")
    while True:
        writer.write(b"x" * 1_000_000)
        await writer.drain()


async def endless_event(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1073741824\r\n\r\ndata: ")
    while True:
        writer.write(b"x" * 1_000_000)
        await writer.drain()


async def silent_stream(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 3\r\n\r\n: \n")
    await writer.drain()


@pytest.mark.parametrize(
    ("behaviour", "timeout", "code", "says"),
    [
        (hang, 0.3, 4008, "gave no sign of life for 0.3 s"),
        (vanish, 5, 4002, "before it answered"),
        (break_off, 5, 4002, "in the middle of its response"),
        (not_http, 5, 4002, "malformed HTTP"),
        (not_json, 5, 4002, "no MCP answer"),
        (a_page, 5, 4002, "HTTP 500, text/html"),
        (no_credentials, 5, 4002, "refused the gateway's credentials"),
        (endless, 5, 4002, "more than 16777216 bytes"),
        (silent_stream, 5, 4002, "before it answered"),
    ],
)
async def test_a_broken_server_gives_a_clear_error(
    rig: Rig, behaviour: Behaviour, timeout: float, code: int, says: str
) -> None:
    answer = await call(rig, behaviour, timeout)
    assert answer["error"]["code"] == code
    message = answer["error"]["message"]
    assert message.startswith("MCP server kagent/peer ") and says in message
    assert "kubectl describe mcpserver peer -n kagent" in message
    assert rig.records()[-1]["outcome"] == "error"
    assert not rig.gateway.upstreams.in_flight


@pytest.mark.parametrize("behaviour", [half_a_character, half_a_character_in_an_event])
async def test_half_a_character_is_an_answer(rig: Rig, behaviour: Behaviour) -> None:
    """JSON allows it, though no UTF-8 has it; whether the call was made is no question then."""
    server, port = await serve(behaviour)
    rig.gateway.use(snapshot(port))
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}
    data = await (await rig.request(PATH, body, listener="local")).read()
    server.close()
    text = json.loads(data[data.index(b"{") :])["result"]["content"][0]["text"]
    assert text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") == "cut \\ud83d 😀 \ufffd"
    assert rig.records()[-1]["outcome"] == "ok"


async def test_an_endless_event_is_cut_off(rig: Rig) -> None:
    server, port = await serve(endless_event)
    rig.gateway.use(snapshot(port))
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}
    response = await rig.request(PATH, body, listener="local")
    size = 0
    last = b""
    async for chunk in response:
        size += len(chunk)
        last = (last + chunk)[-400:]
    assert size < 24 * 1024 * 1024
    assert b"larger than 16777216 bytes" in last
    server.close()


async def test_no_server_there(rig: Rig) -> None:
    rig.gateway.use(snapshot(1))
    answer = await rig.rpc(PATH, "tools/call", CALL, listener="local")
    assert "cannot connect to 127.0.0.1:1" in answer["error"]["message"]
    none = s.McpServer("kagent", "peer", "MCPServer", "/mcp")
    rig.gateway.use(snapshot(1, mcp=(none,)))
    answer = await rig.rpc(PATH, "tools/call", CALL, listener="local")
    assert "has no ready endpoint" in answer["error"]["message"]


async def test_a_client_that_leaves_ends_the_call_upstream(rig: Rig) -> None:
    gone = asyncio.Event()

    async def wait_for_end(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    server, port = await serve(wait_for_end)
    rig.gateway.use(snapshot(port))
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}
    task = asyncio.ensure_future(rig.request(PATH, body, listener="local"))
    deadline = time.monotonic() + 60
    while not rig.gateway.upstreams.in_flight and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait_for(gone.wait(), 30)
    assert rig.records()[-1]["status"] == 499
    server.close()


async def test_a_client_that_leaves_after_its_answer_had_a_good_call(rig: Rig) -> None:
    gone = asyncio.Event()

    async def answer_and_keep_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        writer.write(b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[]}}\n\n')
        await reader.read()
        gone.set()

    server, port = await serve(answer_and_keep_open)
    rig.gateway.use(snapshot(port))
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}
    response = await rig.request(PATH, body, listener="local")
    await anext(aiter(response))
    response.close()
    await asyncio.wait_for(gone.wait(), 30)
    assert (rig.records()[-1]["outcome"], rig.records()[-1]["status"]) == ("ok", 200)
    server.close()


async def test_a_slow_reader_costs_bounded_memory(rig: Rig) -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        event = b": " + b"x" * 100_000 + b"\n\n"
        while True:
            writer.write(event)
            await writer.drain()
            sent += len(event)

    server, port = await serve(flood)
    rig.gateway.use(snapshot(port))
    host, listen, _ = rig.origin("local")
    reader, writer = await asyncio.open_connection(host, listen, limit=1024)
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}'
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % (PATH.encode(), len(body)) + body)
    await reader.read(100)
    before, stable = -1, 0
    deadline = time.monotonic() + 60
    while stable < 5 and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        stable = stable + 1 if sent == before else 0
        before = sent
    assert stable == 5, f"the upstream was never held back: {sent} bytes went through"
    assert sent < 64 * 1024 * 1024
    writer.transport.abort()
    server.close()


async def test_a_fault_of_our_own_is_recorded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(rig.gateway._router, "_dispatch", broken)
    response = await rig.request(PATH, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, listener="local")
    assert response.status == 500
    assert b"a bug" not in await response.read()
    record = rig.records()[-1]
    assert (record["outcome"], record["status"], record["method"]) == ("error", 500, "POST")
    assert record["detail"] == f"internal error (ZeroDivisionError) at {PATH}"
