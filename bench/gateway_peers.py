"""Other gateways in front of the same upstream under the same load: those named in ``QD_BENCH_PEERS``, FastMCP's proxy
and ContextForge where they can be installed, and figures recorded elsewhere for what is not at hand.

``QD_BENCH_PEERS='NAME=COMMAND; NAME=COMMAND'``: in a command ``{port}`` is where the gateway shall listen (127.0.0.1,
path ``/mcp``), ``{upstream}`` the URL of the MCP server it shall pass calls to, ``{config}`` an agentgateway file that
says both, ``{folder}`` a directory of its own. A command without any of them is run as ``COMMAND -f {config}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import gotools
from .gateway_rig import LEGACY, body, request
from .measure import Figures, Row, children, rss

RECORDED = (
    ("agentgateway 2026-08 (Rust), pass-through", 9.4, "122 to 156 µs, upstream 13 µs"),
    ("agentgateway 2026-08, CEL + rate limit + access log", 10.2, "132 to 171 µs"),
    ("agentgateway 2026-08, the same + JWT (RS256, ES256)", 14.4, "187 and 219 µs"),
    ("FastMCP 4.1.2 proxy", 2046.0, "26,600 µs"),
    ("ContextForge 1.0.7", 995.0, "12,940 µs at best"),
)
"""CPU per call over the Go upstream's, measured on another machine of two cores (2026-11-21)."""
FASTMCP = "fastmcp==4.1.2"
CONTEXTFORGE = "mcp-contextforge-gateway==1.0.7.post20260921"
INSTALL_SECONDS = 240.0
START_SECONDS = 150.0
STALL_SECONDS = 20.0
_STALLED = "no answer within the time"
"""What the load generator says."""
_CELL = 80
"""Characters of what is said of a peer that cannot be measured."""
_LINE = b"mcp-protocol-version: %b\r\n" % LEGACY.encode()
_FASTMCP = """
import sys
from fastmcp.server import create_proxy
create_proxy(sys.argv[1]).run(transport="http", host="127.0.0.1", port=int(sys.argv[2]), path="/mcp", show_banner=False)
"""
_ADMIN = "admin@example.com"
_CONTEXTFORGE = {
    "PLATFORM_ADMIN_EMAIL": _ADMIN,
    "DATABASE_URL": "sqlite:///{folder}/mcp.db",
    "CACHE_TYPE": "memory",
    "LOG_LEVEL": "ERROR",
    "AUTH_REQUIRED": "false",
    "MCP_CLIENT_AUTH_ENABLED": "false",
    "MCP_REQUIRE_AUTH": "false",
    "ALLOW_UNAUTHENTICATED_ADMIN": "true",
    "TRUST_PROXY_AUTH": "true",
    "TRUST_PROXY_AUTH_DANGEROUSLY": "true",
    "PROXY_USER_HEADER": "x-authenticated-user",
    "MCPGATEWAY_UI_ENABLED": "false",
    "MCPGATEWAY_ADMIN_API_ENABLED": "false",
    "SSRF_ALLOW_LOCALHOST": "true",
    "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
    "JWT_SECRET_KEY": "a-secret-of-the-bench-that-is-long-enough",
    "AUTH_ENCRYPTION_SECRET": "another-secret-of-it-123",
    "REQUIRE_STRONG_SECRETS": "false",
    "PLUGINS_ENABLED": "false",
    "OBSERVABILITY_ENABLED": "false",
}
"""Everything switched off that can be: no sign-in, no UI, no plugins, no telemetry."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A gateway at hand. ``command`` and the values of ``env`` may name {port}, {upstream}, {config} and {folder}."""

    name: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict[str, str])
    tool: str = "echo"
    """What the upstream's tool is called there."""
    ready: Callable[[int, str], None] = lambda port, upstream: None
    """Called once it listens, with its port and the upstream's URL. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    port: int


async def rows(command: Path, seconds: float) -> list[Row]:
    """One row per peer. Raises RuntimeError when one that somebody named in ``QD_BENCH_PEERS`` does not work."""
    found: list[Row] = []
    missing: dict[str, str] = {}
    with gotools.upstream(command) as (pid, port):
        direct = await gotools.load(
            command, pid, port, request("/mcp", _LINE, body("user")), connections=16, seconds=seconds
        )
        upstream = f"http://127.0.0.1:{port}/mcp"
        for peer in named(os.environ.get("QD_BENCH_PEERS", "")):
            found.append(await _measure(command, peer, upstream, direct.cpu, seconds))
        for name, make in (("FastMCP", fastmcp), ("ContextForge", contextforge)):
            try:
                found.append(await _measure(command, make(), upstream, direct.cpu, seconds))
            except (NotInstalled, RuntimeError) as error:
                missing[name] = _short(str(error))
    measured = {row.what.partition(" ")[0] for row in found}
    found += [
        Row(f"recorded elsewhere: {name}", ratio, "×", None, "; ".join(filter(None, (note, missing.get(_first(name))))))
        for name, ratio, note in RECORDED
        if _first(name) not in measured
    ]
    return found


def _short(text: str) -> str:
    """For a cell of the table; the whole is in nobody's way on standard error."""
    sys.stderr.write(f"{text}\n")
    line = text.partition("; it said")[0].splitlines()[0]
    return line if len(line) <= _CELL else f"{line[: _CELL - 1]}…"


