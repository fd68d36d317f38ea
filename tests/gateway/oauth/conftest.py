"""A gateway in front of a protected MCP server, where two people are known by their tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Jwt, Policies
from quarterdeck.snapshot.sign_in import SignIn

from ..conftest import ISSUER as WORKLOADS
from ..conftest import KEY as WORKLOAD_KEY
from ..conftest import Rig
from ..policy.rig import ISSUER, provider, token
from .servers import Browser, Issuer, Protected

FOREVER = 4_000_000_000
SERVER = "Target/file/notes"
URL_ABLE = {"elicitation": {"form": {}, "url": {}}}


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Person:
    """Somebody's MCP client, of the older era or of 2026-07-28."""

    def __init__(self, world: World, user: str, capabilities: dict[str, Any], *, path: str = "/mcp") -> None:
        self.world = world
        self.user = user
        self.id = f"{user}@{ISSUER.partition('://')[2]}"
        self.capabilities = capabilities
        self.path = path
        self.session = ""
        self.headers = {
            "authorization": f"Bearer {token(sub=user, exp=FOREVER)}",
            "accept": "application/json, text/event-stream",
        }

    async def begin(self) -> dict[str, Any]:
        """Initialise a session; what the server said of itself."""
        params = {
            "protocolVersion": "2025-11-25", "capabilities": self.capabilities,
            "clientInfo": {"name": "t", "version": "1"},
        }  # fmt: skip
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        response = await self.world.rig.request(self.path, body, listener="web", headers=self.headers)
        self.session = (response.header(b"mcp-session-id") or b"").decode()
        return msgspec.json.decode(await response.read())["result"]

    async def rpc(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {**self.headers, "mcp-session-id": self.session}
        return await self.world.rig.rpc(self.path, method, params or {}, listener="web", headers=headers)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return await self.rpc("tools/call", {"name": tool, "arguments": arguments})

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self.rpc("tools/list"))["result"]["tools"]]

    async def text(self, tool: str, **arguments: Any) -> str:
        return (await self.call(tool, **arguments))["result"]["content"][0]["text"]

    async def url(self, tool: str = "whoami") -> str:
        """Where a call that needs a sign-in leads."""
        error = (await self.call(tool))["error"]
        assert error["code"] == -32042, error
        return error["data"]["elicitations"][0]["url"]

    async def signed_in(self, browser: Browser | None = None) -> str:
        """Sign in and give the code; what the tool then says."""
        code = await (browser or Browser(self.user)).sign_in(await self.url())
        return await self.text("sign_in", code=code)

    async def modern(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": self.capabilities,
        }
        params = {**(params or {}), "_meta": meta}
        headers = {**self.headers, "mcp-protocol-version": "2026-07-28", "mcp-method": method}
        if "name" in params:
            headers["mcp-name"] = params["name"]
        return await self.world.rig.rpc(self.path, method, params, listener="web", headers=headers)


class World:
    """Gateway, server and issuer."""

    def __init__(self, rig: Rig, issuer: Issuer, server: Protected, clock: Clock) -> None:
        self.rig = rig
        self.issuer = issuer
        self.server = server
        self.clock = clock

    async def serve(self, **changes: Any) -> None:
        """Serve by these settings of the sign-in."""
        port = int(self.server.url.rpartition(":")[2])
        fields: dict[str, Any] = {"headers": changes.pop("headers", ())}
        credential = changes.pop("credential", None)
        settings = SignIn(f"{self.server.url}/mcp", label="Notes", **changes)
        notes = s.McpServer(
            "file", "notes", "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", port),), sign_in=settings,
            timeout=5.0, **fields,
        )  # fmt: skip
        policies = Policies(jwt=Jwt((provider(),)))
        target = Policies(credential=credential)
        routes = tuple(
            r.Route(
                f"default/{prefix}",
                matches=(r.Match(r.PathMatch("prefix", path)),),
                policies=policies,
                backends=(
                    r.RouteBackend(
                        mcp=r.McpBackend("b", (r.McpTarget("notes", SERVER, target),), prefix), policies=policies
                    ),
                ),
            )
            for path, prefix in (("/mcp", "conditional"), ("/many", "always"))
        )
        remote = s.McpServer(
            "kagent", "notes", "RemoteMCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", port),), sign_in=settings
        )
        grants = (s.ToolGrant("kagent", "notes", "RemoteMCPServer"),)
        self.rig.gateway.use(
            s.Snapshot(
                version="v1",
                mcp=(notes, remote),
                listeners=(r.Listener("web", 0, "127.0.0.1", routes=routes),),
                policies=(s.AgentPolicy("kagent", "a", grants),),
                identities=s.Identities(
                    issuer=WORKLOADS,
                    jwks={"keys": [WORKLOAD_KEY.as_dict(private=False)]},
                    pods={"pod-a": "kagent/a"},
                    anonymous_local=True,
                ),
            )
        )
        await self.rig.gateway.listeners.settled()

    def person(self, user: str, capabilities: dict[str, Any] | None = None, **options: Any) -> Person:
        return Person(self, user, URL_ABLE if capabilities is None else capabilities, **options)

    def events(self) -> list[tuple[str, str, str]]:
        """What was recorded of sign-ins: method, who, outcome."""
        records = self.rig.records()
        return [(x["method"], x["principal"], x["outcome"]) for x in records if x["method"].startswith("oauth/")]


@pytest.fixture
async def world(bare: Rig) -> AsyncIterator[World]:
    clock = Clock()
    bare.gateway.sign_ins.sign_ins.clock = clock
    async with Issuer() as issuer, Protected(issuer) as server:
        found = World(bare, issuer, server, clock)
        await found.serve()
        yield found
