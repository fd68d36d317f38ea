"""Other gateways in front of the same upstream under the same load: those given in ``QD_BENCH_PEERS``, FastMCP when
it is installed, and recorded figures where no binary is at hand.

``QD_BENCH_PEERS=agentgateway=/path/to/agentgateway[,…]``: each is started with ``-f FILE``, a configuration of one
listener and one MCP target.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from . import gotools
from .gateway_rig import LEGACY, body, request
from .measure import Row

RECORDED = (
    ("agentgateway 2026-08 (Rust), pass-through", 9.4, "122 to 156 µs, upstream 13 µs"),
    ("agentgateway 2026-08, CEL + rate limit + access log", 10.2, "132 to 171 µs"),
    ("agentgateway 2026-08, the same + JWT (RS256, ES256)", 14.4, "187 and 219 µs"),
    ("FastMCP 4.1.2 proxy", 2046.0, "26,600 µs"),
    ("ContextForge 1.0.7", 995.0, "12,940 µs at best"),
)
"""CPU per call over the Go upstream's, measured on another machine of two cores (2026-11-21)."""
_FASTMCP = """
import sys
from fastmcp.server import create_proxy
create_proxy(sys.argv[1]).run(transport="http", host="127.0.0.1", port=int(sys.argv[2]), path="/mcp", show_banner=False)
"""


async def rows(command: Path, seconds: float) -> list[Row]:
    """Raises RuntimeError when a peer that is there does not start."""
    found: list[Row] = []
    with gotools.upstream(command) as (pid, port):
        line = b"mcp-protocol-version: %b\r\n" % LEGACY.encode()
        direct = await gotools.load(
            command, pid, port, request("/mcp", line, body("user")), connections=16, seconds=seconds
        )
        for name, start in _present(port).items():
            found.append(await _measure(command, name, start, direct.cpu, seconds))
    measured = {row.what.partition(" ")[0] for row in found}
    found += [
        Row(f"recorded elsewhere: {name}", ratio, "×", None, note)
        for name, ratio, note in RECORDED
        if name.partition(" ")[0] not in measured
    ]
    return found


def _present(upstream: int) -> dict[str, tuple[list[str], str]]:
    """Name → command (``{port}`` and ``{folder}`` filled in later) and configuration file of each peer at hand."""
    found: dict[str, tuple[list[str], str]] = {}
    for entry in filter(None, os.environ.get("QD_BENCH_PEERS", "").split(",")):
        name, _, path = entry.partition("=")
        mcp = {"targets": [{"name": "cheap", "mcp": {"host": f"http://127.0.0.1:{upstream}/mcp"}}]}
        config = {"binds": [{"port": 0, "listeners": [{"routes": [{"backends": [{"mcp": mcp}]}]}]}]}
        found[name] = ([path, "-f", "{folder}/config.yaml"], json.dumps(config))
    if importlib.util.find_spec("fastmcp") is not None:
        found["FastMCP"] = ([sys.executable, "-c", _FASTMCP, f"http://127.0.0.1:{upstream}/mcp", "{port}"], "")
    return found


async def _measure(command: Path, name: str, start: tuple[list[str], str], base: float, seconds: float) -> Row:
    async with _running(start) as (pid, port):
        line = b"mcp-protocol-version: %b\r\n" % LEGACY.encode()
        session = await _session(port, line)
        found = await gotools.load(
            command, pid, port, request("/mcp", line + session, body("user")), connections=16, seconds=seconds
        )
    return Row(f"{name} pass-through: CPU, times the upstream's", found.cpu / base, "×", None, f"{found.cpu:.0f} µs")


@contextlib.asynccontextmanager
async def _running(start: tuple[list[str], str]) -> AsyncIterator[tuple[int, int]]:
    command, config = start
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="qd-bench-peer-") as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        if config:
            Path(folder, "config.yaml").write_text(config.replace('"port": 0', f'"port": {port}'))
        process = subprocess.Popen(
            [part.format(port=port, folder=folder) for part in command], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await _listening(port, process)
            yield process.pid, port
        finally:
            process.terminate()
            process.wait()


async def _listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60.0
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args} does not listen on port {port}") from None
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def _session(port: int, line: bytes) -> bytes:
    start = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/mcp", line, json.dumps(message).encode()))
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    lines = [found for found in head.split(b"\r\n") if found.lower().startswith(b"mcp-session-id: ")]
    return lines[0] + b"\r\n" if lines else b""
