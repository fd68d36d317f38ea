"""Tools that change while an agent works: the server says so, and the next question to the model has them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from quarterdeck.agents import toolbox
from quarterdeck.agents.config import HttpTool
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Header, Server

from .conftest import answer_of, call, say

pytestmark = pytest.mark.timeout(150)


class Changing:
    """An MCP server whose tool ``grow`` gives it another tool, ``fresh``."""

    def __init__(self) -> None:
        self.names = ["grow"]
        self.streams: list[Exchange] = []
        self.agent: Any = None

    async def handle(self, exchange: Exchange) -> None:
        if exchange.method == "GET":
            exchange.start(200, [(b"content-type", b"text/event-stream")])
            self.streams.append(exchange)
            return
        message = json.loads(exchange.body or b"{}")
        if "id" not in message:
            exchange.respond(202)
            return
        answer = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": await self._result(message)}).encode()
        exchange.respond(200, answer, [(b"content-type", b"application/json"), (b"mcp-session-id", b"s1")])

    async def _result(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["method"] == "initialize":
            info = {"name": "t", "version": "1"}
            return {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {"listChanged": True}},
                "serverInfo": info,
            }
        if message["method"] == "tools/list":
            return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in self.names]}
        if message["params"]["name"] == "grow":
            self.names.append("fresh")
            while not self.streams:
                await asyncio.sleep(0.01)
            told = json.dumps({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}).encode()
            self.streams[0].write(b"data: " + told + b"\n\n")
            while not self.agent.toolbox.changes:
                await asyncio.sleep(0.01)
        return {"content": [{"type": "text", "text": f"did {message['params']['name']}"}]}


async def test_a_tool_that_comes_while_an_agent_works_can_be_called_at_once(start: Any) -> None:
    double = Changing()
    server = Server(double.handle)
    _, port = await server.listen("127.0.0.1", 0)
    entry = {"params": {"url": f"http://127.0.0.1:{port}/mcp"}}
    agent = double.agent = await start(call("grow"), call("fresh"), say("done"), http_tools=[entry])
    task = await agent.ask("go")
    assert answer_of(task) == "done"
    offered = [{t["function"]["name"] for t in request["tools"]} - {"ask_user"} for request in agent.model.requests]
    assert offered == [{"grow"}, {"grow", "fresh"}, {"grow", "fresh"}]
    assert agent.model.requests[2]["messages"][-1]["content"] == "did fresh"
    await agent.toolbox.close()
    await server.stop(0)


@pytest.mark.parametrize("names", [[], ["grow"]])
async def test_who_is_granted_tools_by_name_asks_for_no_stream(names: list[str]) -> None:
    """The gateway would refuse it: each turn of an agent with toolNames was a denial in the audit log."""
    double = Changing()
    server = Server(double.handle)
    _, port = await server.listen("127.0.0.1", 0)
    entry = HttpTool.model_validate({"params": {"url": f"http://127.0.0.1:{port}/mcp"}, "tools": names})

    async def headers() -> list[Header]:
        return []

    pool = Pool()
    asked = toolbox.Server(pool, entry, headers)
    assert [tool.name for tool in await asked.tools()] == ["grow"]
    assert asked.client.tells_of_tools and asked.hears is not bool(names)
    await asked.close()
    pool.close()
    await server.stop(0)
