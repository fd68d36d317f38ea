"""CPU per call in the gateway process, latency and memory, beside the bare upstream and a relay that reads nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey

from quarterdeck import snapshot as s

from . import load
from .measure import ROOT, Row, child, rss

CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}'
INIT = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}'
CHAT = b'{"model":"trivial","messages":[{"role":"user","content":"Say hello."}]}'
STREAM = CHAT[:-1] + b',"stream":true}'


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway process, its ports by listener, and the token of the one agent it knows."""

    pid: int
    ports: dict[str, int]
    authorization: bytes


def snapshot(mcp_port: int, model_port: int, key: ECKey) -> s.Snapshot:
    """One agent that may call one tool of one server, and one model."""
    grant = s.ToolGrant("kagent", "peer", "MCPServer", ("echo", "add"))
    return s.Snapshot(
        version="bench",
        mcp=(s.McpServer("kagent", "peer", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", mcp_port),)),),
        models=(s.Model("kagent", "trivial", "OpenAI", "trivial", f"http://127.0.0.1:{model_port}/v1"),),
        policies=(s.AgentPolicy("kagent", "a", (grant,), ("kagent/trivial",)),),
        identities=s.Identities(
            issuer="bench",
            jwks={"keys": [key.as_dict(private=False)]},
            pods={"pod-a": "kagent/a"},
            anonymous_local=True,
        ),
    )


@contextlib.asynccontextmanager
async def gateway(mcp_port: int, model_port: int) -> AsyncIterator[Running]:
    """The real gateway process in front of the two upstreams, audit to a file."""
    key = ECKey.generate_key("P-256", {"kid": "k", "alg": "ES256"})
    pod = {"pod": {"uid": "pod-a"}}
    claims = {"iss": "bench", "aud": "quarterdeck", "exp": int(time.time()) + 3600, "kubernetes.io": pod}
    bearer = jwt.encode({"alg": "ES256", "kid": "k"}, claims, key).encode()
    with tempfile.TemporaryDirectory(prefix="qd-bench-") as folder:
        config, endpoints = Path(folder, "snapshot.json"), Path(folder, "endpoints.json")
        config.write_bytes(s.encode(snapshot(mcp_port, model_port, key)))
        flags = [f"--{name}=127.0.0.1:0" for name in ("local", "workloads", "stats", "ready", "admin")]
        flags += [f"--config={config}", f"--data-dir={folder}/data", f"--endpoints-file={endpoints}"]
        flags += [f"--audit-file={folder}/audit.jsonl"]
        command = [sys.executable, "-m", "quarterdeck.gateway", *flags]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT, env=dict(os.environ))
        try:
            while not endpoints.exists():
                if process.poll() is not None:
                    raise RuntimeError(f"the gateway ended with {process.returncode}")
                await asyncio.sleep(0.05)
            listeners = {k: v for k, v in json.loads(endpoints.read_text()).items() if k != "pid"}
            ports = {k: int(str(v).rpartition(":")[2]) for k, v in listeners.items()}
            yield Running(process.pid, ports, b"authorization: Bearer %b\r\n" % bearer)
        finally:
            process.terminate()
            process.wait()


def request(path: str, headers: bytes, body: bytes) -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json, text/event-stream\r\n"
        b"content-type: application/json\r\nmcp-protocol-version: 2025-11-25\r\n%bcontent-length: %d\r\n\r\n%b"
        % (path.encode(), headers, len(body), body)
    )


