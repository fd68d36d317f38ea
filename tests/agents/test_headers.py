"""Headers of a user's request that go on to tools: those that are allowed, and none whose value is not known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from quarterdeck.gateway.a2a import forwarded
from quarterdeck.wire.http import Exchange, Server
from support.run_world import Tools

from .conftest import call, say, user_message

pytestmark = pytest.mark.timeout(150)
SENT = {"x-quarterdeck-forward-x-tenant": "blue", "x-quarterdeck-forward-x-api-key": "s3cret"}


def test_the_gateway_tells_an_agent_what_its_tools_may_get() -> None:
    headers = {b"x-tenant": b"blue", b"authorization": b"Bearer t", b"x-other": b"1", b"cookie": b"c"}
    names = ["x-tenant", "authorization", "cookie", "x-absent", "x-quarterdeck-principal"]
    assert forwarded.lines(names, headers) == b"x-quarterdeck-forward-x-tenant: blue\r\n"
    told = {b"x-quarterdeck-forward-x-tenant": b"green", b"x-tenant": b"blue"}
    assert forwarded.lines(["x-tenant"], told) == b"x-quarterdeck-forward-x-tenant: green\r\n", "an agent passes it on"


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """URL of an MCP server, and the headers of the calls it got."""
    tools, seen = Tools(), list[dict[str, str]]()

    async def handle(exchange: Exchange) -> None:
        if b'"tools/call"' in exchange.body:
            seen.append({name.decode(): value.decode() for name, value in exchange.headers})
        await tools.handle(exchange)

    listening = Server(handle)
    _, port = await listening.listen("127.0.0.1", 0)
    yield f"http://127.0.0.1:{port}/mcp", seen
    await listening.stop(0)


async def test_a_users_headers_reach_the_servers_that_may_have_them(
    start: Any, server: tuple[str, list[dict[str, str]]]
) -> None:
    url, seen = server
    entry = {"params": {"url": url}, "allowed_headers": ["X-Tenant", "x-api-key"]}
    agent = await start(call("look", {"n": 1}), say("done"), http_tools=[entry])
    agent.http.headers.update(SENT)
    await agent.ask("go")
    assert {k: v for k, v in seen[0].items() if k.startswith("x-quarterdeck-forward")} == SENT
    other = await start(call("look", {"n": 1}), say("done"), http_tools=[{"params": {"url": url}}])
    other.http.headers.update(SENT)
    await other.ask("go again")
    assert not any(name.startswith("x-quarterdeck-forward") for name in seen[1]), "that server may have none"


async def test_a_secret_header_is_not_kept_and_its_loss_is_told(
    start: Any, server: tuple[str, list[dict[str, str]]]
) -> None:
    url, seen = server
    entry = {"params": {"url": url}, "allowed_headers": ["x-tenant", "x-api-key"]}
    first = await start(say("never"), http_tools=[entry])
    first.http.headers.update(SENT)
    first.model.gate = asyncio.Event()
    sent = await first.rpc("SendMessage", {"message": user_message("go"), "configuration": {"returnImmediately": True}})
    while not first.model.requests:
        await asyncio.sleep(0.01)
    await first.runs.stop()
    _, events = await first.journal.events(sent["result"]["task"]["id"])
    assert events[0].data["origin"]["forwarded"] == {"x-tenant": "blue", "x-api-key": None}

    second = await start(call("look", {"n": 1}), say("sorry"), http_tools=[entry])
    beat = asyncio.create_task(second.runs.heartbeat.run())
    while len(second.model.requests) < 2:
        await asyncio.sleep(0.01)
    beat.cancel()
    assert "the user's header x-api-key" in second.model.requests[1]["messages"][-1]["content"] and not seen
