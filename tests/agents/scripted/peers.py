"""The real MCP servers of the acceptance table: how to run them, and a bare stdio client to ask them.

npm servers come from ``.cache/node`` (``make .cache/node/.ready``); PyPI ones go to ``.cache/peers/python``
on first use, apart from the project's own environment.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
NODE = ROOT / ".cache" / "node"
PYTHON = ROOT / ".cache" / "peers" / "python"
PYPI = ("mcp-server-time==2026.10.19", "mcp-server-fetch==2026.10.24", "fastmcp==4.1.2")
NAMES = ("time", "everything", "filesystem", "memory", "fetch", "datetime")


class Unavailable(Exception):
    """A server cannot be installed here; the message says why."""


def command(name: str, folder: Path) -> list[str]:
    """The command that starts a server; ``folder`` is what the file server may touch. Raises Unavailable."""
    if name in ("everything", "filesystem", "memory"):
        script = NODE / "node_modules" / "@modelcontextprotocol" / f"server-{name}" / "dist" / "index.js"
        if not script.exists():
            raise Unavailable(f"{script} is missing: run `make {NODE.relative_to(ROOT)}/.ready`")
        return ["node", str(script), *([str(folder)] if name == "filesystem" else [])]
    install()
    if name == "datetime":
        return [str(PYTHON / "bin" / "python"), str(ROOT / "examples" / "datetime-server" / "src" / "main.py")]
    local = ["--allow-private-ips"] if name == "fetch" else []
    return [str(PYTHON / "bin" / f"mcp-server-{name}"), *local]


def install() -> None:
    """Install the PyPI servers once, one test process at a time. Raises Unavailable with the installer's words."""
    PYTHON.parent.mkdir(parents=True, exist_ok=True)
    with (PYTHON.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install()


def _install() -> None:
    stamp = PYTHON / ".ready"
    if stamp.exists() and stamp.read_text() == " ".join(PYPI):
        return
    uv = Path(sys.executable).parent / "uv"
    for step in (["venv", "-q", "--clear", "--python", sys.executable, str(PYTHON)],
                 ["pip", "install", "-q", "--python", str(PYTHON / "bin" / "python"), *PYPI]):  # fmt: skip
        done = subprocess.run([str(uv), *step], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise Unavailable(f"uv {step[0]} failed: {done.stderr.strip()[:500]}")
    stamp.write_text(" ".join(PYPI))


class Peer:
    """One initialised stdio session."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._next = 0

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._next += 1
        await self._write({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params})
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if message.get("id") == self._next and "method" not in message:
                if "error" in message:
                    return {"isError": True, "content": [{"type": "text", "text": message["error"]["message"]}]}
                return message["result"]
        raise ConnectionError(f"the server ended while {method} was waiting")

    async def notify(self, method: str) -> None:
        await self._write({"jsonrpc": "2.0", "method": method})

    async def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()

    async def tools(self) -> list[dict[str, Any]]:
        return (await self.request("tools/list", {}))["tools"]

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """The result's text as the agent host hands it to the model, and whether it is an error."""
        result = await self.request("tools/call", {"name": name, "arguments": arguments})
        texts = [str(part.get("text", f"[{part['type']}]")) for part in result.get("content") or []]
        return "\n".join(texts), bool(result.get("isError"))


@asynccontextmanager
async def peer(name: str, folder: Path) -> AsyncIterator[Peer]:
    """A running server. Raises Unavailable."""
    env = {**os.environ, "MEMORY_FILE_PATH": str(folder / "memory.jsonl"), "TZ": "UTC"}
    process = await asyncio.create_subprocess_exec(
        *command(name, folder), env=env, limit=16 * 1024 * 1024,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        session = Peer(process)
        client = {"name": "acceptance", "version": "1"}
        await session.request("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
        await session.notify("notifications/initialized")
        yield session
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
