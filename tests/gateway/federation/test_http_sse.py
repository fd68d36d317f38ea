"""HTTP+SSE of 2024-11-05 on either side, with the SDK's own client and server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mcp_types as types
import pytest
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client

from quarterdeck import snapshot as s
from quarterdeck.snapshot import routing as r

from ..conftest import Rig
from .servers import Client, Upstream, ask, behind
from .test_duties import until


@pytest.fixture(scope="module")
def old() -> Iterator[int]:
    """Port of a server that speaks nothing but HTTP+SSE."""
    script = Path(__file__).with_name("sse_server.py")
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.kill()
    process.wait()


def with_old(port: int, *others: Upstream) -> s.Snapshot:
    snapshot = behind(*others)
    server = s.McpServer("ns", "old", "Target", "/sse", "SSE", endpoints=(s.Endpoint("127.0.0.1", port),))
    listener = snapshot.listeners[0]
    (backend,) = listener.routes[0].backends
    assert backend.mcp is not None
    group = r.McpBackend("all", (*backend.mcp.targets, r.McpTarget("old", "Target/ns/old")))
    route = r.Route(
        "ns/all", policies=r.Policies(open=True), backends=(r.RouteBackend(mcp=group, policies=r.Policies(open=True)),)
    )
    front = r.Listener("front", 0, address="127.0.0.1", routes=(route,))
    return s.Snapshot(version="v1", mcp=(*snapshot.mcp, server), listeners=(front,))


@pytest.mark.parametrize("alone", [True, False])
async def test_a_server_of_http_sse_is_served_to_later_clients(bare: Rig, old: int, one: Upstream, alone: bool) -> None:
    bare.gateway.use(with_old(old) if alone else with_old(old, one))
    await bare.gateway.listeners.settled()
    prefix = "" if alone else "old_"
    client = Client(bare)
    await client.initialize(elicitation={})
    names = [tool["name"] for tool in (await client.call("tools/list"))["result"]["tools"]]
    assert f"{prefix}add" in names
    events = await client.events(
        "tools/call", name=f"{prefix}add", arguments={"a": 1, "b": 2}, _meta={"progressToken": "p"}
    )
    assert events[-1]["result"]["content"][0]["text"] == "3"
    assert [e["params"]["progressToken"] for e in events[:-1]] == ["p"]
    answer = await ask(bare, "tools/call", name=f"{prefix}add", arguments={"a": 2, "b": 2})
    assert answer["result"]["content"][0]["text"] == "4"


async def test_a_client_of_http_sse_reaches_later_servers(mixed: Rig, one: Upstream, new: Upstream) -> None:
    url = mixed.gateway.endpoints["front"] + "/sse"
    changed = asyncio.Event()

    async def heard(message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            changed.set()

    async def elicit(context: object, params: object) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={})

    async with (
        sse_client(url) as (read, write),
        ClientSession(read, write, message_handler=heard, elicitation_callback=elicit) as session,
    ):
        await session.initialize()
        assert [tool.name for tool in (await session.list_tools()).tools] == ["new_echo", "one_echo"]
        for name, said in (("one_ask", "5 accept"), ("new_ask", "accept s1")):
            result = await session.call_tool(name, {})
            assert result.content[0].text == said  # type: ignore[union-attr]
        await until(lambda: one.streams)
        await one.push({"method": "notifications/tools/list_changed"})
        async with asyncio.timeout(30):
            await changed.wait()
    await until(lambda: one.requests("DELETE"))
