"""The Go half of the gateway bench (`bench/golang`): built once, kept outside the checkout like the test plane."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from .measure import Figures, children, cpu

SOURCE = Path(__file__).parent / "golang"
NO_GO = "not run: no Go toolchain (go) on this machine"


def binary() -> Path | None:
    """The built command; None where there is no Go. Raises RuntimeError when it does not compile."""
    source = b"".join(path.read_bytes() for path in sorted(SOURCE.iterdir()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck" / "bench"
    target = cache / f"bench-{hashlib.sha256(source).hexdigest()[:12]}"
    if target.exists():
        return target
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        return None
    cache.mkdir(parents=True, exist_ok=True)
    fresh = cache / f".{target.name}.{os.getpid()}"
    done = subprocess.run([go, "build", "-o", str(fresh), "."], cwd=SOURCE, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"bench/golang does not compile:\n{done.stderr}")
    fresh.replace(target)
    return target


@contextlib.contextmanager
def upstream(command: Path, *flags: str) -> Iterator[tuple[int, int]]:
    """The cheap MCP server; gives its pid and port."""
    process = subprocess.Popen([command, "upstream", *flags], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


async def load(
    command: Path,
    pid: int,
    port: int,
    request: bytes,
    *,
    connections: int,
    seconds: float,
    expect: str = '"hello"',
    status: int = 200,
    warm: float = 0.5,
) -> Figures:
    """Closed-loop load after ``warm`` seconds; CPU is of ``pid`` and what it started. Raises RuntimeError."""
    process = await asyncio.create_subprocess_exec(
        command, "load", "-addr", f"127.0.0.1:{port}", "-conns", str(connections), "-seconds", str(seconds),
        "-warm", str(warm), "-expect", expect, "-status", str(status),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(request)
    process.stdin.close()
    started = await process.stdout.readline()
    before = used(pid)
    line = await process.stdout.readline()
    spent = used(pid) - before
    if await process.wait() or not started or not line:
        raise RuntimeError(f"load on port {port}: {(await process.stderr.read()).decode()[:500]}")
    found = json.loads(line)
    calls = int(found["calls"])
    return Figures(calls, calls / found["seconds"], found["p50"] / 1e3, found["p99"] / 1e3, spent / calls * 1e6)


def used(pid: int) -> float:
    """CPU seconds of a process and all that it started and that still runs."""
    return sum(map(cpu, children(pid)))


@contextlib.asynccontextmanager
async def idle_sessions(command: Path, port: int, path: str, count: int, headers: str = "") -> AsyncIterator[None]:
    """``count`` sessions, each initialized and with an open GET stream. Raises RuntimeError."""
    process = await asyncio.create_subprocess_exec(
        command, "idle", "-addr", f"127.0.0.1:{port}", "-path", path, "-sessions", str(count), "-headers", headers,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        if not await process.stdout.readline():
            raise RuntimeError(f"idle sessions: {(await process.stderr.read()).decode()[:500]}")
        yield
    finally:
        process.stdin.close()
        await process.wait()
