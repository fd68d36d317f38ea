"""Everything around an agent host but the host: control plane, gateway, an MCP server that counts, a scripted model."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from quarterdeck import snapshot as s
from quarterdeck.errors import Denied, Forbidden, Unauthorized, UpstreamError
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.options import Options
from quarterdeck.server.database import Database
from quarterdeck.server.identity import Caller, Identity
from quarterdeck.server.kagent import KagentApi
from quarterdeck.server.runs_again import Again
from quarterdeck.server.runs_api import RunsApi
from quarterdeck.server.runs_store import LEASE, RunStore
from quarterdeck.snapshot.runs import Event
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Server

from .run_host import make_runs, start_host

GATEWAY = "quarterdeck-system/quarterdeck"
_KEY = ECKey.generate_key("P-256", {"kid": "k1", "use": "sig", "alg": "ES256"})
_ISSUER = "https://kubernetes.default.svc"
Json = dict[str, Any]


class Clock:
    """By which the control plane tells whether leases have lapsed."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Who:
    """Tokens as the control plane sees them: the agent's Pod, the gateway, and people."""

    async def workload(self, authorization: str) -> Caller:
        token = authorization.removeprefix("Bearer ")
        if token == "gateway":
            return Caller("system:serviceaccount:quarterdeck-system:quarterdeck", (), None)
        if token in ("root", "guest", ""):
            raise Unauthorized("no workload")
        return Caller("system:serviceaccount:kagent:default", (), "kagent/other" if token == "other" else "kagent/a")

    async def agent(self, authorization: str) -> str:
        caller = await self.workload(authorization)
        if caller.agent is None:
            raise Forbidden("no agent")
        return caller.agent

    async def gateway(self, authorization: str, namespace: str, name: str) -> tuple[str, str]:
        if authorization != "Bearer gateway" or f"{namespace}/{name}" != GATEWAY:
            raise Forbidden("not that gateway")
        return GATEWAY, ""

    async def person(self, authorization: str, verb: str, resource: str, namespace: str = "") -> Caller:
        if authorization != "Bearer root":
            raise Forbidden(f"cannot {verb} {resource} in {namespace or 'all namespaces'}")
        return Caller("root", (), None)


class Broken(Exception):
    """The server dies in the middle of a call."""


@dataclass
class Tools:
    """An MCP server. ``note`` is not idempotent, ``look`` is read-only; ``on_call`` is awaited while one is made."""

    calls: Counter[str] = field(default_factory=Counter[str])
    metas: list[Json] = field(default_factory=list[Json])
    on_call: Callable[[str], Awaitable[None]] | None = None
    results: dict[str, str | Json] = field(default_factory=dict[str, "str | Json"])
    """By call: the text, or the whole CallToolResult."""
    session: str = ""
    """The only session that it knows; empty: it has none."""

    async def handle(self, exchange: Exchange) -> None:
        message = json.loads(exchange.body or b"{}")
        method = message.get("method")
        shown = dict(exchange.headers).get(b"mcp-session-id", b"").decode()
        if self.session and method != "initialize" and shown != self.session:
            exchange.respond(404)
        elif method == "initialize":
            info = {"name": "t", "version": "1"}
            said = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            _answer(exchange, message, said, self.session)
        elif method == "tools/list":
            schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
            look = {"name": "look", "inputSchema": schema, "annotations": {"readOnlyHint": True}}
            _answer(exchange, message, {"tools": [{"name": "note", "inputSchema": schema}, look]})
        elif method == "tools/call":
            await self._call(exchange, message)
        else:
            exchange.respond(202)

    async def _call(self, exchange: Exchange, message: Json) -> None:
        params = message["params"]
        key = f"{params['name']} {json.dumps(params.get('arguments'))}"
        self.calls[key] += 1
        self.metas.append(params.get("_meta") or {})
        if self.on_call is not None:
            try:
                await self.on_call(key)
            except Broken:
                exchange.abort()
                return
        result = self.results.get(key, f"did {key}")
        whole = result if isinstance(result, dict) else {"content": [{"type": "text", "text": result}]}
        _answer(exchange, message, whole)


def _answer(exchange: Exchange, message: Json, result: Json, session: str = "") -> None:
    if not exchange.disconnected:
        body = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        headers = [(b"content-type", b"application/json")]
        headers += [(b"mcp-session-id", session.encode())] if session else []
        exchange.respond(200, json.dumps(body).encode(), headers)


def tool_call(name: str, n: int) -> Json:
    return {
        "id": f"{name}-{n}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps({"n": n})},
    }