def _first(name: str) -> str:
    return name.partition(" ")[0]


def named(text: str) -> Iterator[Peer]:
    """The peers of ``QD_BENCH_PEERS``. Raises RuntimeError."""
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, line = entry.partition("=")
        command = shlex.split(line)
        if not equals or not name.strip() or not command:
            raise RuntimeError(f"QD_BENCH_PEERS: {entry!r} is not NAME=COMMAND")
        if not any(f"{{{word}}}" in line for word in ("port", "config")):
            command += ["-f", "{config}"]
        yield Peer(name.strip(), command)


class NotInstalled(Exception):
    """Why a peer is not at hand."""


def fastmcp() -> Peer:
    """Raises NotInstalled."""
    python = installed("fastmcp", FASTMCP) / "python"
    return Peer("FastMCP", [str(python), "-c", _FASTMCP, "{upstream}", "{port}"])


def contextforge() -> Peer:
    """Raises NotInstalled."""
    script = installed("contextforge", CONTEXTFORGE) / "mcpgateway"
    command = [str(script), "--host", "127.0.0.1", "--port", "{port}"]
    return Peer("ContextForge", command, _CONTEXTFORGE, "cheap-echo", _register)


def installed(name: str, *requirements: str) -> Path:
    """``bin`` of a virtual environment of its own, made by uv when it is not there yet: named by the first of what is
    installed. Raises NotInstalled."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck" / "peers"
    place = cache / requirements[0].replace("==", "-")
    if (place / ".complete").exists():
        return place / "bin"
    if uv is None:
        raise NotInstalled("not installed: no uv on this machine")
    until = time.monotonic() + INSTALL_SECONDS
    for words in (
        ["venv", "--quiet", "--clear", str(place)],
        ["pip", "install", "--quiet", "-p", str(place), *requirements],
    ):
        try:
            done = subprocess.run(
                [uv, *words], capture_output=True, text=True, timeout=until - time.monotonic(), check=False
            )
        except subprocess.TimeoutExpired:
            raise NotInstalled(f"not installed: {name} takes longer than {INSTALL_SECONDS:.0f} s") from None
        if done.returncode:
            raise NotInstalled(f"not installed: {(done.stderr.strip().splitlines() or ['uv failed'])[-1]}")
    (place / ".complete").touch()
    return place / "bin"


def _register(port: int, upstream: str) -> None:
    """Tell ContextForge about the upstream, and wait until it has its tool."""
    base = f"http://127.0.0.1:{port}"
    gateway = {"name": "cheap", "url": upstream, "transport": "STREAMABLEHTTP", "visibility": "public"}
    _json(f"{base}/gateways", gateway)
    deadline = time.monotonic() + START_SECONDS
    while not any(tool.get("name") == "cheap-echo" for tool in _json(f"{base}/tools")):
        if time.monotonic() > deadline:
            raise RuntimeError("ContextForge has not found the upstream's tool")
        time.sleep(0.5)


def _json(url: str, content: object = None) -> list[dict[str, object]]:
    data = None if content is None else json.dumps(content).encode()
    headers = {"content-type": "application/json", "accept": "application/json", "x-authenticated-user": _ADMIN}
    asked = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{url} gave HTTP {error.code}: {error.read()[:300]!r}") from error
    return found if isinstance(found, list) else [found]


async def _measure(command: Path, peer: Peer, upstream: str, base: float, seconds: float) -> Row:
    """At 16 connections; at one when it does not keep up with them. Raises RuntimeError."""
    said = ""
    for connections in (16, 1):
        try:
            async with running(peer, upstream) as process, asyncio.timeout(seconds + STALL_SECONDS):
                found = await _load(command, peer, process, connections, seconds)
                memory = sum(map(rss, children(process.pid)))
        except (TimeoutError, RuntimeError) as error:
            if not isinstance(error, TimeoutError) and _STALLED not in str(error):
                raise
            said = f"; at {connections} connections it stalled"
            continue
        rate = f"{found.rate:,.0f}" if found.rate >= 10 else f"{found.rate:.1f}"
        note = f"{found.cpu:,.0f} µs, {rate} calls/s, p50 {found.p50:.2g} ms, {memory:.0f} MB"
        where = "" if connections == 16 else " (one connection)"
        what = f"{peer.name} pass-through{where}: CPU, times the upstream's"
        return Row(what, found.cpu / base, "×", None, note + said)
    raise RuntimeError(f"{peer.name} does not answer within {STALL_SECONDS:.0f} s")


async def _load(command: Path, peer: Peer, process: Running, connections: int, seconds: float) -> Figures:
    session = await _session(process.port)
    message = body("user").replace(b'"echo"', json.dumps(peer.tool).encode())
    call = request("/mcp", _LINE + session, message)
    return await gotools.load(command, process.pid, process.port, call, connections=connections, seconds=seconds)


@contextlib.asynccontextmanager
async def running(peer: Peer, upstream: str) -> AsyncIterator[Running]:
    """The peer on a free port, ready for calls. Raises RuntimeError, with the end of what it wrote."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="qd-bench-peer-") as folder:
        config = Path(folder, "config.yaml")
        mcp = {"targets": [{"name": "cheap", "mcp": {"host": upstream}}]}
        listener = {"routes": [{"backends": [{"mcp": mcp}]}]}
        config.write_text(json.dumps({"binds": [{"port": port, "listeners": [listener]}]}))
        words = {"port": str(port), "upstream": upstream, "config": str(config), "folder": folder}

        def filled(text: str) -> str:
            for name, value in words.items():
                text = text.replace(f"{{{name}}}", value)
            return text

        with Path(folder, "log").open("w+b") as log:
            process = subprocess.Popen(
                [filled(word) for word in peer.command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                env={**os.environ, **{name: filled(value) for name, value in peer.env.items()}},
            )  # fmt: skip
            try:
                try:
                    await _listening(port, process)
                    await asyncio.to_thread(peer.ready, port, upstream)
                except (RuntimeError, OSError) as error:
                    log.seek(0)
                    end = log.read()[-500:].decode("utf-8", "replace").strip()
                    said = f"; it said: {end}" if end else ""
                    raise RuntimeError(f"{peer.name} does not work: {error}{said}") from error
                yield Running(process.pid, port)
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def _listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"it ended with status {process.returncode}") from None
            if time.monotonic() > deadline:
                raise RuntimeError(f"nothing listens on 127.0.0.1:{port} after {START_SECONDS:.0f} s") from None
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def _session(port: int) -> bytes:
    """Initialize; the header line of the session, empty where there is none."""
    start = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request("/mcp", _LINE, json.dumps(message).encode()))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        raise RuntimeError("no answer to initialize") from error
    finally:
        writer.close()
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if " 200" not in status:
        raise RuntimeError(f"initialize gave {status}")
    lines = [found for found in head.split(b"\r\n") if found.lower().startswith(b"mcp-session-id: ")]
    return lines[0] + b"\r\n" if lines else b""
