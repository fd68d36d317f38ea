"""Lines 24, 25 and 26: failures and loops that spread, agents that are not who they say, and ending them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.conftest import Rig, grant, snapshot, token
from gateway.federation.servers import Client, Upstream, behind
from gateway.limits.upstream import serving
from gateway.policy.rig import provider
from quarterdeck import snapshot as s
from quarterdeck.gateway.a2a.loops import MOST
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Jwt, Policies
from quarterdeck.wire.client import Pool, Response
from quarterdeck.wire.http import Exchange, Server

from .conftest import META, bearer, flipped, guard, newer, running, target

OPEN = Policies(open=True)
SEND = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {}}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}


# -- 24: cascading failure


@pytest.mark.parametrize("mode", ["hang", "reset", "500", "garbage", "internal"])
async def test_s24_a_failing_tool_stops_being_called_and_others_go_on(bare: Rig, one: Upstream, mode: str) -> None:
    async with serving(mode) as failing:
        bad = msgspec.structs.replace(target("bad", failing.port), timeout=0.3)
        await guard(bare, bad, target("one", one.port), policies=OPEN, fail_open=True)
        bare.gateway.limits.breakers.clock = lambda: 1000.0
        client = Client(bare)
        await client.initialize()
        failing.calls = 0
        for _ in range(8):
            await client.call("tools/call", name="bad_x", arguments={})
            assert "result" in await client.call("tools/call", name="one_echo", arguments={})
        assert failing.calls <= 4, "three failures, and it is left alone"


class Agent:
    """An agent that asks another through the gateway for each question it gets, continuing the trace."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.asked = 0
        self.seen: list[dict[bytes, bytes]] = []
        self.answers: list[Any] = []
        self.pool = Pool()
        self.loops = True
        self.server = Server(self.handle)
        self.port = 0

    async def handle(self, exchange: Exchange) -> None:
        self.asked += 1
        head = dict(exchange.headers)
        self.seen.append(head)
        if not self.loops:
            exchange.respond(200, b'{"jsonrpc":"2.0","id":1,"result":{}}', [(b"content-type", b"application/json")])
            return
        lines = [
            (b"authorization", f"Bearer {token('pod-b')}".encode()), (b"content-type", b"application/json"),
            (b"traceparent", head[b"traceparent"]),
        ]  # fmt: skip
        response = await self.pool.request(
            "POST", self.rig.origin("workloads"), "/a2a/kagent/b", lines, exchange.body, timeout=20
        )
        exchange.respond(response.status, await response.read(), [(b"content-type", b"application/json")])


@pytest.fixture
async def agent(bare: Rig) -> AsyncIterator[Agent]:
    """Agent b, who may ask itself; a may ask b."""
    agent = Agent(bare)
    _, agent.port = await agent.server.listen("127.0.0.1", 0)
    policies = (s.AgentPolicy("kagent", "b", agents=("kagent/b",)), s.AgentPolicy("kagent", "a", agents=("kagent/b",)))
    here = s.Agent("kagent", "b", (s.Endpoint("127.0.0.1", agent.port),))
    bare.gateway.use(snapshot(1, agents=(here,), policies=policies))
    yield agent
    agent.pool.close()
    await agent.server.stop(0)


async def test_s24_agents_that_ask_each_other_in_a_circle_are_stopped(bare: Rig, agent: Agent) -> None:
    answer = await bare.request("/a2a/kagent/b", SEND, listener="local")
    text = await answer.read()
    assert b"in a circle" in text and agent.asked == MOST + 1
    record = next(r for r in bare.records() if "circle" in r.get("detail", ""))
    assert (record["decision"], record["status"], record["agent"]) == ("deny", 508, "kagent/b")
    agent.loops = False
    for _ in range(2 * MOST):
        response = await bare.request("/a2a/kagent/b", SEND, bearer=token("pod-a"))
        assert b"result" in await response.read(), "one after the other is no circle"


# -- 25: insecure inter-agent communication