@dataclass
class Model:
    """Says what comes next by how many tools have answered: a model double has no memory, as models have none."""

    script: list[list[Json]]
    asked: int = 0
    requests: list[Json] = field(default_factory=list[Json])
    on_ask: Callable[[], Awaitable[None]] | None = None
    usage: Json = field(default_factory=lambda: {"prompt_tokens": 3, "completion_tokens": 2})
    summaries: list[str] = field(default_factory=list[str])
    """What it was asked to summarize."""

    async def handle(self, exchange: Exchange) -> None:
        self.asked += 1
        if self.on_ask is not None:
            try:
                await self.on_ask()
            except Broken:
                exchange.abort()
                return
        self.requests.append(json.loads(exchange.body))
        messages = self.requests[-1]["messages"]
        if str(messages[-1]["content"]).startswith("The following is a conversation"):
            self.summaries.append(messages[-1]["content"])
            said: Json = {"role": "assistant", "content": f"summary {len(self.summaries)}"}
            exchange.respond(200, json.dumps({"choices": [{"message": said}], "usage": self.usage}).encode())
            return
        rounds = sum(m["role"] == "assistant" for m in _since_question(messages))
        if self.summaries:  # of what came before, the ids of the calls tell
            rounds = max(int(m["tool_call_id"].rpartition("-")[2]) for m in messages if m["role"] == "tool")
        calls = self.script[rounds] if rounds < len(self.script) else []
        message: Json = {"role": "assistant", "content": None if calls else "all done"}
        if calls:
            message["tool_calls"] = calls
        exchange.respond(200, json.dumps({"choices": [{"message": message}], "usage": self.usage}).encode())


def _since_question(messages: list[Json]) -> list[Json]:
    last = max(i for i, m in enumerate(messages) if m["role"] == "user")
    return messages[last:]


@dataclass
class World:
    store: RunStore
    tools: Tools
    model: Model
    url: str
    config: Json
    gateway: Gateway
    writes: int = 0
    """Requests that write to the journal so far."""
    under_way: int = 0
    """Writes that are being served."""
    on_write: Callable[[int], bool] | None = None
    """Called with the number of a write before it is served; whether it is lost on its way."""
    before: Callable[[Exchange], Awaitable[None]] | None = None
    """Awaited before the control plane gets a request."""
    away: bool = False
    """Whether the control plane answers nobody."""
    clock: Clock = field(default_factory=lambda: Clock())
    hosts: list[BaseProcess] = field(default_factory=list[BaseProcess])

    def host(self, text: str = "", *, replica: str = "pod-1") -> BaseProcess:
        """A host process; with ``text`` it begins a run for it."""
        host = start_host(self.config, self.url, agent_token(), replica, user_message(text) if text else None)
        self.hosts.append(host)
        return host

    def runs(self, replica: str) -> Any:
        """A host in this process."""
        return make_runs(self.config, self.url, agent_token(), replica)

    async def run(self) -> Json:
        """The newest run."""
        return (await self.store.select())[0]

    async def settled(self, seconds: float = 100.0, *states: str) -> tuple[Json, list[Event]]:
        """The newest run when it has ended or waits."""
        until = time.monotonic() + seconds
        while True:
            rows = await self.store.select()
            if rows and rows[0]["state"] in (states or ("completed", "failed", "canceled", "waiting")):
                return rows[0], await self.store.events(rows[0])
            assert time.monotonic() < until, f"not settled: {rows and rows[0]}"
            await asyncio.sleep(0.02)

    async def restart_gateway(self) -> None:
        """It goes in the middle of what it does, and comes back at the same address."""
        host, _, port = self.gateway.endpoints["workloads"].removeprefix("http://").partition(":")
        options = dataclasses.replace(self.gateway._options, workloads=(host, int(port)))  # pyright: ignore[reportPrivateUsage]
        await self.gateway.stop(0)
        self.gateway = Gateway(options)
        await self.gateway.start()
        self.gateway.permits.ask = self.ask

    async def conversation(self, row: Json) -> list[Json]:
        """The messages of a run's session."""
        found = await self.store.database.list_events(
            row["agent"], row["user_id"], row["session_id"], limit=-1, ascending=True
        )
        return [json.loads(event["data"])["message"] for event in found]

    async def lapse(self) -> None:
        """Let the leases lapse of all who give no sign of life from now on."""
        await self.store.claim("kagent/a", "nobody/0", 0)
        self.clock.now += LEASE

    async def _control_plane(self, inner: Callable[[Exchange], Awaitable[None]], exchange: Exchange) -> None:
        if self.away:
            exchange.abort()
            return
        if self.before is not None:
            await self.before(exchange)
        writes = exchange.method == "POST" and (
            exchange.path == "/v1/runs" or exchange.path.endswith(("/events", "/start"))
        )
        if not writes:
            await inner(exchange)
            return
        self.writes += 1
        number = self.writes
        self.under_way += 1
        try:
            if self.on_write is not None and self.on_write(number):
                exchange.abort()
                return
            await inner(exchange)
        finally:
            self.under_way -= 1

    async def ask(self, path: str, body: bytes) -> bytes:
        """The gateway's way to the control plane."""
        self.writes += 1
        number = self.writes
        if self.on_write is not None:
            self.on_write(number)
        pool = Pool()
        try:
            response = await pool.request(
                "POST", _origin(self.url), f"/v1/{path}", [(b"authorization", b"Bearer gateway")], body, timeout=5
            )
            answer = await response.read()
        finally:
            pool.close()
        if response.status >= 300:
            raise (Denied if response.status == 403 else UpstreamError)(answer.decode())
        return answer

    def kill(self, host: BaseProcess) -> None:
        assert host.pid is not None
        os.kill(host.pid, signal.SIGKILL)


