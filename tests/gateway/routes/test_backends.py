"""Routes to MCP servers, agents and models, and the rules they carry."""

from __future__ import annotations

from typing import Any

import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from quarterdeck import snapshot as s
from quarterdeck.snapshot import policies as p
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Policies
from quarterdeck.wire.http import Exchange

from ..conftest import Rig
from .conftest import Front, echo, route, seen

KEY = ECKey.generate_key("P-256", {"kid": "k", "alg": "ES256"})
ISSUER = "https://idp.example"
PROVIDER = p.JwtProvider(ISSUER, jwks={"keys": [KEY.as_dict(private=False)]})


def bearer(sub: str) -> dict[str, str]:
    claims = {"iss": ISSUER, "sub": sub, "exp": 4_000_000_000}
    return {"authorization": "Bearer " + jwt.encode({"alg": "ES256", "kid": "k"}, claims, KEY)}


def rules(*expressions: str) -> tuple[p.Authorization, ...]:
    return (p.Authorization(tuple(p.CelRule("allow", text) for text in expressions)),)


async def rpc(front: Front, path: str, method: str, params: Any = None, **options: Any) -> Any:
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream",
               **options.pop("headers", {})}  # fmt: skip
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}})
    response = await front.ask(path, method="POST", headers=headers, body=body, **options)
    data = await response.read()
    if (response.header(b"content-type") or b"").startswith(b"text/event-stream"):
        data = next(line[5:] for line in data.splitlines() if line.startswith(b"data:") and len(line) > 6)
    return msgspec.json.decode(data) | {"status": response.status, "session": response.header(b"mcp-session-id")}


async def session(front: Front, path: str, headers: dict[str, str]) -> dict[str, str]:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await rpc(front, path, "initialize", params, headers=headers)
    assert answer["session"], answer
    return {**headers, "mcp-session-id": answer["session"].decode(), "mcp-protocol-version": "2025-11-25"}


async def test_an_mcp_server_behind_a_route_with_rules(front: Front, peer: int) -> None:
    server = s.McpServer("file", "peer", "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", peer),))
    policies = Policies(jwt=p.Jwt((PROVIDER,)), mcp_authorization=rules('jwt.sub == "ann" && mcp.tool.name == "add"'))
    backend = r.McpBackend("tools", (r.McpTarget("peer", "Target/file/peer", policies),))
    rule = route(
        r.RouteBackend(mcp=backend, policies=policies),
        policies=policies,
        matches=(r.Match(r.PathMatch("prefix", "/t")),),
    )
    await front.serve(front.listener(rule), mcp=(server,))
    assert (await front.ask("/t/mcp", method="POST")).status == 401
    assert (await front.ask("/mcp", method="POST")).status == 404
    ann, bob = await session(front, "/t/mcp", bearer("ann")), await session(front, "/t/mcp", bearer("bob"))
    tools = await rpc(front, "/t/mcp", "tools/list", headers=ann)
    assert [tool["name"] for tool in tools["result"]["tools"]] == ["add"]
    call = {"name": "add", "arguments": {"a": 1, "b": 2}}
    assert (await rpc(front, "/t/mcp", "tools/call", call, headers=ann))["result"]["content"][0]["text"] == "3"
    denied = await rpc(front, "/t/mcp", "tools/call", call, headers=bob)
    unknown = await rpc(front, "/t/mcp", "tools/call", {"name": "nothing", "arguments": {}}, headers=ann)
    assert (denied["error"]["code"], unknown["error"]["code"]) == (-32602, -32602)
    assert front.rig.records()[-1]["kind"] == "mcp"


async def test_rules_of_the_route_hold_for_targets_that_have_none(front: Front, peer: int) -> None:
    server = s.McpServer("file", "peer", "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", peer),))
    policies = Policies(mcp_authorization=rules('mcp.tool.name == "echo"'))
    backend = r.McpBackend("tools", (r.McpTarget("peer", "Target/file/peer"),))
    only = route(r.RouteBackend(mcp=backend, policies=policies))
    await front.serve(front.listener(only, hostname="*.example"), mcp=(server,))
    headers = await session(front, "/", {})
    tools = await rpc(front, "/", "tools/list", headers=headers)
    assert [tool["name"] for tool in tools["result"]["tools"]] == ["echo"]
    denied = await rpc(front, "/", "tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}, headers=headers)
    assert denied["error"]["code"] == -32602


async def test_an_agent_behind_a_route(front: Front, start: Any) -> None:
    def reply(exchange: Exchange) -> None:
        if exchange.path.endswith(".json"):
            exchange.respond(200, b'{"name":"a","url":"http://a.kagent:8080/"}')
        else:
            exchange.respond(200, msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "result": {"at": exchange.path}}))

    svc = await start(reply)
    agent = s.Agent("kagent", "a", (s.Endpoint("127.0.0.1", svc.port),))
    rule = route(r.RouteBackend(agent="kagent/a"), matches=(r.Match(r.PathMatch("prefix", "/talk")),))
    missing = route(r.RouteBackend(agent="kagent/b"), name="default/b")
    await front.serve(front.listener(rule, missing), agents=(agent,))
    answer = await rpc(front, "/talk/v1", "message/send")
    assert answer["result"]["at"] == "/v1"
    card = msgspec.json.decode(await (await front.ask("/talk/.well-known/agent-card.json", host="h.example")).read())
    assert card["url"] == "http://h.example/talk"
    assert (await front.ask("/other")).status == 500