async def test_s25_an_agent_is_who_its_token_says_and_may_what_it_was_granted(bare: Rig, agent: Agent) -> None:
    agent.loops = False
    for bearing, status in ((None, 401), ("x.y.z", 401), (flipped(token("pod-a")), 401), (token("pod-c"), 200)):
        response = await bare.request("/a2a/kagent/b", SEND, bearer=bearing)
        text = await response.read()
        assert response.status == status and b"error" in text
    assert not agent.asked, "neither strangers nor c, whom nobody granted b"
    forged = {"x-quarterdeck-principal": "agent:kagent/admin", "x-quarterdeck-peer": "x", "x-remote-user": "admin"}
    response = await bare.request("/a2a/kagent/b", SEND, bearer=token("pod-a"), headers=forged)
    assert b"result" in await response.read()
    (seen,) = agent.seen
    assert seen[b"x-quarterdeck-principal"] == b"agent:kagent/a"
    assert b"authorization" not in seen and b"x-remote-user" not in seen and b"x-quarterdeck-peer" not in seen


async def test_s25_a_card_is_the_gateways_and_carries_no_signature_that_fits_nothing(bare: Rig, agent: Agent) -> None:
    card = {
        "name": "b", "url": "http://internal:8080/", "signatures": [{"protected": "x"}],
        "supportedInterfaces": [{"url": "http://internal:8080/rpc"}, {"url": "//evil.example/rpc"},
                                {"url": "javascript:x"}],
    }  # fmt: skip

    def handle(exchange: Exchange) -> None:
        exchange.respond(200, msgspec.json.encode(card), [(b"content-type", b"application/json")])

    agent.server.handler = handle
    response = await bare.request("/a2a/kagent/b/.well-known/agent-card.json", method="GET", bearer=token("pod-a"))
    shown = msgspec.json.decode(await response.read())
    base = bare.gateway.endpoints["workloads"] + "/a2a/kagent/b"
    assert "signatures" not in shown
    assert all(i["url"].startswith(base) for i in [shown, *shown["supportedInterfaces"]]), shown


@pytest.mark.parametrize(
    "card",
    [b'{"supportedInterfaces":5}', b'{"url":"http://[x"}', b"[]", b"null", b"{" * 100_000, b'{"url":{}}', b"\xff"],
)
async def test_s25_a_card_that_is_none_is_an_error(bare: Rig, agent: Agent, card: bytes) -> None:
    agent.server.handler = lambda exchange: exchange.respond(200, card, [(b"content-type", b"application/json")])
    response = await bare.request("/a2a/kagent/b/.well-known/agent-card.json", method="GET", bearer=token("pod-a"))
    await response.read()
    assert response.status in (200, 502) and bare.records()[-1]["status"] == response.status


async def test_s25_what_one_gateway_process_tells_another_is_good_once(tmp_path: Path, one: Upstream) -> None:
    """Whoever reads along between replicas gains nothing: neither the same request again, nor another in its name."""
    caught: list[Exchange] = []
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    async with (
        running(tmp_path / "a", peers=("127.0.0.1", 0), key_file=key) as owner,
        running(tmp_path / "b", peers=("127.0.0.1", 0), key_file=key) as other,
    ):
        for rig in (owner, other):
            rig.gateway.use(behind(one))
            await rig.gateway.listeners.settled()
        receiving = owner.gateway.peers._server  # pyright: ignore[reportPrivateUsage]
        assert receiving is not None
        received = receiving.handler

        def catch(exchange: Exchange) -> Any:
            caught.append(exchange)
            exchange.headers = list(exchange.headers)
            kept = list(exchange.headers)
            result = received(exchange)
            exchange.context["kept"] = kept
            return result

        receiving.handler = catch
        answer = await newer(owner, "tools/call", {"accept": "application/json"}, name="ask", arguments={})
        (asked,) = answer["result"]["inputRequests"]
        given = {"inputResponses": {asked: {"action": "accept"}}, "requestState": answer["result"]["requestState"]}
        done = await newer(other, "tools/call", {"accept": "application/json"}, name="ask", arguments={}, **given)
        assert "result" in done and len(caught) == 1, "the other process passed it on"
        passed = caught[0]
        lines = passed.context["kept"]
        address = owner.gateway.peers.owner.partition("@")[2].rpartition(":")
        origin = (address[0], int(address[2]), False)
        pool = Pool()
        for target_path, body in ((passed.target.decode(), passed.body), ("/mcp", passed.body), ("/mcp", b"{}")):
            headers = [line for line in lines if line[0] != b"content-length"]
            response = await pool.request("POST", origin, target_path, headers, body)
            assert response.status == 403 and await response.read()
        pool.close()
        assert len(one.requests("tools/call")) == 1


