"""Stand-ins that answer at once: `python -m bench.peers mcp|model|timed|slow|state|relay [PORT]`. Each prints its port.

``mcp`` is a trivial MCP server with one tool; ``model`` a trivial OpenAI-compatible model that asks for that tool and
then answers; ``state`` accepts an agent's sessions and tasks and keeps nothing; ``relay`` copies bytes to PORT and back
without reading them: the floor under any proxy here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from quarterdeck.wire.http import Exchange, Server

CHUNKS = 50
JSON = [(b"content-type", b"application/json")]
ANSWER = b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":"hello"}],"isError":false}}'
INITIALIZED: dict[str, Any] = {
    "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "trivial", "version": "1"},
}  # fmt: skip
TOOL: dict[str, Any] = {
    "name": "echo",
    "description": "Says what it is told.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


def mcp(exchange: Exchange) -> None:
    """The hot path, tools/call, is answered without building anything."""
    body = exchange.body
    if exchange.method != "POST":
        exchange.respond(405)
        return
    at = body.find(b'"id":')
    if at < 0:
        exchange.respond(202)
        return
    if b'"tools/call"' in body:
        ident = body[at + 5 :].lstrip().partition(b",")[0].rstrip(b"} ")
        exchange.respond(200, ANSWER % ident, JSON)
        return
    message = json.loads(body)
    headers = list(JSON)
    result: dict[str, Any] = {}
    if message["method"] == "initialize":
        result = INITIALIZED
        headers.append((b"mcp-session-id", b"0123456789abcdef0123456789abcdef"))
    elif message["method"] == "tools/list":
        result = {"tools": [TOOL]}
    exchange.respond(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode(), headers)


USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


def _completion(message: dict[str, Any], finish: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "trivial",
        "choices": [choice],
        "usage": USAGE,
    }
    return json.dumps(body).encode()


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "trivial", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(body).encode()


CALL = {"id": "call_1", "type": "function", "function": {"name": "echo", "arguments": '{"text":"hello"}'}}
TEXT = _completion({"content": "hello"}, "stop")
ASK = _completion({"content": None, "tool_calls": [CALL]}, "tool_calls")
TEXT_CHUNKS = [_chunk({"content": "word "}) for _ in range(CHUNKS - 2)] + [_chunk({}, "stop"), b"data: [DONE]\n\n"]
ASK_CHUNKS = [
    _chunk({"role": "assistant", "tool_calls": [{"index": 0, **CALL}]}), _chunk({}, "tool_calls"), b"data: [DONE]\n\n",
]  # fmt: skip


def model(exchange: Exchange) -> None:
    """Asks for the tool once per turn when it is offered one, else answers."""
    body = exchange.body
    wants_tool = b'"tools"' in body and json.loads(body)["messages"][-1]["role"] != "tool"
    if b'"stream":true' not in body and b'"stream": true' not in body:
        exchange.respond(200, ASK if wants_tool else TEXT, JSON)
        return
    exchange.start(200, [(b"content-type", b"text/event-stream")])
    for chunk in ASK_CHUNKS if wants_tool else TEXT_CHUNKS:
        exchange.write(chunk)
    exchange.finish()


def timed(exchange: Exchange) -> None:
    """As ``model``; its first piece of text says when it was written, and the rest comes a little later."""
    body = exchange.body
    if b'"tools"' in body and json.loads(body)["messages"][-1]["role"] != "tool":
        model(exchange)
        return
    loop = asyncio.get_running_loop()
    exchange.start(200, [(b"content-type", b"text/event-stream")])
    exchange.write(_chunk({"content": f"T={time.monotonic():.6f}; hello"}))

    def rest() -> None:
        for chunk in (_chunk({"content": " there"}), *TEXT_CHUNKS[-2:]):
            exchange.write(chunk)
        exchange.finish()

    loop.call_later(0.02, rest)


async def slow(exchange: Exchange) -> None:
    """As ``model``, after a while: so that many conversations are under way at once."""
    await asyncio.sleep(SLOW)
    model(exchange)


SLOW = 0.5
"""Seconds."""


def journal(exchange: Exchange) -> None:
    """The control plane's journal: takes everything and keeps nothing."""
    global written
    asked: dict[str, Any] = json.loads(exchange.body or b"{}")
    if exchange.path == "/v1/runs":
        known = {"id": asked["task"], "task": asked["task"], "fence": 1, "leased": True, "seq": 3}
        exchange.respond(201, json.dumps(known | {"createdAt": time.time()}).encode(), JSON)
    elif exchange.path == "/v1/runs/claim":
        exchange.respond(200, b'{"lost":[],"cancel":[],"claimed":[]}', JSON)
    else:
        written += len(asked.get("events", ()))
        answer = {"first": written + 10, "at": time.time(), "permits": {}, "cancel": False}
        exchange.respond(200, json.dumps(answer).encode(), JSON)


written = 0


def state(exchange: Exchange) -> None:
    """The control plane's REST API with an empty memory."""
    if exchange.path.startswith("/v1/runs"):
        journal(exchange)
        return
    data: list[Any] | None = [] if exchange.method == "GET" else None
    missing = exchange.method == "GET" and exchange.raw_path.startswith(b"/api/sessions/")
    body = json.dumps({"error": missing, "data": data, "message": ""}).encode()
    exchange.respond(404 if missing else 200, body, JSON)


class Floor(asyncio.Protocol):
    """Bytes from one side, written to the other."""

    def __init__(self) -> None:
        self.other: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


async def relay(port: int) -> int:
    """Serve on a free port; every connection gets one of its own to ``port``."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def join(near: Floor) -> None:
        _, far = await loop.create_connection(Floor, "127.0.0.1", port)
        far.other, near.other = near.transport, far.transport
        for data in near.early:
            far.transport.write(data)

    class Near(Floor):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            task = loop.create_task(join(self))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await loop.create_server(Near, "127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1])


async def main(role: str, *args: str) -> None:
    if role == "relay":
        port = await relay(int(args[0]))
    else:
        roles = {"mcp": mcp, "model": model, "timed": timed, "slow": slow, "state": state}
        _, port = await Server(roles[role]).listen("127.0.0.1", 0)
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
