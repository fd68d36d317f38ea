"""Clients of 2026-07-28 in front of servers of the older era: bounds, bindings, and servers that mean no good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.gateway.mcp.conversation import Event, Flight
from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.wire import sse
from quarterdeck.wire.http import Disconnected, Exchange, Server

from .conftest import Rig, grant, snapshot, token

PATH = "/mcp/kagent/peer"
QUESTION = {"jsonrpc": "2.0", "id": "q", "method": "elicitation/create"}
SAYS: dict[str, list[Any]] = {
    "ask": [QUESTION | {"params": {"message": "sure?"}}],
    "large": [QUESTION | {"params": {"message": "x" * 300_000}}],
    "meta": [QUESTION | {"params": {"_meta": ["no", "object"]}}],
    "list": [QUESTION | {"params": ["no", "object"]}],
    "error": [{"jsonrpc": "2.0", "id": 0, "error": "no object"}],
    "code": [{"jsonrpc": "2.0", "id": 0, "error": {"code": {}, "message": "m"}}],
    "result": [{"jsonrpc": "2.0", "id": 0, "result": "no object"}],
}
"""What the server says to a call of the tool, before it falls silent."""


class Legacy:
    """A server of 2025-11-25 that says what it is told to."""

    def __init__(self) -> None:
        self.greeting: Any = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {}}
        self.sessions = 0
        self.endless = False
        self.told: list[Any] = []
        self.cancelled = asyncio.Event()

    async def handle(self, exchange: Exchange) -> None:
        if exchange.method != "POST":
            exchange.respond(405, b"")
            return
        message = msgspec.json.decode(exchange.body)
        method = message.get("method")
        if method == "initialize":
            self.sessions += 1
            self._answer(exchange, message, self.greeting, [(b"mcp-session-id", b"%d" % self.sessions)])
        elif method == "tools/list":
            more = {"nextCursor": "again"} if self.endless else {}
            tool = {"name": "ask", "inputSchema": [], "description": "x" * (self.endless and 1024 * 1024)}
            self._answer(exchange, message, {"tools": [tool], **more})
        elif method == "tools/call":
            exchange.start(200, [(b"content-type", b"text/event-stream")])
            for said in SAYS[message["params"]["name"]]:
                await exchange.send(sse.encode(msgspec.json.encode(said)))
            await self._silence(exchange)
        elif "id" in message and method:
            exchange.respond(400, b"what?")
        else:
            self.told.append(message)
            if method == "notifications/cancelled":
                self.cancelled.set()
            exchange.respond(202)

    async def _silence(self, exchange: Exchange) -> None:
        try:
            while True:
                await exchange.send(b": still here\n\n")
                await asyncio.sleep(0.05)
        except Disconnected:
            return

    def _answer(self, exchange: Exchange, message: Any, result: Any, headers: Any = ()) -> None:
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": message["id"], "result": result})
        exchange.respond(200, body, [(b"content-type", b"application/json"), *headers])


@pytest.fixture
async def legacy(bare: Rig) -> AsyncIterator[Legacy]:
    found = Legacy()
    server = Server(found.handle, name="legacy")
    _, port = await server.listen("127.0.0.1", 0)
    everything = tuple(s.AgentPolicy("kagent", name, (grant(),)) for name in ("a", "b"))
    bare.gateway.use(snapshot(port, policies=everything))
    yield found
    await server.stop(0)


def request(tool: str, capabilities: Any = None, **params: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Body and headers of a tool call of 2026-07-28."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}} if capabilities is None else capabilities,
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "_meta": meta, **params}}
    headers = {
        "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tool,
        "accept": "application/json, text/event-stream",
    }  # fmt: skip
    return body, headers


async def call(rig: Rig, tool: str, pod: str = "pod-a", capabilities: Any = None, **params: Any) -> dict[str, Any]:
    body, headers = request(tool, capabilities, **params)
    response = await rig.request(PATH, body, headers=headers, bearer=token(pod))
    return msgspec.json.decode(await response.read())


async def test_a_held_call_is_its_callers_only(bare: Rig, legacy: Legacy) -> None:
    asked = (await call(bare, "ask"))["result"]
    assert asked["resultType"] == "input_required"
    answers = {"inputResponses": {key: {"action": "accept"} for key in asked["inputRequests"]}}
    state = asked["requestState"]
    for pod, tool in (("pod-b", "ask"), ("pod-a", "other")):
        refused = await call(bare, tool, pod, requestState=state, **answers)
        assert "not one that this request was given" in refused["error"]["message"]
    assert not [told for told in legacy.told if "result" in told], "nobody answered in its caller's place"
    assert (await call(bare, "ask", "pod-b"))["result"]["resultType"] == "input_required"
    assert legacy.sessions == 2, "two callers share no session"


@pytest.mark.parametrize("tool", ["meta", "list", "error", "code", "result"])
async def test_what_is_no_mcp_is_the_servers_error(bare: Rig, legacy: Legacy, tool: str) -> None:
    answer = await call(bare, tool)
    assert answer["error"]["code"] == (protocol.INTERNAL_ERROR if tool == "code" else protocol.UPSTREAM_FAILED), answer


async def test_questions_are_bounded(bare: Rig, legacy: Legacy) -> None:
    body, headers = request("large")
    waiting = asyncio.ensure_future(bare.request(PATH, body, headers=headers, bearer=token()))
    async with asyncio.timeout(30):
        while not any("error" in told for told in legacy.told):
            await asyncio.sleep(0.02)
    waiting.cancel()
    async with asyncio.timeout(30):
        await legacy.cancelled.wait()  # nobody waits for it any more, and the server is told


@pytest.mark.parametrize("greeting", ["text", {"protocolVersion": 1}, {"instructions": "x" * 300_000}])
async def test_a_greeting_that_is_none(bare: Rig, legacy: Legacy, greeting: Any) -> None:
    legacy.greeting = greeting
    assert "MCP server kagent/peer" in (await call(bare, "ask"))["error"]["message"]


async def test_a_list_without_end(bare: Rig, legacy: Legacy) -> None:
    legacy.endless = True
    assert "lists more than 16777216 bytes" in (await call(bare, "ask"))["error"]["message"]


async def test_sessions_of_one_caller_with_a_server_are_bounded(bare: Rig, legacy: Legacy) -> None:
    refused = await call(bare, "ask", capabilities={"elicitation": {"x": "y" * 5000}})
    assert "capabilities are larger" in refused["error"]["message"]
    for number in range(8):
        asked = await call(bare, "ask", capabilities={"elicitation": {"x": number}})
        assert asked["result"]["resultType"] == "input_required"
    refused = await call(bare, "ask", capabilities={"elicitation": {"x": "another"}})
    assert "8 sets of capabilities" in refused["error"]["message"], "all are in use: their calls are held"
    assert (await call(bare, "ask", "pod-b"))["result"]["resultType"] == "input_required", "others have their own"


async def test_a_server_waits_for_a_client_that_does_not_read() -> None:
    flight = Flight(1)
    notice = jsonrpc.read(b'{"jsonrpc":"2.0","method":"n","params":{"x":"%b"}}' % (b"y" * 600_000))
    assert notice is not None
    flight.put(Event("notice", notice))
    await flight.room()
    flight.put(Event("notice", notice))
    waiting = asyncio.ensure_future(flight.room())
    await asyncio.sleep(0)
    assert flight.full and not waiting.done()
    assert (await flight.next(1)).kind == "notice"
    await asyncio.wait_for(waiting, 30)
