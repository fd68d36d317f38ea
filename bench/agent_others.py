"""The same turn by other agents, each in an environment of its own (agent_peers/): LangGraph alone, the official SDKs
of A2A and MCP, google-adk. What cannot be installed is said in a row."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.wire.client import Pool

from .agent_rig import StandIns, free_port, ready, turn
from .gateway_peers import NotInstalled, installed
from .measure import Row, cpu, rss

SCRIPTS = Path(__file__).parent / "agent_peers"
WARM = 20
_PATIENCE = 180.0
"""Seconds for some turns of a peer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """``server``: whether it speaks A2A; else it makes turns in its own process when told to."""

    name: str
    script: str
    requirements: tuple[str, ...]
    server: bool = False


PEERS = (
    Peer("LangGraph alone (no server)", "langgraph_agent.py",
         ("langgraph==1.2.22", "langchain-openai==1.7.3", "langchain-mcp-adapters==0.3.2")),
    Peer("a2a-sdk + MCP SDK + OpenAI SDK", "a2a_agent.py",
         ("a2a-sdk[http-server]==1.3.0", "mcp==2.3.0", "openai==3.54.0", "uvicorn==0.54.0"), server=True),
    Peer("google-adk (no server)", "adk_agent.py", ("google-adk==2.13.0", "mcp<2", "httpx")),
)  # fmt: skip


async def rows(at: StandIns, turns: int, ours: float, started: float) -> list[Row]:
    """CPU per turn of each, and of its start; ``ours`` (ms) and ``started`` (s) are the host's, for the ratios."""
    found: list[Row] = []
    for peer in PEERS:
        try:
            async with _running(peer, at) as (pid, make):
                start = cpu(pid)
                await make(WARM)
                before = cpu(pid)
                await make(turns)
                each = (cpu(pid) - before) / turns * 1e3
                memory = rss(pid)
        except (NotInstalled, RuntimeError, TimeoutError) as error:
            found.append(Row(f"{peer.name}: {str(error)[:80] or 'no answer in time'}", 0.0, "ms"))
            continue
        beside = (
            f"{each / ours:.1f} times the host's; start {start:.1f} s ({start / started:.1f} times), {memory:.0f} MB"
        )
        found.append(Row(f"{peer.name}: CPU of the same turn", each, "ms", None, beside))
    return found


@contextlib.asynccontextmanager
async def _running(peer: Peer, at: StandIns) -> AsyncIterator[tuple[int, Callable[[int], Awaitable[None]]]]:
    """Its process and what makes turns. Raises NotInstalled, RuntimeError."""
    python = await asyncio.to_thread(installed, peer.name, *peer.requirements)
    port = free_port()
    urls = [
        f"http://127.0.0.1:{at.model}/v1",
        f"http://127.0.0.1:{at.tools}/mcp",
        *([str(port)] if peer.server else []),
    ]
    process = subprocess.Popen(
        [python / "python", str(SCRIPTS / peer.script), *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    pool = Pool()
    numbers = iter(range(1, sys.maxsize))

    async def told(turns: int) -> None:
        assert process.stdin is not None
        process.stdin.write(f"{turns}\n")
        process.stdin.flush()
        await _said(process, "hello")

    async def asked(turns: int) -> None:
        for _ in range(turns):
            await turn(pool, port, next(numbers))

    try:
        if peer.server:
            await ready(pool, port, process, "/.well-known/agent-card.json")
        else:
            await _said(process, "ready")
        yield process.pid, asked if peer.server else told
    finally:
        pool.close()
        process.kill()
        process.communicate()


async def _said(process: subprocess.Popen[str], word: str) -> None:
    """Raises RuntimeError for another answer, TimeoutError for none."""
    assert process.stdout is not None
    async with asyncio.timeout(_PATIENCE):
        line = (await asyncio.to_thread(process.stdout.readline)).strip()
    if line != word:
        raise RuntimeError(f"it said {line!r} and not {word!r}")
