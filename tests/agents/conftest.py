"""An agent host with everything real around it but the model, which is a double that says what it is told to say."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.tck_agent.stack import control_plane
from quarterdeck.agents.a2a.card import AgentCard
from quarterdeck.agents.a2a.core import Core
from quarterdeck.agents.a2a.store import A2aState
from quarterdeck.agents.app import build
from quarterdeck.agents.config import AgentConfig
from quarterdeck.agents.credentials import WorkloadToken
from quarterdeck.agents.journal.client import JournalClient
from quarterdeck.agents.memory import memory
from quarterdeck.agents.model import ChatModel
from quarterdeck.agents.observe.run import Observer
from quarterdeck.agents.parts import Plugin
from quarterdeck.agents.runs import Runs
from quarterdeck.agents.toolbox import Toolbox
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Server
from support.unmarked import unmarked

PEER = Path(__file__).parent.parent / "peers" / "stdio_server.py"

Answer = dict[str, Any] | bytes | int | Callable[[Exchange], Awaitable[None]]
"""What the model double says: an assistant message, raw bytes, an HTTP status, or whatever it does."""


def call(name: str, arguments: Any = None, ident: str = "c1") -> dict[str, Any]:
    """An assistant message with one tool call."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return {
        "role": "assistant",
        "tool_calls": [{"id": ident, "type": "function", "function": {"name": name, "arguments": text}}],
    }


def say(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


@dataclass
class ModelDouble:
    """Stands in for a model provider: answers in the order given, the last one for ever."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Without the marks of what is untrusted (:mod:`quarterdeck.agents.untrusted`)."""
    marked: list[dict[str, Any]] = field(default_factory=list)
    """The same as they came."""
    gate: asyncio.Event | None = None
    headers: list[dict[bytes, bytes]] = field(default_factory=list)

    def __call__(self, exchange: Exchange) -> Any:
        self.headers.append(dict(exchange.headers))
        self.marked.append(json.loads(exchange.body))
        self.requests.append(unmarked(json.loads(exchange.body)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return self._respond(exchange, answer)

    async def _respond(self, exchange: Exchange, answer: Answer) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if callable(answer):
            await answer(exchange)
        elif isinstance(answer, int):
            exchange.respond(answer, b'{"error":{"message":"told to fail"}}')
        elif isinstance(answer, bytes):
            exchange.respond(200, answer)
        elif self.requests[-1].get("stream"):
            self._stream(exchange, answer)
        else:
            body = {"choices": [{"message": answer}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
            exchange.respond(200, json.dumps(body).encode())

    def _stream(self, exchange: Exchange, answer: dict[str, Any]) -> None:
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        pieces = [{"content": word + " "} for word in str(answer.get("content") or "").split()]
        for index, tool in enumerate(answer.get("tool_calls") or []):
            whole = tool["function"]["arguments"]
            first = tool | {"index": index, "function": {"name": tool["function"]["name"], "arguments": whole[:2]}}
            pieces += [
                {"tool_calls": [first]},
                {"tool_calls": [{"index": index, "function": {"arguments": whole[2:]}}]},
            ]
        for piece in pieces:
            exchange.write(b"data: " + json.dumps({"choices": [{"delta": piece}]}).encode() + b"\n\n")
        exchange.write(b"data: [DONE]\n\n")
        exchange.finish()


@pytest.fixture(scope="session")
def tools_url() -> Iterator[str]:
    """The support MCP server over Streamable HTTP, as the official SDK serves it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    code = (
        f"import sys; sys.path.insert(0, {str(PEER.parent)!r}); from stdio_server import server; "
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


@dataclass
class Agent:
    """A running host. ``http`` speaks to it."""

    model: ModelDouble
    runs: Runs
    http: httpx.AsyncClient
    toolbox: Toolbox
    journal: JournalClient
    memories: list[memory.Memory]

    async def rpc(self, method: str, params: Any, version: str = "1.0", **extra: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": "r1", "method": method, "params": params}
        response = await self.http.post("/", json=body, headers={"A2A-Version": version}, timeout=30, **extra)
        return response.json()

    async def ask(self, text: str, **message: Any) -> Any:
        answer = await self.rpc("SendMessage", {"message": user_message(text) | message})
        return answer["result"]["task"]

    async def events(self, method: str, params: Any, version: str = "1.0") -> list[Any]:
        body = {"jsonrpc": "2.0", "id": "r1", "method": method, "params": params}
        found: list[Any] = []
        async with self.http.stream("POST", "/", json=body, headers={"A2A-Version": version}, timeout=30) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    found.append(json.loads(line[6:])["result"])
        return found


def user_message(text: str) -> dict[str, Any]:
    return {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}]}


def answer_of(task: Any) -> str:
    return "".join(part["text"] for artifact in task["artifacts"] for part in artifact["parts"])


@pytest.fixture
async def start(tmp_path: Path, tools_url: str) -> AsyncIterator[Callable[..., Any]]:
    """``await start(*answers, **config)`` gives a running Agent; ``plane``: a control plane of its own."""
    headers = WorkloadToken(tmp_path / "no-token").headers
    running = AsyncExitStack()
    planes: dict[str, str] = {}
    pool = Pool()
    started: list[tuple[Agent, Server]] = []

    async def make(
        *answers: Answer,
        model_timeout: float = 300.0,
        observer: Observer | None = None,
        plugins: Sequence[Plugin] = (),
        plane: str = "server",
        **overrides: Any,
    ) -> Agent:
        if plane not in planes:
            planes[plane] = (await running.enter_async_context(control_plane(tmp_path / f"{plane}.db"))).url
        state_url = planes[plane]
        observer = observer or Observer()
        double = ModelDouble(list(answers))
        provider = Server(double)
        _, port = await provider.listen("127.0.0.1", 0)
        config = AgentConfig.model_validate(
            {
                "model": {"model": "double", "base_url": f"http://127.0.0.1:{port}/v1"},
                "instruction": "Be brief.",
                "http_tools": [{"params": {"url": tools_url, "timeout": 20}}],
            }
            | overrides
        )
        toolbox = Toolbox(pool, config, headers)
        model = ChatModel(pool, config.model, headers, timeout=model_timeout)
        state = A2aState(pool, state_url, headers)
        journal = JournalClient(pool, state_url, headers)
        memories = memory.of(config, pool, state_url, headers, model, state)
        runs = Runs(config, model, toolbox, state, journal, plugins=[*memories, *plugins], observer=observer)
        card = AgentCard({"name": "a", "capabilities": {}, "skills": []}, extended=[], media=runs.takes)
        transport = httpx.ASGITransport(app=build(Core(runs, state, card), metrics=observer.registry))
        http = httpx.AsyncClient(transport=transport, base_url="http://agent")
        agent = Agent(double, runs, http, toolbox, journal, memories)
        started.append((agent, provider))
        return agent

    yield make
    for agent, provider in started:
        await agent.runs.stop()
        await asyncio.gather(*(each.stop() for each in agent.memories))
        await agent.http.aclose()
        await provider.stop(0)
    pool.close()
    await running.aclose()
