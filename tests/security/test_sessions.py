"""Lines 4, 5 and 23: handles of sessions and held calls, and what one caller could get of another's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Rig
from gateway.federation.servers import Upstream
from quarterdeck.gateway.mcp import older as older_servers

from .conftest import bearer, flipped, guard, newer, older, running

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


async def test_s04_a_session_is_its_callers_own_and_no_credential(bare: Rig, one: Upstream, two: Upstream) -> None:
    alice, eve = bearer("alice"), bearer("eve")
    for servers in ((one,), (one, two)):
        await guard(bare, *servers)
        session = await bare.initialize("/mcp", listener="front", headers=alice)
        assert len(session) > 60, "sealed, not a counter"
        asked = len(one.told), len(two.told)
        stolen = [
            ({**eve, "mcp-session-id": session}, 404),
            ({**alice, "mcp-session-id": flipped(session)}, 404),
            ({**alice, "mcp-session-id": session[:-8]}, 404),
            ({**alice, "mcp-session-id": "one-1"}, 404),
            ({"mcp-session-id": session}, 401),
            ({"mcp-session-id": session, "authorization": f"Bearer {session}"}, 401),
        ]
        for headers, status in stolen:
            for method in ("POST", "GET", "DELETE"):
                body = LIST if method == "POST" else None
                response = await bare.request("/mcp", body, method=method, listener="front", headers=headers)
                await response.read()
                assert response.status == status, f"{method} {headers}"
        assert asked == (len(one.told), len(two.told)), "no server heard of it"
        assert "result" in await older(bare, session, "tools/list", alice)


async def test_s04_ids_are_random_and_hold_for_one_route_and_gateway(bare: Rig, one: Upstream, tmp_path: Path) -> None:
    await guard(bare, one)
    alice = bearer()
    ids = {await bare.initialize("/mcp", listener="front", headers=alice) for _ in range(4)}
    assert len(ids) == 4 and len({ident[:16] for ident in ids}) == 4
    async with running(tmp_path / "other") as other:
        await guard(other, one)
        response = await other.request("/mcp", LIST, listener="front", headers={**alice, "mcp-session-id": ids.pop()})
        assert response.status == 404 and await response.read(), "another gateway has another key"


async def held(rig: Rig, headers: dict[str, str], name: str = "one_ask") -> tuple[str, str]:
    """A call that waits for its caller's answer: key and ``requestState``."""
    asked = (await newer(rig, "tools/call", headers, name=name, arguments={}))["result"]
    (key,) = asked["inputRequests"]
    return key, asked["requestState"]


@pytest.mark.parametrize("name", ["one_ask", "new_ask"])
async def test_s05_a_request_state_is_good_for_its_caller_and_call_only(
    bare: Rig, one: Upstream, new: Upstream, name: str
) -> None:
    """``one`` is of the older era, the gateway holds its call; ``new`` gave a state of its own, which is sealed."""
    await guard(bare, one, new)
    alice, eve = bearer("alice"), bearer("eve")
    key, state = await held(bare, alice, name)
    other_key, other = await held(bare, eve, name)
    answers = {key: {"action": "accept"}, other_key: {"action": "accept"}}
    given: dict[str, Any] = {"arguments": {}, "inputResponses": answers}
    calls = len(new.requests("tools/call"))
    for headers, asked, presented in (
        (eve, name, state), (alice, name, other), (alice, name, flipped(state)), (alice, name, "s1"), (alice, name, ""),
        (alice, name, state[:-4]), (alice, "new_ask" if name == "one_ask" else "one_ask", state),
    ):  # fmt: skip
        if presented == "" and name == "new_ask":
            continue  # the question anew
        refused = await newer(bare, "tools/call", headers, name=asked, requestState=presented, **given)
        assert refused["error"]["code"] == -32602, refused
    assert one.answers.empty() and calls == len(new.requests("tools/call")), "nothing of it reached a server"
    answer = await newer(bare, "tools/call", alice, name=name, requestState=state, **given)
    assert "accept" in answer["result"]["content"][0]["text"]


async def test_s05_a_request_state_is_used_once(bare: Rig, one: Upstream) -> None:
    await guard(bare, one)
    alice = bearer()
    key, state = await held(bare, alice, "ask")
    given: dict[str, Any] = {"arguments": {}, "inputResponses": {key: {"action": "accept"}}, "requestState": state}
    assert "result" in await newer(bare, "tools/call", alice, name="ask", **given)
    again = await newer(bare, "tools/call", alice, name="ask", **given)
    assert again["error"]["code"] == -32602 and "ended" in again["error"]["message"]
    assert len(one.requests("tools/call")) == 1


async def test_s05_a_request_state_expires(bare: Rig, one: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    await guard(bare, one)
    alice = bearer()
    monkeypatch.setattr(older_servers, "HOLD", -1.0)
    key, state = await held(bare, alice, "ask")
    late: dict[str, Any] = {"arguments": {}, "inputResponses": {key: {"action": "accept"}}, "requestState": state}
    refused = await newer(bare, "tools/call", alice, name="ask", **late)
    assert refused["error"]["code"] == -32602 and one.answers.empty()
    await asyncio.wait_for(one.cancelled.wait(), 30)


async def test_s23_what_a_caller_sees_is_nobody_elses(bare: Rig, one: Upstream, new: Upstream) -> None:
    from gateway.policy.rig import provider
    from quarterdeck.snapshot.policies import Authorization, CelRule, Jwt, Policies

    rules = (Authorization((CelRule("allow", 'jwt.sub == "alice" || mcp.tool.name == "echo"'),)),)
    for upstream in (one, new):
        upstream.tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "secret")]
    await guard(bare, one, new, policies=Policies(jwt=Jwt((provider(),)), mcp_authorization=rules))

    def names(answer: dict[str, Any]) -> list[str]:
        return [tool["name"] for tool in answer["result"]["tools"]]

    for _ in range(2):
        for person, shown in (("alice", 4), ("eve", 2), ("alice", 4)):
            answer = await newer(bare, "tools/list", bearer(person))
            assert len(names(answer)) == shown and answer["result"]["cacheScope"] == "private"
    await guard(bare, new, policies=Policies(jwt=Jwt((provider(),)), mcp_authorization=rules))
    answer = await newer(bare, "tools/list", bearer("eve"))
    assert names(answer) == ["echo"] and answer["result"]["cacheScope"] == "private"


async def test_s23_no_two_callers_share_a_session_with_a_server(bare: Rig, one: Upstream) -> None:
    """An older server keeps state by session: what it remembers of alice must not answer eve."""
    await guard(bare, one)
    for person in ("alice", "eve", "alice", "eve"):
        assert "result" in await newer(bare, "tools/call", bearer(person), name="echo", arguments={})
    assert one.opened == 2
    used = [head.get(b"mcp-session-id") for head, told in _calls(one)]
    assert used[0] == used[2] and used[1] == used[3] and used[0] != used[1]


def _calls(upstream: Upstream) -> Iterator[tuple[dict[bytes, bytes], Any]]:
    posts = (head for head in upstream.heads if b"content-type" in head)
    for head, told in zip(posts, upstream.told, strict=True):
        if told.get("method") == "tools/call":
            yield head, told
