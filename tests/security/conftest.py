"""A running gateway to attack, servers that remember what reaches them, and callers with and without rights."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from gateway.conftest import Rig, bare, peer, rig
from gateway.federation.conftest import both, mixed, new, one, two
from gateway.federation.servers import Upstream
from gateway.oauth.conftest import world
from gateway.policy.rig import ISSUER, provider, token
from gateway.routes.conftest import front, start
from quarterdeck import snapshot as s
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.options import Options
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Jwt, Policies

__all__ = ["bare", "both", "front", "mixed", "new", "one", "peer", "rig", "start", "two", "world"]

FOREVER = 4_000_000_000
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
}


def bearer(sub: str = "alice", **claims: Any) -> dict[str, str]:
    """Headers of a person with a token of ISSUER, who takes both kinds of answer."""
    given = token(**{"exp": FOREVER, "sub": sub, "iss": ISSUER, **claims})
    return {"authorization": f"Bearer {given}", "accept": "application/json, text/event-stream"}


def target(name: str, port: int, **more: Any) -> s.McpServer:
    return s.McpServer("ns", name, "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", port),), timeout=5.0, **more)


@asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[Rig]:
    """A gateway with options of its own; without ``file`` it serves nothing until it is given a snapshot."""
    zero = ("127.0.0.1", 0)
    folder.mkdir(exist_ok=True)
    if "file" not in options:
        options["config"] = folder / "snapshot.json"
        options["config"].write_bytes(msgspec.json.encode(s.Snapshot(version="v0")))
    audit = options.setdefault("audit_file", folder / "audit.jsonl")
    gateway = Gateway(Options(zero, zero, zero, zero, zero, data_dir=folder / "data", **options))
    await gateway.start()
    rig = Rig(gateway, audit)
    try:
        yield rig
    finally:
        rig.pool.close()
        await gateway.stop(0.2)


async def guard(rig: Rig, *servers: Upstream | s.McpServer, policies: Policies | None = None, **backend: Any) -> None:
    """Serve these behind one route ``/mcp`` of listener ``front``; tokens of ISSUER unless ``policies`` say else."""
    known = [server if isinstance(server, s.McpServer) else target(server.name, server.port) for server in servers]
    rules = policies or Policies(jwt=Jwt((provider(),)))
    targets = tuple(r.McpTarget(server.name, f"Target/ns/{server.name}", rules) for server in known)
    destination = r.RouteBackend(mcp=r.McpBackend("all", targets, **backend), policies=rules)
    route = r.Route("ns/all", policies=rules, backends=(destination,))
    rig.gateway.use(
        s.Snapshot(
            version=str(id(rules)), mcp=tuple(known), listeners=(r.Listener("front", 0, "127.0.0.1", routes=(route,)),)
        )
    )
    await rig.gateway.listeners.settled()


async def older(rig: Rig, session: str, method: str, headers: dict[str, str], **params: Any) -> dict[str, Any]:
    """A request of 2025-11-25 in a session on the route of :func:`guard`; the answer."""
    sent = {**headers, "mcp-session-id": session}
    return await rig.rpc("/mcp", method, params, listener="front", headers=sent)


async def newer(rig: Rig, method: str, headers: dict[str, str], **params: Any) -> dict[str, Any]:
    """A request of 2026-07-28 on the route of :func:`guard`; the answer."""
    sent = {**headers, "mcp-protocol-version": "2026-07-28", "mcp-method": method}
    name = params.get("name") or params.get("uri")
    if name and method in ("tools/call", "prompts/get", "resources/read"):
        sent["mcp-name"] = name
    return await rig.rpc("/mcp", method, {**params, "_meta": META}, listener="front", headers=sent)


async def raw(rig: Rig, data: bytes, listener: str = "front") -> bytes:
    """Bytes as they are; what comes until the gateway closes, or resets because it did not read all of them."""
    host, port, _ = rig.origin(listener)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    answer = b""
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                answer += chunk
    writer.close()
    return answer


def heard(*servers: Upstream) -> bytes:
    """Everything that servers were sent, heads and bodies."""
    parts = [b"%b: %b" % field for server in servers for head in server.heads for field in head.items()]
    return b"\n".join([*parts, *(msgspec.json.encode(told) for server in servers for told in server.told)])


def flipped(text: str) -> str:
    """The text with one bit of its middle changed, of the same alphabet."""
    at = len(text) // 2
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