async def session(port: int, path: str, headers: bytes) -> bytes:
    """Initialize; the session header line to send from then on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(path, headers, INIT))
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    found = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"mcp-session-id: "))
    return found + b"\r\n"


async def bench(quick: bool) -> list[Row]:
    """MCP and LLM paths at 1 and 16 connections."""
    seconds = 1.5 if quick else 3.0
    with child("bench.peers", "mcp") as (mcp_pid, mcp_line), child("bench.peers", "model") as (model_pid, model_line):
        mcp_port, model_port = int(mcp_line), int(model_line)
        with child("bench.peers", "relay", mcp_line) as (floor_pid, floor_line):
            direct_call = request("/mcp", b"", CALL)
            direct = await load.run(mcp_pid, mcp_port, direct_call, connections=16, seconds=seconds)
            floor = await load.run(floor_pid, int(floor_line), direct_call, connections=16, seconds=seconds)
            floor_one = await load.run(floor_pid, int(floor_line), direct_call, connections=1, seconds=seconds)
        rows = [
            Row("trivial upstream, called directly, c=16: CPU per call", direct.cpu, "µs"),
            Row("relay that reads nothing (floor), c=16: CPU per call", floor.cpu, "µs"),
        ]
        async with gateway(mcp_port, model_port) as running:
            idle = rss(running.pid)
            rows += [Row("gateway memory at start", idle, "MB", 60.0)]
            rows += await _mcp(running, seconds, floor, floor_one)
            rows += await _llm(running, model_pid, model_port, seconds)
            rows += await _endurance(running, 100_000 if quick else 1_000_000, 10.0 if quick else 60.0)
    return rows


async def _mcp(running: Running, seconds: float, floor: load.Figures, floor_one: load.Figures) -> list[Row]:
    rows: list[Row] = []
    prefixed = CALL.replace(b"echo", b"peer_echo")
    modes = [
        ("pass-through (person, no token)", "local", "/mcp/kagent/peer", b"", CALL, 35.0),
        ("governed (agent token, allow list)", "workloads", "/mcp/kagent/peer", running.authorization, CALL, 50.0),
        ("governed, multiplexed /mcp", "workloads", "/mcp", running.authorization, prefixed, None),
    ]  # fmt: skip
    for name, listener, path, headers, body, target in modes:
        port = running.ports[listener]
        data = request(path, headers + await session(port, path, headers), body)
        many = await load.run(running.pid, port, data, connections=16, seconds=seconds)
        one = await load.run(running.pid, port, data, connections=1, seconds=seconds)
        beside = f"{many.cpu / floor.cpu:.1f} × floor"
        rows.append(Row(f"tools/call {name}, c=16: CPU per call", many.cpu, "µs", target, beside))
        rows.append(Row(f"tools/call {name}, c=16: calls/s", many.rate, "1/s", None, f"p99 {many.p99:.1f} ms"))
        rows.append(
            Row(f"tools/call {name}, c=1: p50", one.p50, "ms", 0.2, f"floor {floor_one.p50:.3f}; p99 {one.p99:.2f} ms")
        )
    return rows


async def _llm(running: Running, model_pid: int, model_port: int, seconds: float) -> list[Row]:
    rows: list[Row] = []
    path = "/llm/kagent/trivial/v1/chat/completions"
    for name, body, target, expected in (
        ("one answer", CHAT, 45.0, b'"hello"'),
        ("50 chunks streamed", STREAM, 250.0, b"[DONE]"),
    ):
        direct_data = request("/v1/chat/completions", b"", body)
        direct = await load.run(model_pid, model_port, direct_data, connections=16, seconds=seconds, expected=expected)
        data = request(path, running.authorization, body)
        port = running.ports["workloads"]
        found = await load.run(running.pid, port, data, connections=16, seconds=seconds, expected=expected)
        beside = f"{found.cpu / direct.cpu:.1f} × the trivial model ({direct.cpu:.0f} µs)"
        rows.append(Row(f"chat completion, {name}, c=16: CPU per request", found.cpu, "µs", target, beside))
    return rows


async def _endurance(running: Running, calls: int, limit: float) -> list[Row]:
    """Memory after many governed calls; bounded in time, and the row says how many were made."""
    port = running.ports["workloads"]
    path = "/mcp/kagent/peer"
    data = request(path, running.authorization + await session(port, path, running.authorization), CALL)
    before = rss(running.pid)
    made, deadline = 0, time.monotonic() + limit
    while made < calls and time.monotonic() < deadline:
        made += (await load.run(running.pid, port, data, connections=16, seconds=5.0)).calls
    after = rss(running.pid)
    return [Row(f"gateway memory after {made:,} more governed calls", after, "MB", 60.0, f"{after - before:+.1f} MB")]