# -- 26: the kill switch


async def revoke(rig: Rig, **body: Any) -> None:
    response = await rig.request("/revocations", body, listener="admin")
    assert response.status == 201 and await response.read()


async def ended(stream: Response) -> bool:
    try:
        async for _ in stream:
            pass
    except Exception:  # noqa: BLE001 - however it ends
        return True
    return True


@pytest.mark.parametrize(
    "body", [{"user": "alice"}, {"server": "ns/one"}, {"user": "alice@issuer.example.org/realms/demo"}]
)
async def test_s26_the_kill_switch_ends_everything_within_a_second(bare: Rig, one: Upstream, body: Any) -> None:
    """Sessions, GET streams, subscriptions, calls under way, calls that wait for an answer; and only those."""
    await guard(bare, one)
    alice = bearer()
    session = await bare.initialize("/mcp", listener="front", headers=alice)
    sent = {**alice, "mcp-session-id": session}
    asked = (await newer(bare, "tools/call", alice, name="ask", arguments={}))["result"]
    hang = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "hang", "arguments": {}}}
    pools = [Pool() for _ in range(3)]

    async def opened(pool: Pool, method: str, data: Any, headers: dict[str, str]) -> Response:
        lines = [(k.encode(), v.encode()) for k, v in {**headers, "content-type": "application/json"}.items()]
        encoded = msgspec.json.encode(data) if data else b""
        return await pool.request(method, bare.origin("front"), "/mcp", lines, encoded)

    watched = {"_meta": META, "notifications": {"toolsListChanged": True}}
    listen = {"jsonrpc": "2.0", "id": "sub", "method": "subscriptions/listen", "params": watched}
    modern = {**alice, "mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
    streams = [
        await opened(pools[0], "GET", None, sent), await opened(pools[1], "POST", hang, sent),
        await opened(pools[2], "POST", listen, modern),
    ]  # fmt: skip
    assert all(stream.status == 200 for stream in streams)
    eve = await bare.initialize("/mcp", listener="front", headers=bearer("eve"))
    await revoke(bare, **body, reason="stolen laptop")
    async with asyncio.timeout(30):
        assert all(await asyncio.gather(*map(ended, streams)))
    calls = len(one.requests("tools/call"))
    for headers in (sent, alice):
        response = await bare.request("/mcp", CALL, listener="front", headers=headers)
        text = await response.read()
        assert response.status in (403, 404) or b'"error"' in text
    (key,) = asked["inputRequests"]
    given = {"inputResponses": {key: {"action": "accept"}}, "requestState": asked["requestState"]}
    again = {**alice, "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "ask"}
    body_again = {**CALL, "params": {"name": "ask", "arguments": {}, "_meta": META, **given}}
    refused = await bare.request("/mcp", body_again, listener="front", headers=again)
    assert b'"result"' not in await refused.read() and one.answers.empty()
    others = {**bearer("eve"), "mcp-session-id": eve}
    response = await bare.request("/mcp", CALL, listener="front", headers=others)
    assert (b'"result"' in await response.read()) == ("user" in body)
    assert len(one.requests("tools/call")) == calls + ("user" in body)
    for pool in pools:
        pool.close()


async def test_s26_a_revoked_agent_neither_calls_nor_is_called(bare: Rig, agent: Agent) -> None:
    agent.loops = False
    await revoke(bare, agent="kagent/b")
    for bearing in ("pod-a", "pod-b"):
        response = await bare.request("/a2a/kagent/b", SEND, bearer=token(bearing))
        text = await response.read()
        assert response.status == 403 or b'"error"' in text
    assert not agent.asked
    rules = [record["rule"] for record in bare.records()]
    assert rules == ["revoked/agent/kagent/b"] * 2


@pytest.mark.parametrize("name", ["alice", "alice@issuer.example.org/realms/demo"])
async def test_s26_no_agent_goes_on_for_somebody_who_was_revoked(
    bare: Rig, one: Upstream, agent: Agent, name: str
) -> None:
    """What alice asked an agent for ends with her, too: the gateway knows whom its call is for."""
    agent.loops = False
    rules = Policies(jwt=Jwt((provider(),)))
    server = s.McpServer("kagent", "one", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", one.port),))
    talk = r.Route("ns/talk", policies=rules, backends=(r.RouteBackend(agent="kagent/b", policies=rules),))
    policies = (s.AgentPolicy("kagent", "b", (grant(name="one"),)),)
    here = s.Agent("kagent", "b", (s.Endpoint("127.0.0.1", agent.port),))
    listeners = (r.Listener("front", 0, "127.0.0.1", routes=(talk,)),)
    bare.gateway.use(snapshot(1, mcp=(server,), agents=(here,), policies=policies, listeners=listeners))
    await bare.gateway.listeners.settled()
    shown: dict[str, dict[str, str]] = {}
    for person in ("alice", "eve"):
        response = await bare.request("/", SEND, listener="front", headers=bearer(person))
        assert b"result" in await response.read()
        acting = agent.seen[-1][b"x-quarterdeck-acting-for"].decode()
        shown[person] = {"x-quarterdeck-acting-for": acting, "accept": "application/json, text/event-stream"}
    sessions = {
        person: await bare.initialize("/mcp/kagent/one", bearer=token("pod-b"), headers=dict(headers))
        for person, headers in shown.items()
    }
    for person, headers in shown.items():
        headers["mcp-session-id"] = sessions[person]
    hang = {**CALL, "params": {"name": "hang", "arguments": {}}}
    pools = {person: Pool() for person in shown}
    streams = {
        person: await pools[person].request(
            "POST", bare.origin("workloads"), "/mcp/kagent/one",
            [(b"authorization", f"Bearer {token('pod-b')}".encode()), (b"content-type", b"application/json"),
             *((k.encode(), v.encode()) for k, v in headers.items())], msgspec.json.encode(hang),
        )
        for person, headers in shown.items()
    }  # fmt: skip
    await revoke(bare, user=name)
    async with asyncio.timeout(30):
        assert await ended(streams["alice"])
    for person, headers in shown.items():
        response = await bare.request("/mcp/kagent/one", CALL, bearer=token("pod-b"), headers=headers)
        assert response.status == (403 if person == "alice" else 200) and await response.read()
    assert len(bare.gateway.upstreams.in_flight) == 1, "eve's goes on"
    streams["eve"].close()
    for pool in pools.values():
        pool.close()


async def test_s26_it_holds_after_a_restart_and_without_a_control_plane(tmp_path: Path, one: Upstream) -> None:
    server = s.McpServer("kagent", "one", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", one.port),))
    world = snapshot(1, mcp=(server,), policies=(s.AgentPolicy("kagent", "b", (grant(name="one"),)),))
    for start in range(2):
        async with running(tmp_path / "gw") as rig:
            rig.gateway.use(world)
            response = await rig.request("/mcp/kagent/one", CALL, bearer=token("pod-b"))
            assert (response.status == 403) == bool(start) and await response.read()
            await revoke(rig, agent="kagent/b")
