"""Requests with a head that was seen before take a shorter way; it must lead where the long one leads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.gateway.way import Way
from quarterdeck.snapshot import policies as p
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.revocations import Revocation

from .conftest import ISSUER, KEY, Rig, snapshot, token

USERS = "https://users.example.org"
ADD = {"name": "add", "arguments": {"a": 1, "b": 2}}


def user(**changes: Any) -> str:
    return token(**{"iss": USERS, "aud": "gateway", "sub": "alice", "kubernetes.io": None, **changes})


def routed(peer: int, *rules: p.CelRule, **more: Any) -> s.Snapshot:
    """A listener ``l`` whose one route asks for a user's token."""
    public: dict[str, Any] = {"keys": [KEY.as_dict(private=False)]}
    policies = p.Policies(
        jwt=p.Jwt((p.JwtProvider(USERS, ("gateway",), jwks=public),)),
        mcp_authorization=(p.Authorization(rules, where="test"),) if rules else (),
        **more,
    )
    backend = r.RouteBackend(mcp=r.McpBackend("b", (r.McpTarget("peer", "Target/kagent/peer"),)), policies=policies)
    route = r.Route(
        "kagent/r", matches=(r.Match(r.PathMatch("prefix", "/mcp")),), policies=policies, backends=(backend,)
    )
    server = s.McpServer("kagent", "peer", "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", peer),))
    return snapshot(
        peer, mcp=(server,), listeners=(r.Listener("l", 0, address="127.0.0.1", routes=(route,)),), version=str(rules)
    )


def ways(rig: Rig) -> list[Way]:
    """Those that requests have found so far."""
    servers = [*rig.gateway._servers, *(opened.server for opened in rig.gateway.listeners._open.values())]
    heads = [head for server in servers for head in server.seen._heads.values()]
    return [head.memo for head in heads if head.memo is not None]


async def call(rig: Rig, session: str, name: str = "add", **options: Any) -> dict[str, Any]:
    params = {"name": name, "arguments": ADD["arguments"]}
    return await rig.rpc(
        options.pop("path", "/mcp"), "tools/call", params, headers={"mcp-session-id": session}, **options
    )


@pytest.fixture
async def users(rig: Rig, peer: int) -> Rig:
    rig.gateway.use(routed(peer, p.CelRule("allow", 'jwt.sub == "alice" && mcp.tool.name == "add"')))
    await rig.gateway.listeners.settled()
    return rig


async def test_calls_of_a_known_head_are_decided_by_tool_and_recorded(users: Rig) -> None:
    options: dict[str, Any] = {"bearer": user(), "listener": "l"}
    session = await users.initialize("/mcp", **options)
    for _ in range(4):
        assert "result" in await call(users, session, **options)
        assert "Unknown tool" in (await call(users, session, "echo", **options))["error"]["message"]
    assert any(way.routed is not None for way in ways(users))
    records = [record for record in users.records() if record["method"] == "tools/call"]
    assert [record["decision"] for record in records] == ["allow", "deny"] * 4
    assert {record["principal"] for record in records} == {"alice@users.example.org"}
    assert {record["rule"] for record in records if record["decision"] == "allow"} == {"test/allow/0"}
    assert {record["route"] for record in records} == {"kagent/r"}


async def test_a_new_configuration_holds_for_the_next_call(users: Rig, peer: int) -> None:
    options: dict[str, Any] = {"bearer": user(), "listener": "l"}
    session = await users.initialize("/mcp", **options)
    for _ in range(3):
        assert "result" in await call(users, session, **options)
    users.gateway.use(routed(peer, p.CelRule("allow", 'jwt.sub == "bob"')))
    assert "error" in await call(users, session, **options)


