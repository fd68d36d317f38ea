"""Stands in for the remote server of the seed's example: `python github.py HOST PORT` prints its port."""

from __future__ import annotations

import socket
import sys
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel

server = MCPServer("github")


class Choice(BaseModel):
    color: str


@server.tool()
def search_code(query: str) -> str:
    """Find code."""
    return f"2 files with {query}"


def choice() -> Elicit[Choice]:
    return Elicit("Which colour?", Choice)


@server.tool()
def ask(answer: Annotated[Choice, Resolve(choice)]) -> str:
    """Ask the person at the other end, in the way of either era."""
    return f"accept: {answer.color}"


@server.tool()
async def steps(count: int, context: Context[Any, Any]) -> str:
    """Tell how far it is."""
    for step in range(1, count + 1):
        await context.report_progress(step, count)
    return "done"


@server.prompt()
def review(path: str) -> str:
    """Review a file."""
    return f"Review {path}, please."


@server.resource("repo://readme")
def readme() -> str:
    """The README."""
    return "Read me."


if __name__ == "__main__":
    host, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(128)
    print(sock.getsockname()[1], flush=True)
    anywhere = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # its name is a cluster's
    app = server.streamable_http_app(transport_security=anywhere)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[sock])
