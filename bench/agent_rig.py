"""An agent host in a process of its own between stand-ins for model, tools and control plane (peers.py), and turns.

A turn is a user's message, a model call, a tool call, a second model call, and the answer. The stand-ins answer at once
and are reached directly: what is left is the host itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

from quarterdeck.wire.client import Pool
from quarterdeck.wire.sse import SseParser

from .measure import ROOT, child, cpu

CARD = {
    "name": "bench", "description": "A bench agent.", "url": "http://127.0.0.1:8080", "version": "1", "skills": [],
    "capabilities": {"streaming": True}, "defaultInputModes": ["text"], "defaultOutputModes": ["text"],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StandIns:
    """Ports of the stand-ins."""

    model: str
    tools: str
    state: str


@dataclass(frozen=True, slots=True)
class Host:
    """``started`` is the CPU in seconds that it took until it was ready."""

    pid: int
    port: int
    started: float


@contextlib.contextmanager
def stand_ins(model: str = "model") -> Iterator[StandIns]:
    """``model``: which of the models of peers.py."""
    with (
        child("bench.peers", model) as (_, at_model),
        child("bench.peers", "mcp") as (_, tools),
        child("bench.peers", "state") as (_, state),
    ):
        yield StandIns(at_model, tools, state)


@contextlib.asynccontextmanager
async def host(at: StandIns, *, stream: bool = False) -> AsyncIterator[Host]:
    """A running agent host. Raises RuntimeError."""
    config = {
        "model": {"type": "openai", "model": "trivial", "base_url": f"http://127.0.0.1:{at.model}/v1"},
        "description": "A bench agent.", "instruction": "Use your tool.", "stream": stream,
        "http_tools": [{"params": {"url": f"http://127.0.0.1:{at.tools}/mcp"}, "tools": ["echo"]}],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="qd-bench-") as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        Path(folder, "agent-card.json").write_text(json.dumps(CARD))
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "quarterdeck.agents", "--host=127.0.0.1", f"--port={port}", f"--filepath={folder}"],
            cwd=ROOT, env={**os.environ, "KAGENT_URL": f"http://127.0.0.1:{at.state}"}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        pool = Pool()
        try:
            await ready(pool, port, process, "/ready")
            yield Host(process.pid, port, cpu(process.pid))
        finally:
            pool.close()
            process.terminate()
            process.wait()


async def ready(pool: Pool, port: int, process: subprocess.Popen[Any], path: str) -> None:
    """Wait until something answers there. Raises RuntimeError."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            response = await pool.request("GET", ("127.0.0.1", port, False), path)
            await response.read()
            if response.status == 200:
                return
        except Exception:  # noqa: BLE001 - not listening yet
            await asyncio.sleep(0.1)
    raise RuntimeError("the agent did not become ready")


def free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def message(number: int, version: str, context: str = "", *, stream: bool = False) -> bytes:
    """``message/send`` of A2A 0.3 or ``SendMessage`` of 1.0, or what streams."""
    if version == "0.3":
        part, role = {"kind": "text", "text": "Say hello."}, "user"
        method = "message/stream" if stream else "message/send"
    else:
        part, role = {"text": "Say hello."}, "ROLE_USER"
        method = "SendStreamingMessage" if stream else "SendMessage"
    body = {"role": role, "parts": [part], "messageId": f"m{number}", "contextId": context or f"c{number}"}
    if version == "0.3":
        body["kind"] = "message"
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": {"message": body}}).encode()


def _headers(version: str) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"a2a-version", version.encode())]


async def turn(pool: Pool, port: int, number: int, version: str = "1.0", context: str = "") -> None:
    """One turn, checked. Raises RuntimeError."""
    body = message(number, version, context)
    response = await pool.request("POST", ("127.0.0.1", port, False), "/", _headers(version), body)
    answer = await response.read()
    if b"hello" not in answer or b"ompleted" not in answer.replace(b"COMPLETED", b"ompleted"):
        raise RuntimeError(f"the turn did not go as expected: {answer[:1000]!r}")


async def first_event(pool: Pool, port: int, number: int) -> float:
    """Seconds from the model's writing its first text to our reading it from the agent's stream.

    The model's text says when it was written (``T=seconds;``, the machine's monotonic clock). Raises RuntimeError.
    """
    body = message(number, "1.0", stream=True)
    response = await pool.request("POST", ("127.0.0.1", port, False), "/", _headers("1.0"), body)
    parser, late = SseParser(), -1.0
    async for chunk in response:
        now = time.monotonic()
        for event in parser.feed(chunk):
            if late < 0 and b"T=" in event.data and b"partial" in event.data:
                late = now - float(event.data.partition(b"T=")[2].partition(b";")[0])
    if late < 0:
        raise RuntimeError("the agent's stream held no partial text")
    return late
