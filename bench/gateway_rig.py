"""The gateway process as the bench runs it: cheap upstreams, one agent, one issuer of tokens, one audit file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from quarterdeck import snapshot as s
from quarterdeck.snapshot import policies as p
from quarterdeck.snapshot import routing as r

from . import gotools
from .measure import ROOT

LEGACY, MODERN = "2025-11-25", "2026-07-28"
ISSUER = "https://issuer.bench"
SERVERS, TOOLS = 10, 20
_SHOWN = ["echo", *(f"echo{n:02}" for n in range(1, 10)), "echo19"]
_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_PATHS = {
    "person": "/mcp/kagent/peer", "agent": "/mcp/kagent/peer", "user": "/cheap", "large": "/cheap", "modern": "/cheap",
    "traced": "/cheap", "fresh": "/cheap", "denied": "/cheap", "many": "/many", "list": "/many", "kept": "/kept",
    "sse": "/streamed",
}  # fmt: skip
_EXTRA = {
    "traced": b"traceparent: 00-0af7651916cd43dd8448ab##########-b7ad6b7169203331-01\r\n",
    "fresh": b"x-request-id: ##########\r\n",
}
"""Headers that are others in every call: the load puts a number there."""


@dataclass(frozen=True, slots=True)
class Wire:
    """Requests as bytes: what is sent to the gateway, sessions opened before."""

    workload: bytes
    bearer: bytes
    """Header lines of the agent and of the user."""
    sessions: dict[str, bytes]
    denied_status: int = 200

    def path(self, kind: str) -> str:
        return _PATHS[kind]

    def call(self, kind: str) -> bytes:
        return request(_PATHS[kind], self.headers(kind) + self.sessions.get(kind, b""), body(kind))

    def headers(self, kind: str) -> bytes:
        token = {"person": b"", "agent": self.workload}.get(kind, self.bearer)
        if kind == "modern":
            return token + b"mcp-protocol-version: %b\r\nmcp-method: tools/call\r\nmcp-name: echo\r\n" % MODERN.encode()
        if kind == "kept":
            return token + b"mcp-protocol-version: %b\r\nmcp-method: tools/list\r\n" % MODERN.encode()
        return token + _EXTRA.get(kind, b"") + b"mcp-protocol-version: %b\r\n" % LEGACY.encode()


@dataclass(frozen=True, slots=True)
class Rig:
    """A gateway process (or the supervisor of its workers), its ports by listener, and the upstreams behind it."""

    pid: int
    ports: dict[str, int]
    wire: Wire
    audit: Path
    behind: dict[str, tuple[int, int]]
    """Kind of upstream → pid and port."""

    def upstreams(self) -> list[tuple[str, int, int, bytes]]:
        """What each costs by itself is measured with the very request that the gateway gets."""
        kinds = (("json", "json", "user"), ("many", "many", "user"), ("sse", "sse", "sse"), ("large", "json", "large"))
        line = b"mcp-protocol-version: %b\r\n" % LEGACY.encode()
        return [(name, *self.behind[which], request("/mcp", line, body(kind))) for name, which, kind in kinds]


def body(kind: str) -> bytes:
    """One JSON-RPC message."""
    name = {"denied": "echo15", "many": "s3_echo"}.get(kind, "echo")
    text = "x" * 16_384 if kind == "large" else "hello"
    params: dict[str, Any] = {"name": name, "arguments": {"text": text}}
    if kind in ("list", "kept"):
        params = {}
    if kind in ("modern", "kept"):
        params["_meta"] = _META
    method = "tools/list" if kind in ("list", "kept") else "tools/call"
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}, separators=(",", ":")).encode()


def request(path: str, headers: bytes, content: bytes) -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json, text/event-stream\r\n"
        b"content-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
        % (path.encode(), headers, len(content), content)
    )


def snapshot(behind: dict[str, tuple[int, int]], keys: ECKey) -> s.Snapshot:
    """One agent that may call one tool of one server; and one listener whose routes apply every kind of rule."""
    grant = s.ToolGrant("kagent", "peer", "MCPServer", ("echo", "add"))
    public: dict[str, Any] = {"keys": [keys.as_dict(private=False)]}

    def server(name: str, upstream: str, kind: Any = "Target") -> s.McpServer:
        return s.McpServer("kagent", name, kind, "/mcp", endpoints=(s.Endpoint("127.0.0.1", behind[upstream][1]),))

    many = [f"s{number}" for number in range(SERVERS)]
    shown = json.dumps(_SHOWN)
    rules = (
        p.CelRule("allow", f'jwt.sub == "bench" && mcp.tool.name in {shown}'),
        p.CelRule("deny", 'mcp.tool.name == "shutdown"'),
    )
    policies = p.Policies(
        jwt=p.Jwt((p.JwtProvider(ISSUER, ("gateway",), jwks=public),)),
        mcp_authorization=(p.Authorization(rules, where="bench"),),
        rate_limits=(p.RateLimit(1_000_000_000, 1_000_000_000, 1.0),),
        breaker=p.Breaker(),
    )

    def route(name: str, *targets: str) -> r.Route:
        backend = r.McpBackend(name, tuple(r.McpTarget(target, f"Target/kagent/{target}") for target in targets))
        match = r.Match(r.PathMatch("prefix", f"/{name}"))
        return r.Route(
            name, matches=(match,), policies=policies, backends=(r.RouteBackend(mcp=backend, policies=policies),)
        )

    kept = [f"k{number}" for number in range(SERVERS)]
    routes = (route("cheap", "cheap"), route("streamed", "streamed"), route("many", *many), route("kept", *kept))
    return s.Snapshot(
        version="bench",
        mcp=(
            server("peer", "json", "MCPServer"), server("cheap", "json"), server("streamed", "sse"),
            *(server(name, "many") for name in many), *(server(name, "kept") for name in kept),
        ),
        policies=(s.AgentPolicy("kagent", "a", (grant,), ()),),
        identities=s.Identities(issuer="bench", jwks=public, pods={"pod-a": "kagent/a"}, anonymous_local=True),
        listeners=(r.Listener("governed", 0, address="127.0.0.1", routes=routes),),
    )  # fmt: skip


def many_files() -> None:
    """Let this process and what it starts have as many files open as ten thousand idle sessions need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, 65_536)
    with contextlib.suppress(ValueError, OSError):  # only root may have more than the machine grants
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))


