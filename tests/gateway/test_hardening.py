"""What an attacker at, in front of or behind the gateway tries."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.wire.http import Exchange, Header, Server

from .conftest import Rig, grant, snapshot, token

PATH = "/mcp/kagent/peer"
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}'


class Upstream:
    """An MCP server that remembers what it is sent and never ends a GET."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[Header] = []
        self.asked = asyncio.Event()
        self.server = Server(self.handle)
        self.port = 0

    def handle(self, exchange: Exchange) -> None:
        self.bodies.append(exchange.body)
        self.headers = exchange.headers
        if exchange.method == "GET":
            exchange.start(200, [(b"content-type", b"text/event-stream")])
            exchange.write(b": hello\n\n")
            self.asked.set()
        else:
            body = b'{"jsonrpc":"2.0","id":1,"result":{}}'
            exchange.respond(200, body, [(b"content-type", b"application/json")])


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    _, upstream.port = await upstream.server.listen("127.0.0.1", 0)
    yield upstream
    await upstream.server.stop(0)


def remote(host: str, port: int) -> s.McpServer:
    return s.McpServer("kagent", "remote", "RemoteMCPServer", "/mcp", endpoints=(s.Endpoint(host, port),))


async def test_a_token_whose_crit_is_no_list_is_refused(rig: Rig) -> None:
    header = urlsafe_b64encode(b'{"alg":"ES256","kid":"k1","crit":5}').rstrip(b"=").decode()
    response = await rig.request(PATH, {}, bearer=f"{header}.e30.AAAA")
    assert response.status == 401


async def test_an_answer_cannot_carry_a_call_in_other_letters(bare: Rig, upstream: Upstream) -> None:
    policies = (s.AgentPolicy("kagent", "b", (grant(approval=("echo",)),)),)
    bare.gateway.use(snapshot(upstream.port, policies=policies))
    body = b'{"jsonrpc":"2.0","id":1,"result":{},"Method":"tools/call","params":{"name":"echo"}}'
    response = await bare.request(PATH, body, bearer=token("pod-b"))
    assert response.status == 400
    assert upstream.bodies == []


async def test_headers_that_a_grant_lets_pass_frame_no_request(bare: Rig, upstream: Upstream) -> None:
    """Who writes an Agent, or is one, would have requests of others answered with what comes after their own."""
    names = ("Content-Length", "Transfer-Encoding", "Host", "Mcp-Session-Id", "X-Tenant")
    own = (s.HeaderValue("Content-Length", "2"), s.HeaderValue("X-Own", "1"))
    policies = (s.AgentPolicy("kagent", "b", (grant(headers=own, allowed_headers=names),)),)
    bare.gateway.use(snapshot(upstream.port, policies=policies))
    forged = {f"x-quarterdeck-forward-{name.lower()}": "5" for name in names}
    body = CALL % b'{"name":"echo","arguments":{}}'
    answer = await bare.request(PATH, body, bearer=token("pod-b"), headers=forged)
    assert answer.status == 200
    assert msgspec.json.decode(upstream.bodies[-1]) == msgspec.json.decode(body)
    seen = [name for name, _ in upstream.headers]
    assert len(set(seen)) == len(seen) and {b"x-tenant", b"x-own"} <= set(seen)
    assert b"mcp-session-id" not in seen


async def test_headers_of_a_server_frame_no_request(bare: Rig, upstream: Upstream) -> None:
    """Who writes a server, by its headersFrom."""
    own = tuple(s.HeaderValue(name, "2") for name in ("Content-Length", "Transfer-Encoding", "Host", "Accept", "X-Own"))
    where = (s.Endpoint("127.0.0.1", upstream.port),)
    bare.gateway.use(
        snapshot(upstream.port, mcp=(s.McpServer("kagent", "peer", "MCPServer", "/mcp", endpoints=where, headers=own),))
    )
    body = CALL % b'{"name":"echo","arguments":{}}'
    assert (await bare.request(PATH, body, bearer=token("pod-b"))).status == 200
    assert msgspec.json.decode(upstream.bodies[-1]) == msgspec.json.decode(body)
    seen = [name for name, _ in upstream.headers]
    assert len(set(seen)) == len(seen) and b"x-own" in seen


