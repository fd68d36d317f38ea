"""A real server of HTTP+SSE (mcp SDK) as a subprocess: prints its port."""

from __future__ import annotations

import socket

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("old")


@server.tool()
async def add(a: int, b: int, ctx: Context) -> int:
    """Add two numbers."""
    await ctx.report_progress(1, 1)
    return a + b


if __name__ == "__main__":
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    print(sock.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(server.sse_app(), log_level="error")).run(sockets=[sock])
