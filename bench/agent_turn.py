"""CPU of an agent process for one turn: a user's message, a model call, a tool call, a second model call, the answer.

Model, tool server and the control plane's REST API are trivial stand-ins in processes of their own (peers.py), reached
directly: what is left is the agent host itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from socket import socket

from quarterdeck.wire.client import Pool

from .measure import ROOT, Row, child, cpu, rss

CARD = {
    "name": "bench", "description": "A bench agent.", "url": "http://127.0.0.1:8080", "version": "1", "skills": [],
    "capabilities": {"streaming": True}, "defaultInputModes": ["text"], "defaultOutputModes": ["text"],
}  # fmt: skip


def message(number: int, version: str) -> bytes:
    """``message/send`` of A2A 0.3 or ``SendMessage`` of 1.0."""
    if version == "0.3":
        part, role, method = {"kind": "text", "text": "Say hello."}, "user", "message/send"
    else:
        part, role, method = {"text": "Say hello."}, "ROLE_USER", "SendMessage"
    body = {"role": role, "parts": [part], "messageId": f"m{number}", "contextId": f"c{number}"}
    if version == "0.3":
        body["kind"] = "message"
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": {"message": body}}).encode()


async def _turn(pool: Pool, port: int, number: int, version: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"a2a-version", version.encode())]
    response = await pool.request("POST", ("127.0.0.1", port, False), "/", headers, message(number, version))
    body = await response.read()
    if b"hello" not in body or b"echo" not in body or b"ompleted" not in body.replace(b"COMPLETED", b"ompleted"):
        raise RuntimeError(f"the turn did not go as expected: {body[:1000]!r}")


async def _ready(pool: Pool, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            response = await pool.request("GET", ("127.0.0.1", port, False), "/ready")
            await response.read()
            if response.status == 200:
                return
        except Exception:  # noqa: BLE001 - not listening yet
            await asyncio.sleep(0.1)
    raise RuntimeError("the agent did not become ready")


async def bench(quick: bool) -> list[Row]:
    """Sequential turns in new sessions, then the same with streaming model answers."""
    turns = 100 if quick else 300
    rows: list[Row] = []
    with (
        child("bench.peers", "model") as (_, model),
        child("bench.peers", "mcp") as (_, tools),
        child("bench.peers", "state") as (_, state),
    ):
        for stream in (False, True):
            rows += await _measure(turns, model, tools, state, stream=stream)
    return rows


async def _measure(turns: int, model: str, tools: str, state: str, *, stream: bool) -> list[Row]:
    config = {
        "model": {"type": "openai", "model": "trivial", "base_url": f"http://127.0.0.1:{model}/v1"},
        "description": "A bench agent.", "instruction": "Use your tool.", "stream": stream,
        "http_tools": [{"params": {"url": f"http://127.0.0.1:{tools}/mcp"}, "tools": ["echo"]}],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="qd-bench-") as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        Path(folder, "agent-card.json").write_text(json.dumps(CARD))
        with socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        process = subprocess.Popen(
            [sys.executable, "-m", "quarterdeck.agents", "--host=127.0.0.1", f"--port={port}", f"--filepath={folder}"],
            cwd=ROOT, env={**os.environ, "KAGENT_URL": f"http://127.0.0.1:{state}"}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        pool = Pool()
        try:
            await _ready(pool, port, process)
            for number in range(20):
                await _turn(pool, port, number, "0.3")
            before, start = cpu(process.pid), time.perf_counter()
            for number in range(turns):
                await _turn(pool, port, 100 + number, "1.0" if number % 2 else "0.3")
            used, elapsed = (cpu(process.pid) - before) / turns, (time.perf_counter() - start) / turns
            memory = rss(process.pid)
        finally:
            pool.close()
            process.terminate()
            process.wait()
    kind = "streaming model" if stream else "plain model"
    beside = f"{elapsed * 1e3:.1f} ms elapsed with the stand-ins"
    rows = [Row(f"agent turn with one tool call, {kind}: CPU of the agent", used * 1e3, "ms", 15.0, beside)]
    return [*rows, Row("agent process after these turns: memory", memory, "MB", 150.0)] if stream else rows