@asynccontextmanager
async def replica(w: World, name: str) -> AsyncIterator[Any]:
    """A host in this process with its loop of leases."""
    runs = w.runs(name)
    beating = asyncio.create_task(runs.heartbeat.run())
    try:
        yield runs
    finally:
        await runs.stop()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


def agent_token() -> str:
    claims = {
        "iss": _ISSUER, "sub": "system:serviceaccount:kagent:default", "aud": ["quarterdeck"],
        "exp": int(time.time()) + 3600, "kubernetes.io": {"namespace": "kagent", "pod": {"name": "p", "uid": "p"}},
    }  # fmt: skip
    return jwt.encode({"alg": "ES256", "kid": "k1"}, claims, _KEY)


def user_message(text: str = "go", **more: Any) -> Json:
    return {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}], **more}


def _origin(url: str) -> tuple[str, int, bool]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port), False


def _snapshot(tools: int, key: str) -> s.Snapshot:
    server = s.McpServer("kagent", "tools", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", tools),))
    grant = s.ToolGrant("kagent", "tools", "MCPServer")
    return s.Snapshot(
        version="v1",
        mcp=(server,),
        policies=(s.AgentPolicy("kagent", "a", (grant,), hosted=True),),
        permit_keys=(key,),
        identities=s.Identities(issuer=_ISSUER, jwks={"keys": [_KEY.as_dict(private=False)]}, pods={"p": "kagent/a"}),
    )


SCRIPT = [[tool_call("note", 1), tool_call("look", 1)], [tool_call("note", 2)]]


@asynccontextmanager
async def world(tmp: Path, script: list[list[Json]] = SCRIPT, **config: Any) -> AsyncIterator[World]:
    """All of it on free ports; ``config`` goes into the agent's."""
    database = await Database.open(str(tmp / "server.db"))
    clock = Clock()
    store = RunStore(database, lambda agent: agent == "kagent/a", monotonic=clock)
    key = await store.open()
    identity = cast(Identity, Who())
    known = lambda name: name == "kagent/a"  # noqa: E731
    api = RunsApi(store, Again(store, database), identity, lambda name: name == GATEWAY, agent=known)
    router = KagentApi(database, identity, api.routes()).router()
    tools, model = Tools(), Model(script)
    made: World

    plane = Server(lambda exchange: made._control_plane(router.handle, exchange), name="plane")
    tool_server, model_server = Server(tools.handle, name="tools"), Server(model.handle, name="model")
    ports = [(await server.listen("127.0.0.1", 0))[1] for server in (plane, tool_server, model_server)]
    zero = ("127.0.0.1", 0)
    file = tmp / "snapshot.json"
    file.write_bytes(msgspec.json.encode(_snapshot(ports[1], key)))
    gateway = Gateway(Options(zero, zero, zero, zero, zero, data_dir=tmp / "gw", config=file, audit_file=tmp / "audit"))
    await gateway.start()
    settings = {
        "model": {"model": "double", "base_url": f"http://127.0.0.1:{ports[2]}/v1"},
        "http_tools": [{"params": {"url": f"{gateway.endpoints['workloads']}/mcp/kagent/tools", "timeout": 10}}],
    } | config
    made = World(store, tools, model, f"http://127.0.0.1:{ports[0]}", settings, gateway)
    made.clock = clock
    gateway.permits.ask = made.ask
    try:
        yield made
    finally:
        for host in made.hosts:
            if host.is_alive():
                made.kill(host)
            host.join()
        await made.gateway.stop(0)
        for server in (plane, tool_server, model_server):
            await server.stop(0)
        await database.close()