async def test_the_arguments_that_are_recorded_are_those_sent(bare: Rig, upstream: Upstream) -> None:
    bare.gateway.use(snapshot(upstream.port))
    await (
        await bare.request(PATH, CALL % b'{"name":"x","arguments":{"a":1},"arguments":{"a":2}}', bearer=token("pod-b"))
    ).read()
    assert upstream.bodies[-1].count(b'"arguments"') == 1
    for name in (b"Arguments", b"ARGUMENTS"):
        only = await bare.request(PATH, CALL % (b'{"name":"x","%b":{"a":2}}' % name), bearer=token("pod-b"))
        assert only.status == 400
    alias = await bare.request(
        PATH, CALL % b'{"name":"x","arguments":{"a":1},"Arguments":{"a":2}}', bearer=token("pod-b")
    )
    assert alias.status == 400


async def test_a_name_of_ones_own_does_not_lead_to_a_workload(bare: Rig, upstream: Upstream) -> None:
    """Whoever owns a DNS name can have it say a Pod's address; an address comes from the control plane."""
    for host, refused in (("localhost", True), ("127.0.0.1", False)):
        world = snapshot(1, mcp=(remote(host, upstream.port),))
        bare.gateway.use(msgspec.structs.replace(world, closed=("127.0.0.1",)))
        answer = await bare.rpc("/mcp/kagent/remote", "tools/list", listener="local")
        assert ("is a name for 127.0.0.1" in str(answer)) is refused, answer
    bare.gateway.use(snapshot(1, mcp=(remote("localhost", upstream.port),)))
    assert "is a name for" not in str(await bare.rpc("/mcp/kagent/remote", "tools/list", listener="local"))


@pytest.mark.parametrize(
    ("path", "options", "status", "decision"),
    [
        ("/nothing", {"bearer": "a"}, 404, "allow"),
        ("/mcp/kagent/other", {"bearer": "a"}, 404, "allow"),
        (PATH, {"listener": "local", "headers": {"origin": "http://evil.example"}}, 403, "deny"),
        (PATH, {"listener": "local", "headers": {"host": "evil.example"}}, 403, "deny"),
        (PATH, {"bearer": "a", "method": "PUT"}, 405, "allow"),
        ("/mcp", {"bearer": "a", "method": "PUT"}, 405, "allow"),
    ],
)
async def test_every_refusal_is_one_record(
    rig: Rig, path: str, options: dict[str, Any], status: int, decision: str
) -> None:
    if options.get("bearer"):
        options = {**options, "bearer": token()}
    response = await rig.request(path, {}, **options)
    await response.read()
    assert response.status == status
    records = rig.records()
    assert [(r["status"], r["decision"]) for r in records] == [(status, decision)]


async def test_told_things_on_the_aggregated_endpoint_are_recorded(rig: Rig) -> None:
    session = await rig.initialize("/mcp", bearer=token())
    headers = {"mcp-session-id": session}
    await (await rig.request("/mcp", method="DELETE", bearer=token(), headers=headers)).read()
    assert [r["method"] for r in rig.records()] == ["initialize", "notifications/initialized", "DELETE"]


async def test_an_agent_that_is_gone_loses_its_streams(bare: Rig, upstream: Upstream) -> None:
    bare.gateway.use(snapshot(upstream.port))
    response = await bare.request(PATH, method="GET", bearer=token("pod-b"))
    await upstream.asked.wait()
    gone = msgspec.structs.replace(snapshot(upstream.port).identities, pods={"pod-a": "kagent/a"})
    bare.gateway.use(snapshot(upstream.port, version="v2", identities=gone))
    with pytest.raises(Exception, match="closed the connection"):
        await asyncio.wait_for(response.read(), 30)


async def test_head_of_an_agent_ends(bare: Rig, upstream: Upstream) -> None:
    agent = s.Agent("kagent", "x", (s.Endpoint("127.0.0.1", upstream.port),))
    bare.gateway.use(snapshot(upstream.port, agents=(agent,)))
    response = await bare.request("/a2a/kagent/x", method="HEAD", listener="local")
    assert response.status == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([(b"host", b"evil.example"), (b"host", b"localhost")], 400),
        ([(b"host", b"localhost"), (b"origin", b"http://evil.example"), (b"origin", b"http://localhost")], 400),
        ([(b"host", b"localhost"), (b"sec-fetch-site", b"cross-site")], 403),
        ([(b"host", b"localhost"), (b"sec-fetch-site", b"none")], 200),
    ],
)
async def test_what_a_browser_says_counts_once(rig: Rig, lines: list[tuple[bytes, bytes]], status: int) -> None:
    response = await rig.pool.request("GET", rig.origin("local"), "/v1/models", lines)
    await response.read()
    assert response.status == status
