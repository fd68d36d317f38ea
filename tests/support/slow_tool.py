"""An MCP server whose one tool answers when the test says so: conversations stay open for as long as that takes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from quarterdeck.wire.http import Exchange, Server

TOOL = {
    "name": "wait_for_the_gate",
    "description": "Wait for the gate to open.",
    "inputSchema": {"type": "object", "properties": {}},
}


class SlowTool:
    """Listens on loopback between ``start`` and ``stop``. ``waiting`` calls are answered once ``gate`` is set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = 0
        self.most = 0
        self._server = Server(self._handle, name="slow")

    async def start(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{(await self._server.listen('127.0.0.1', 0))[1]}/mcp"

    async def stop(self) -> None:
        self.gate.set()
        await self._server.stop(1.0)

    async def _handle(self, exchange: Exchange) -> None:
        if exchange.method != "POST":
            exchange.respond(405 if exchange.method == "GET" else 204, b"", [])
            return
        message = json.loads(exchange.body)
        if "id" not in message:
            exchange.respond(202, b"", [])
            return
        body = {"jsonrpc": "2.0", "id": message["id"], "result": await self._result(message)}
        headers = [(b"content-type", b"application/json"), (b"mcp-session-id", b"one")]
        exchange.respond(200, json.dumps(body).encode(), headers)

    async def _result(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["method"] == "initialize":
            info = {"name": "slow", "version": "1"}
            return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
        if message["method"] == "tools/list":
            return {"tools": [TOOL]}
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        return {"content": [{"type": "text", "text": "the gate is open"}], "isError": False}