async def test_a_model_behind_a_route(front: Front, start: Any) -> None:
    def reply(exchange: Exchange) -> None:
        body = {"id": "1", "model": "m", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        exchange.respond(200, msgspec.json.encode(body), [(b"content-type", b"application/json")])

    svc = await start(reply)
    model = s.Model("kagent", "m", "OpenAI", "gpt", f"http://127.0.0.1:{svc.port}/v1")
    rule = route(r.RouteBackend(model="kagent/m"), matches=(r.Match(r.PathMatch("prefix", "/ai")),))
    await front.serve(front.listener(rule), models=(model,))
    response = await front.ask("/ai/v1/chat/completions", method="POST", body=b'{"messages":[]}')
    assert (response.status, svc.seen[0].target) == (200, b"/v1/chat/completions")


async def test_the_rules_of_a_route_guard_a_plain_service(front: Front, start: Any) -> None:
    svc = await start()
    policies = Policies(
        jwt=p.Jwt((PROVIDER,)), authorization=rules('request.path.startsWith("/free") || jwt.sub == "ann"')
    )
    await front.serve(front.listener(route(svc.to(policies=policies), policies=policies)))
    assert (await front.ask("/x")).status == 401
    assert (await front.ask("/x", headers=bearer("bob"))).status == 403
    got = await seen(await front.ask("/x", headers=bearer("ann")))
    assert "authorization" not in got["fields"]
    assert (await front.ask("/free/../x", headers=bearer("bob"))).status == 403
    assert (await front.ask("/free/x", headers=bearer("bob"))).status == 200
    assert [record["status"] for record in front.rig.records()] == [401, 403, 200, 403, 200]


async def test_cross_origin_answers_come_with_every_kind_of_backend(front: Front, start: Any) -> None:
    svc = await start()
    policies = Policies(cors=p.Cors(("https://ui.example",), ("GET",), expose_headers=("x-a",)))
    only = Policies(direct_response=p.DirectResponse(200, "d"), cors=policies.cors)
    await front.serve(front.listener(
        route(svc.to(policies=policies), policies=policies),
        route(policies=only, name="default/d", matches=(r.Match(r.PathMatch("exact", "/d")),)),
    ))  # fmt: skip
    origin = {"origin": "https://ui.example"}
    preflight = await front.ask("/", method="OPTIONS", headers={**origin, "access-control-request-method": "GET"})
    assert preflight.status in (200, 204)
    assert preflight.header(b"access-control-allow-origin") == b"https://ui.example"
    assert not svc.seen
    for target in ("/", "/d"):
        response = await front.ask(target, headers=origin)
        assert response.header(b"access-control-allow-origin") == b"https://ui.example"


async def test_a_listener_has_rules_of_its_own(front: Front, start: Any) -> None:
    svc = await start()
    inner = Policies(authorization=rules('jwt.sub == "ann"'))
    listener = front.listener(route(svc.to(policies=inner), policies=inner), policies=Policies(jwt=p.Jwt((PROVIDER,))))
    await front.serve(listener)
    assert (await front.ask("/")).status == 401
    assert (await front.ask("/", headers=bearer("ann"))).status == 200
    assert (await front.ask("/", headers=bearer("bob"))).status == 403


async def test_metadata_lies_beside_the_resource(front: Front, peer: int) -> None:
    server = s.McpServer("file", "peer", "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", peer),))
    policies = Policies(mcp_authentication=p.McpAuthentication(p.Jwt((PROVIDER,)), ISSUER))
    backend = r.McpBackend("tools", (r.McpTarget("peer", "Target/file/peer", policies),))
    rule = route(
        r.RouteBackend(mcp=backend, policies=policies),
        policies=policies,
        matches=(r.Match(r.PathMatch("prefix", "/t")),),
    )
    await front.serve(front.listener(rule), mcp=(server,))
    response = await front.ask("/t/mcp", method="POST")
    assert response.status == 401
    assert b"/.well-known/oauth-protected-resource/t/mcp" in (response.header(b"www-authenticate") or b"")
    response = await front.ask("/.well-known/oauth-protected-resource/t/mcp")
    found = msgspec.json.decode(await response.read())
    assert (response.status, found["resource"]) == (200, "http://x.example/t/mcp")
    assert (await front.ask("/.well-known/oauth-protected-resource/other")).status == 404


async def test_a_response_is_changed_as_a_whole(front: Front, start: Any) -> None:
    svc = await start(lambda exchange: exchange.respond(201, b"old", [(b"x-old", b"1")]))
    change = p.Transformation(response=p.Transform(set=(("x-code", "string(response.code)"),), body="'new'"))
    policies = Policies(transformation=change)
    await front.serve(front.listener(route(svc.to(policies=policies), policies=policies)))
    response = await front.ask()
    assert (response.status, response.header(b"x-code"), await response.read()) == (201, b"201", b"new")


async def test_nothing_is_served_that_could_not_be_recorded(front: Front, start: Any, rig: Rig) -> None:
    svc = await start(echo)
    await front.serve(front.listener(route(svc.to())))
    front.gateway.audit.blocked = True
    assert (await front.ask()).status == 503
    assert not svc.seen
