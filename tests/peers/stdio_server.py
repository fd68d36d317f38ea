"""A real MCP server (official SDK) with tools that behave well and badly on demand; run over stdio."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("support")


@server.tool()
def pid() -> str:
    """The process id of this server."""
    return str(os.getpid())


@server.tool()
def env(name: str) -> str:
    """The value of an environment variable."""
    return os.environ.get(name, "")


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Report progress a number of times."""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps)
    return f"counted to {steps}"


@server.tool()
def crash() -> str:
    """End this process in the middle of the call."""
    sys.stderr.write("about to crash\n")
    sys.stderr.flush()
    os._exit(7)


@server.tool()
async def hang() -> str:
    """Never answer."""
    await asyncio.sleep(3600)
    return ""


@server.tool()
async def freeze() -> str:
    """Never answer, and let the server answer nothing else either."""
    time.sleep(3600)
    return ""


@server.tool()
async def slow(note: str, seconds: float) -> str:
    """Write the note to the log at the start, answer later."""
    sys.stderr.write(f"began {note}\n")
    sys.stderr.flush()
    await asyncio.sleep(seconds)
    return f"done {note}"


@server.tool()
def garbage() -> str:
    """Print what is not JSON-RPC to stdout, then answer."""
    os.write(1, b"this is not json\n{]\n")
    return "survived"


@server.tool()
def huge(size: int) -> str:
    """Answer with a text of the given size."""
    return "x" * size


if __name__ == "__main__":
    server.run()
