"""A gateway in this process on free ports, a real MCP server beside it, and tokens as the API server signs them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from quarterdeck import snapshot as s
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.options import Options
from quarterdeck.wire.client import Origin, Pool, Response

KEY = ECKey.generate_key("P-256", {"kid": "k1", "use": "sig", "alg": "ES256"})
ISSUER = "https://kubernetes.default.svc"


def token(pod: str = "pod-a", **changes: Any) -> str:
    """A ServiceAccount token bound to a Pod."""
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "sub": "system:serviceaccount:kagent:shared",
        "aud": ["quarterdeck"],
        "exp": int(time.time()) + 7200,  # tables are made when tests are collected; the whole suite takes minutes
        "kubernetes.io": {"namespace": "kagent", "pod": {"name": pod, "uid": pod}},
    }
    claims.update(changes)
    return jwt.encode({"alg": "ES256", "kid": "k1"}, claims, KEY)


def grant(*tools: str, approval: tuple[str, ...] = (), name: str = "peer", **more: Any) -> s.ToolGrant:
    return s.ToolGrant("kagent", name, "MCPServer", tools or None, approval, **more)


def snapshot(port: int, **changes: Any) -> s.Snapshot:
    """Agents a (add only; echo needs approval), b (all of the peer), c (nothing), all on one ServiceAccount."""
    fields: dict[str, Any] = {
        "version": "v1",
        "mcp": (s.McpServer("kagent", "peer", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", port),)),),
        "policies": (
            s.AgentPolicy("kagent", "a", (grant("add", "echo", approval=("echo",)),)),
            s.AgentPolicy("kagent", "b", (grant(),)),
        ),
        "identities": s.Identities(
            issuer=ISSUER,
            jwks={"keys": [KEY.as_dict(private=False)]},
            pods={"pod-a": "kagent/a", "pod-b": "kagent/b", "pod-c": "kagent/c"},
            anonymous_local=True,
        ),
    }
    fields.update(changes)
    return s.Snapshot(**fields)


class Rig:
    """A running gateway and ways to talk to it."""

    def __init__(self, gateway: Gateway, audit_file: Path) -> None:
        self.gateway = gateway
        self.audit_file = audit_file
        self.pool = Pool()

    def origin(self, listener: str = "workloads") -> Origin:
        host, port = self.gateway.endpoints[listener].removeprefix("http://").split(":")
        return host, int(port), False

    async def request(
        self,
        path: str,
        body: Any = None,
        *,
        method: str = "POST",
        bearer: str | None = None,
        listener: str = "workloads",
        headers: dict[str, str] | None = None,
    ) -> Response:
        lines = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
        if bearer:
            lines.append((b"authorization", f"Bearer {bearer}".encode()))
        data = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        if data:
            lines.append((b"content-type", b"application/json"))
        return await self.pool.request(method, self.origin(listener), path, lines, data, timeout=60)

    async def rpc(self, path: str, method: str, params: Any = None, **options: Any) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        response = await self.request(path, body, **options)
        data = await response.read()
        if (response.header(b"content-type") or b"").startswith(b"text/event-stream"):
            data = next(line[5:] for line in data.splitlines() if line.startswith(b"data:") and len(line) > 6)
        return msgspec.json.decode(data)

    async def initialize(self, path: str, **options: Any) -> str:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        response = await self.request(path, body, **options)
        await response.read()
        session = (response.header(b"mcp-session-id") or b"").decode()
        headers = {**options.pop("headers", {}), "mcp-session-id": session}
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await (await self.request(path, done, headers=headers, **options)).read()
        return session

    def records(self) -> list[dict[str, Any]]:
        self.gateway.audit.flush()
        return [msgspec.json.decode(line) for line in self.audit_file.read_bytes().splitlines()]


@pytest.fixture(scope="session")
def peer() -> Iterator[int]:
    """Port of a real MCP server."""
    script = Path(__file__).with_name("mcp_peer.py")
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.kill()
    process.wait()


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Rig]:
    """A gateway without servers; give it a snapshot with ``rig.gateway.use``."""
    zero = ("127.0.0.1", 0)
    config = tmp_path / "snapshot.json"
    config.write_bytes(msgspec.json.encode(s.Snapshot(version="v0")))
    audit = tmp_path / "audit.jsonl"
    gateway = Gateway(
        Options(zero, zero, zero, zero, zero, data_dir=tmp_path / "data", config=config, audit_file=audit)
    )
    await gateway.start()
    rig = Rig(gateway, audit)
    yield rig
    rig.pool.close()
    await gateway.stop(0.2)


@pytest.fixture
async def rig(bare: Rig, peer: int) -> Rig:
    """A gateway in front of the real MCP server."""
    bare.gateway.use(snapshot(peer))
    return bare