async def test_a_token_that_has_expired_is_no_longer_known(users: Rig) -> None:
    options: dict[str, Any] = {"bearer": user(), "listener": "l"}
    session = await users.initialize("/mcp", **options)
    for _ in range(3):
        assert "result" in await call(users, session, **options)
    for way in ways(users):
        way.holds = lambda: False
    assert "result" in await call(users, session, **options)
    past = user(exp=1)
    response = await users.request("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, listener="l", bearer=past)
    assert response.status == 401


@pytest.mark.parametrize("listener", ["l", "workloads"])
async def test_who_is_revoked_is_so_at_once(rig: Rig, peer: int, listener: str) -> None:
    config = routed(peer)
    config = msgspec.structs.replace(config, mcp=(*config.mcp, *snapshot(peer).mcp))
    rig.gateway.use(config)
    await rig.gateway.listeners.settled()
    local = listener == "workloads"
    options: dict[str, Any] = {"bearer": token("pod-b") if local else user(), "listener": listener}
    path = "/mcp/kagent/peer" if local else "/mcp"
    session = await rig.initialize(path, **options)
    for _ in range(3):
        assert "result" in await call(rig, session, path=path, **options)
    assert ways(rig)
    who = Revocation("r", "agent", "kagent/b") if local else Revocation("r", "user", "alice@users.example.org")
    rig.gateway.revocations.use((who,))
    assert "error" in await call(rig, session, path=path, **options)
    rig.gateway.revocations.use(())
    session = await rig.initialize(path, **options)
    assert "result" in await call(rig, session, path=path, **options)


async def test_another_token_on_the_same_connection_is_another_caller(users: Rig) -> None:
    session = await users.initialize("/mcp", bearer=user(), listener="l")
    for _ in range(3):
        assert "result" in await call(users, session, bearer=user(sub="alice", jti="1"), listener="l")
    mallory = await call(users, session, bearer=user(sub="mallory"), listener="l")
    assert "error" in mallory


@pytest.mark.parametrize(
    "rule",
    [
        'request.headers["host"] != ""',
        'source.address != ""',
        "request.startTime == request.startTime",
        'string(request.body).contains("add")',
        "random() < 2.0",
    ],
)
async def test_what_more_than_the_head_decides_is_decided_anew(rig: Rig, peer: int, rule: str) -> None:
    rig.gateway.use(routed(peer, p.CelRule("allow", rule)))
    await rig.gateway.listeners.settled()
    options: dict[str, Any] = {"bearer": user(), "listener": "l"}
    session = await rig.initialize("/mcp", **options)
    for _ in range(3):
        assert "result" in await call(rig, session, **options)
    assert all(not way._decisions for way in ways(rig))


async def test_limits_count_calls_of_known_heads(rig: Rig, peer: int) -> None:
    rig.gateway.use(routed(peer, rate_limits=(p.RateLimit(6, 1, 3600.0),)))
    await rig.gateway.listeners.settled()
    options: dict[str, Any] = {"bearer": user(), "listener": "l"}
    session = await rig.initialize("/mcp", **options)  # two requests
    answers = [await call(rig, session, **options) for _ in range(6)]
    assert ["result" in answer for answer in answers] == [True] * 4 + [False] * 2


async def test_a_body_that_is_too_large_is_refused_on_a_known_head(rig: Rig, peer: int) -> None:
    rig.gateway.use(routed(peer, max_body=500))
    await rig.gateway.listeners.settled()
    options: dict[str, Any] = {"bearer": user(), "listener": "l"}
    session = await rig.initialize("/mcp", **options)
    for _ in range(3):
        assert "result" in await call(rig, session, **options)
    large = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "add", "arguments": {"a": "x" * 600}},
    }
    response = await rig.request("/mcp", large, headers={"mcp-session-id": session}, **options)
    assert response.status == 413


async def test_keys_that_go_take_the_callers_with_them(rig: Rig, peer: int) -> None:
    """A workload's way ends with its token; the issuer in the snapshot is the one the token names."""
    assert ISSUER
    options: dict[str, Any] = {"bearer": token("pod-b"), "listener": "workloads", "path": "/mcp/kagent/peer"}
    session = await rig.initialize("/mcp/kagent/peer", bearer=options["bearer"])
    for _ in range(3):
        assert "result" in await call(rig, session, **options)
    assert ways(rig)
    rig.gateway.use(snapshot(peer, version="v2", identities=s.Identities(issuer=ISSUER, pods={"pod-b": "kagent/b"})))
    response = await rig.request(
        "/mcp/kagent/peer", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, bearer=options["bearer"]
    )
    assert response.status == 401
