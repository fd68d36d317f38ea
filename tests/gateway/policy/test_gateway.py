"""Rules at work in a running gateway, in front of a real MCP server and plain services."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck import snapshot as s
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import (
    Authorization,
    BackendCredential,
    CelRule,
    Cors,
    Jwt,
    Location,
    McpAuthentication,
    Policies,
    Transform,
    Transformation,
)
from quarterdeck.wire.client import Response

from ..conftest import Rig
from .rig import ISSUER, KEY, Peer, json_answer, jwks, provider, token

SERVER = "Target/file/peer"
ALICE = 'jwt.sub == "alice" && mcp.tool.name in ["add", "peer_echo"]'
FOREVER = 4_000_000_000


def bearer(**claims: Any) -> dict[str, str]:
    return {
        "authorization": f"Bearer {token(**{'exp': FOREVER, **claims})}",
        "accept": "application/json, text/event-stream",
    }


async def serve(rig: Rig, *routes: r.Route, port: int = 0, **more: Any) -> None:
    server = s.McpServer("file", "peer", "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", port),))
    listener = r.Listener("web", 0, "127.0.0.1", routes=routes)
    rig.gateway.use(s.Snapshot(version="v1", mcp=(server,), listeners=(listener,), **more))
    await rig.gateway.listeners.settled()


def mcp_route(policies: Policies, prefix: Any = "conditional", path: str = "/mcp") -> r.Route:
    backend = r.McpBackend("b", (r.McpTarget("peer", SERVER, policies),), prefix)
    match = r.Match(r.PathMatch("prefix", path))
    return r.Route(
        "default/r", matches=(match,), policies=policies, backends=(r.RouteBackend(mcp=backend, policies=policies),)
    )


def rules(*given: tuple[str, str]) -> tuple[Authorization, ...]:
    return (Authorization(tuple(CelRule(e, x) for e, x in given)),)  # type: ignore[arg-type]


async def names(rig: Rig, session: str, headers: dict[str, str]) -> list[str]:
    answer = await rig.rpc("/mcp", "tools/list", listener="web", headers={**headers, "mcp-session-id": session})
    return sorted(tool["name"] for tool in answer["result"]["tools"])


async def call(rig: Rig, session: str, headers: dict[str, str], tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return await rig.rpc("/mcp", "tools/call", params, listener="web", headers={**headers, "mcp-session-id": session})


async def test_lists_show_what_calls_may_use_and_the_rest_is_unknown(bare: Rig, peer: int) -> None:
    policies = Policies(jwt=Jwt((provider(),)), mcp_authorization=rules(("allow", ALICE), ("deny", 'jwt.sub == "eve"')))
    await serve(bare, mcp_route(policies, "always"), port=peer)
    alice = bearer()
    session = await bare.initialize("/mcp", listener="web", headers=alice)
    assert await names(bare, session, alice) == ["peer_add", "peer_echo"]
    found = await call(bare, session, alice, "peer_add", a=1, b=2)
    assert found["result"]["content"][0]["text"] == "3"
    hidden = await call(bare, session, alice, "peer_fail")
    unknown = await call(bare, session, alice, "peer_nonsense")
    assert hidden["error"] == {"code": -32602, "message": "Unknown tool: peer_fail"}
    assert unknown["error"] == {"code": -32602, "message": "Unknown tool: peer_nonsense"}
    eve = bearer(sub="eve")
    session = await bare.initialize("/mcp", listener="web", headers=eve)
    assert await names(bare, session, eve) == []
    denied = [record for record in bare.records() if record["decision"] == "deny"]
    assert denied[0]["principal"] == "alice@issuer.example.org/realms/demo"


def field(response: Response, name: bytes) -> str:
    return (response.header(name) or b"").decode()


async def test_without_a_token_clients_learn_where_to_get_one(bare: Rig, peer: int) -> None:
    policies = Policies(
        mcp_authentication=McpAuthentication(Jwt((provider(),)), ISSUER, scopes=("mcp:read",)),
        cors=Cors(("https://app.example",), ("POST",), ("authorization",)),
    )
    await serve(bare, mcp_route(policies), port=peer)
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    refused = await bare.request("/mcp", body, listener="web", headers={"origin": "https://app.example"})
    assert refused.status == 401 and await refused.read()
    assert field(refused, b"access-control-allow-origin") == "https://app.example"
    challenge = field(refused, b"www-authenticate")
    where = challenge.partition('resource_metadata="')[2].partition('"')[0]
    host = f"127.0.0.1:{bare.origin('web')[1]}"
    assert where == f"http://{host}/.well-known/oauth-protected-resource/mcp"
    metadata = await bare.request("/.well-known/oauth-protected-resource/mcp", method="GET", listener="web")
    document = msgspec.json.decode(await metadata.read())
    assert metadata.status == 200 and document["resource"] == f"http://{host}/mcp"
    assert document["authorization_servers"] == [ISSUER]
    step = await bare.request("/mcp", body, listener="web", headers=bearer(scope="other"))
    assert step.status == 403 and "insufficient_scope" in field(step, b"www-authenticate") and await step.read()
    preflight = await bare.request(
        "/mcp", method="OPTIONS", listener="web",
        headers={"origin": "https://app.example", "access-control-request-method": "POST"},
    )  # fmt: skip
    assert preflight.status == 200 and field(preflight, b"access-control-allow-methods") == "POST"
    await preflight.read()


async def test_a_plain_backend_gets_what_the_rules_make_of_the_request(bare: Rig) -> None:
    async with Peer(
        lambda e: json_answer({"headers": [h[0].decode() for h in e.headers], "path": e.target.decode()})
    ) as peer:
        port = int(peer.url.rpartition(":")[2])
        policies = Policies(
            jwt=Jwt((provider(jwks=jwks(KEY)),)),
            authorization=rules(("allow", 'request.path.startsWith("/api/") && jwt.sub == "alice"')),
            transformation=Transformation(
                Transform(set=(("x-user", "jwt.sub"),)), Transform(set=(("x-code", "string(response.code)"),))
            ),
            credential=BackendCredential("key", "k3y", location=Location("header", "x-key", "")),
        )
        backend = r.RouteBackend(http=r.HttpBackend("svc", (r.Endpoint("127.0.0.1", port),)), policies=policies)
        await serve(bare, r.Route("default/r", policies=policies, backends=(backend,)))
        good = await bare.request("/api/x?y=1", method="GET", listener="web", headers=bearer())
        assert good.status == 200 and field(good, b"x-code") == "200"
        document = msgspec.json.decode(await good.read())
        assert document["path"] == "/api/x?y=1"
        assert {"x-user", "x-key"} <= set(document["headers"]) and "authorization" not in document["headers"]
        for target, headers, status in (
            ("/other", bearer(), 403),
            ("/api/x", bearer(sub="bob"), 403),
            ("/api/x", {}, 401),
        ):
            refused = await bare.request(target, method="GET", listener="web", headers=headers)
            assert refused.status == status and await refused.read()
        assert len(peer.asked) == 1


async def test_rules_that_do_not_compile_close_their_route_only(bare: Rig) -> None:
    broken = Policies(open=True, authorization=rules(("deny", "request.pth == 'x'")))
    one = r.Route("default/a", matches=(r.Match(r.PathMatch("prefix", "/a")),), policies=broken)
    async with Peer(lambda e: (200, [], b"ok")) as peer:
        backend = r.RouteBackend(
            http=r.HttpBackend("svc", (r.Endpoint("127.0.0.1", int(peer.url.rpartition(":")[2])),))
        )
        await serve(
            bare, one, r.Route("default/b", matches=(r.Match(r.PathMatch("prefix", "/b")),), backends=(backend,))
        )
        closed = await bare.request("/a", method="GET", listener="web")
        opened = await bare.request("/b", method="GET", listener="web")
        assert (closed.status, opened.status) == (500, 200)
        await closed.read(), await opened.read()


async def test_a_tool_may_need_more_scopes_than_the_rest(bare: Rig, peer: int) -> None:
    """Step-up (MCP 2025-11-25, SEP-835): the tool is listed, its call asks for the scope."""
    mcp = McpAuthentication(Jwt((provider(),)), ISSUER, scopes=("mcp:read",), tool_scopes={"add": ("mcp:write",)})
    await serve(bare, mcp_route(Policies(mcp_authentication=mcp)), port=peer)
    some, more = bearer(scope="mcp:read"), bearer(scope="mcp:read mcp:write")
    session = await bare.initialize("/mcp", listener="web", headers=some)
    assert "add" in await names(bare, session, some)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    refused = await bare.request("/mcp", body, listener="web", headers={**some, "mcp-session-id": session})
    challenge = field(refused, b"www-authenticate")
    assert refused.status == 403 and 'error="insufficient_scope"' in challenge and 'scope="mcp:write"' in challenge
    await refused.read()
    granted = await call(bare, session, more, "add", a=1, b=2)
    assert granted["result"]["content"][0]["text"] == "3"