@contextlib.asynccontextmanager
async def rig(command: Path, workers: int = 0) -> AsyncIterator[Rig]:
    """The real gateway process in front of the upstreams. ``workers`` as the flag; 0: its default."""
    many_files()
    key = ECKey.generate_key("P-256", {"kid": "k", "alg": "ES256"})
    later = int(time.time()) + 3600
    workload = _token(
        key, {"iss": "bench", "aud": "quarterdeck", "exp": later, "kubernetes.io": {"pod": {"uid": "pod-a"}}}
    )
    bearer = _token(key, {"iss": ISSUER, "aud": "gateway", "exp": later, "sub": "bench"})
    async with contextlib.AsyncExitStack() as stack:
        behind = {
            "json": stack.enter_context(gotools.upstream(command)),
            "sse": stack.enter_context(gotools.upstream(command, "-sse")),
            "many": stack.enter_context(gotools.upstream(command, "-tools", str(TOOLS))),
            "kept": stack.enter_context(gotools.upstream(command, "-tools", str(TOOLS), "-fresh", "60000")),
        }
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qd-bench-")))
        pid, ports = await stack.enter_async_context(process(folder, snapshot(behind, key), workers))
        sessions: dict[str, bytes] = {}
        wire = Wire(workload, bearer, sessions)
        for kind in _PATHS:
            if kind not in ("modern", "kept"):
                listener = {"person": "local", "agent": "workloads"}.get(kind, "governed")
                sessions[kind] = await _session(ports[listener], wire, kind)
        yield Rig(pid, ports, wire, folder / "audit.jsonl", behind)


def _token(key: ECKey, claims: dict[str, Any]) -> bytes:
    return b"authorization: Bearer %b\r\n" % jwt.encode({"alg": "ES256", "kid": "k"}, claims, key).encode()


@contextlib.asynccontextmanager
async def process(folder: Path, config: s.Snapshot, workers: int) -> AsyncIterator[tuple[int, dict[str, int]]]:
    file, endpoints = folder / "snapshot.json", folder / "endpoints.json"
    file.write_bytes(s.encode(config))
    flags = [f"--{name}=127.0.0.1:0" for name in ("local", "workloads", "stats", "ready", "admin")]
    flags += [f"--config={file}", f"--data-dir={folder}/data", f"--endpoints-file={endpoints}"]
    flags += [f"--audit-file={folder}/audit.jsonl", *([f"--workers={workers}"] if workers else [])]
    command = [sys.executable, "-m", "quarterdeck.gateway", *flags]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, cwd=ROOT, env=dict(os.environ))
        try:
            deadline = time.monotonic() + 20.0
            while not endpoints.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the gateway did not start: {(folder / 'gateway.log').read_text()[-500:]}")
                await asyncio.sleep(0.05)
            listeners = {k: v for k, v in json.loads(endpoints.read_text()).items() if k != "pid"}
            yield process.pid, {k: int(str(v).rpartition(":")[2]) for k, v in listeners.items()}
        finally:
            process.terminate()
            process.wait()


async def _session(port: int, wire: Wire, kind: str) -> bytes:
    """Initialize; the session header line to send from then on."""
    start = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(wire.path(kind), wire.headers(kind), json.dumps(message).encode()))
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"mcp-session-id: "):
            return line + b"\r\n"
    raise RuntimeError(f"{kind}: no session: {head.decode('latin-1')}")


def governed_calls(audit: Path) -> int:
    """Lines of tools/call in the audit file and what rotation left of it."""
    return sum(_lines(path) for path in audit.parent.glob(f"{audit.name}*"))


def _lines(path: Path) -> int:
    def blocks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block

    return sum(block.count(b'"method":"tools/call"') for block in blocks())
