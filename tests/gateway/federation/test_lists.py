"""Lists that are asked for again, and who hears of changes: what was found out is used again, and never too long."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import structs

from quarterdeck.gateway.mcp import listing
from quarterdeck.snapshot import policies as p
from quarterdeck.snapshot import routing as r

from ..conftest import Rig
from .servers import Client, Upstream, ask, behind, messages, modern

MORE = {"name": "more", "inputSchema": {"type": "object"}}


def names(answer: dict[str, Any]) -> list[str]:
    return [tool["name"] for tool in answer["result"]["tools"]]


async def test_a_list_that_comes_again_is_not_looked_through_and_a_changed_one_is(
    both: Rig, one: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    sight = listing.sight

    def watched(call: Any, member: Any, key: str) -> Any:
        looked.append(member.name)
        return sight(call, member, key)

    monkeypatch.setattr(listing, "sight", watched)
    client = Client(both)
    await client.initialize()
    for _ in range(6):  # what is known of a head is known after a few requests
        assert names(await client.call("tools/list")) == ["one_echo", "two_echo"]
    seen, asked = len(looked), len(one.requests("tools/list"))
    for _ in range(2):
        assert names(await client.call("tools/list")) == ["one_echo", "two_echo"]
    assert looked[seen:] == []
    assert len(one.requests("tools/list")) == asked + 2, "a server that says nothing of freshness is asked each time"
    one.tools.append(MORE)
    assert names(await client.call("tools/list")) == ["one_echo", "one_more", "two_echo"]
    assert looked[seen:] == ["one"]


async def test_each_caller_sees_a_list_of_their_own(both: Rig, one: Upstream, two: Upstream) -> None:
    one.tools.append(MORE)
    rule = p.CelRule("allow", 'request.headers["x-who"] == "ann" || mcp.tool.name == "echo"')
    policies = r.Policies(open=True, mcp_authorization=(p.Authorization((rule,), where="test"),))
    snapshot = behind(one, two)
    listener = snapshot.listeners[0]
    backend = structs.replace(listener.routes[0].backends[0], policies=policies)
    route = structs.replace(listener.routes[0], backends=(backend,))
    both.gateway.use(structs.replace(snapshot, version="v2", listeners=(structs.replace(listener, routes=(route,)),)))
    await both.gateway.listeners.settled()
    client = Client(both)
    await client.initialize()
    seen = {"ann": ["one_echo", "one_more", "two_echo"], "bob": ["one_echo", "two_echo"]}
    for _ in range(5):
        for who, shown in seen.items():
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
            response = await client.post(body, x_who=who)
            assert names(msgspec.json.decode(await response.read())) == shown


async def test_a_list_is_used_for_as_long_as_its_server_says_and_no_longer_than_a_change(
    mixed: Rig, one: Upstream, new: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(listing, "monotonic", lambda: now)
    new.fresh = 60_000

    async def listed() -> int:
        """How often the server has been asked, after one more list."""
        assert names(await ask(mixed, "tools/list")) == ["new_echo", "one_echo"]
        return len(new.requests("tools/list"))

    for _ in range(5):
        asked = await listed()
    others = len(one.requests("tools/list"))
    assert await listed() == asked
    assert len(one.requests("tools/list")) == others + 1, "the other server says nothing of the kind"
    now += listing.FRESH + 1
    assert await listed() == asked + 1, "not for a minute, whatever it says: others may have heard of a change"
    new.tools.append(MORE)
    body, headers = modern("subscriptions/listen", notifications={"toolsListChanged": True})
    subscribed = await mixed.request("/mcp", body, headers=headers, listener="front")
    stream = messages(subscribed)
    assert (await anext(stream))["method"] == "notifications/subscriptions/acknowledged"
    async with asyncio.timeout(30):
        while not new.streams:
            await asyncio.sleep(0.01)
    await new.push({"method": "notifications/tools/list_changed"})
    assert (await anext(stream))["method"] == "notifications/tools/list_changed"
    assert names(await ask(mixed, "tools/list")) == ["new_echo", "new_more", "one_echo"]
    subscribed.close()


async def test_who_may_use_tools_only_hears_of_no_resource(bare: Rig, new: Upstream) -> None:
    rule = p.CelRule("allow", 'mcp.tool.name == "echo"')
    policies = r.Policies(open=True, mcp_authorization=(p.Authorization((rule,), where="test"),))
    snapshot = behind(new)
    listener = snapshot.listeners[0]
    backend = structs.replace(listener.routes[0].backends[0], policies=policies)
    route = structs.replace(listener.routes[0], backends=(backend,))
    bare.gateway.use(structs.replace(snapshot, listeners=(structs.replace(listener, routes=(route,)),)))
    await bare.gateway.listeners.settled()
    refused = await ask(
        bare, "subscriptions/listen", notifications={"toolsListChanged": True, "resourceSubscriptions": ["memo://one"]}
    )
    assert refused["error"]["data"]["reason"] == "denied"
    assert not new.requests("subscriptions/listen")
