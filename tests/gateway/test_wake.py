"""Calls for what is scaled to zero: held, one request to wake, bounded, a clear refusal afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.errors import UpstreamError
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.options import Options
from quarterdeck.gateway.wake import Sleeper, Waker
from quarterdeck.snapshot.activity import Report
from quarterdeck.snapshot.virtual import Choice, ChosenServer, ChosenTool, VirtualServer
from quarterdeck.wire.http import Exchange, Server

from .conftest import Rig, snapshot, token

AGENT: Sleeper = ("Agent", "kagent", "sleeper")


class Plane:
    """A control plane that streams one snapshot after the other and writes down what it is told."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.wakes: list[dict[str, str]] = []
        self.reports: list[Report] = []
        self.on_wake: s.Snapshot | None = None
        self.refuse = ""
        self.told = asyncio.Event()

    def serve(self, snapshot: s.Snapshot) -> None:
        self.lines.put_nowait(s.encode(snapshot))

    async def handle(self, exchange: Exchange) -> None:
        path = exchange.path
        if path.endswith("/config"):
            exchange.start(200, [(b"content-type", b"application/x-ndjson")])
            while True:
                await exchange.send(await self.lines.get() + b"\n")
        if path.endswith("/wake"):
            self.wakes.append(msgspec.json.decode(exchange.body))
            if self.refuse:
                exchange.respond(403, self.refuse.encode())
                return
            if self.on_wake is not None:
                self.serve(self.on_wake)
        if path.endswith("/activity"):
            self.reports.append(msgspec.json.decode(exchange.body, type=Report))
            self.told.set()
        exchange.respond(200, b"{}", [(b"content-type", b"application/json")])


@pytest.fixture
async def plane() -> AsyncIterator[tuple[Plane, str]]:
    found = Plane()
    server = Server(found.handle, name="plane")
    host, port = await server.listen("127.0.0.1", 0)
    yield found, f"http://{host}:{port}"
    await server.stop(0.1)


@pytest.fixture
async def rig(plane: tuple[Plane, str], tmp_path: Path) -> AsyncIterator[Rig]:
    zero = ("127.0.0.1", 0)
    gateway = Gateway(
        Options(zero, zero, zero, zero, zero, control_plane=plane[1], data_dir=tmp_path / "data",
                audit_file=tmp_path / "audit.jsonl")
    )  # fmt: skip
    await gateway.start()
    found = Rig(gateway, tmp_path / "audit.jsonl")
    yield found
    found.pool.close()
    await gateway.stop(0.2)


async def following(rig: Rig, plane: Plane, snapshot: s.Snapshot) -> None:
    plane.serve(snapshot)
    async with asyncio.timeout(30):
        while rig.gateway.snapshot.agents != snapshot.agents or rig.gateway.snapshot.mcp != snapshot.mcp:
            await asyncio.sleep(0.01)


def world(peer: int, *, up: bool, hold: float = 20.0) -> s.Snapshot:
    """The MCP server and the agent of these tests, with a Pod or scaled to zero."""
    here = (s.Endpoint("127.0.0.1", peer),) if up else ()
    return snapshot(
        peer,
        mcp=(s.McpServer("kagent", "peer", "MCPServer", "/mcp", endpoints=here, wake=hold),),
        agents=(s.Agent("kagent", "sleeper", here, wake=hold),),
    )


async def test_calls_for_a_sleeping_server_are_held_until_it_is_up(
    rig: Rig, plane: tuple[Plane, str], peer: int
) -> None:
    control, _ = plane
    await following(rig, control, world(peer, up=False))
    control.on_wake = world(peer, up=True)
    calls = [rig.rpc("/mcp/kagent/peer", "ping", bearer=token("pod-b")) for _ in range(20)]
    answers = await asyncio.gather(*calls)
    assert all("error" not in answer or "session" in answer["error"]["message"].lower() for answer in answers)
    assert control.wakes == [{"kind": "MCPServer", "namespace": "kagent", "name": "peer"}], "twenty calls wake once"
    assert rig.gateway.waker.held == 0


async def test_a_server_that_does_not_start_is_told_with_the_time_to_come_back(
    rig: Rig, plane: tuple[Plane, str], peer: int
) -> None:
    control, _ = plane
    control.refuse = "Agent kagent/sleeper: quota exceeded"
    await following(rig, control, world(peer, up=False, hold=0.3))
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {}}
    response = await rig.request("/a2a/kagent/sleeper", body, listener="local")
    text = (await response.read()).decode()
    assert (response.status, response.header(b"retry-after")) == (503, b"5")
    assert "did not start within 0.3 s" in text and "quota exceeded" in text


async def test_who_may_not_call_wakes_nothing(rig: Rig, plane: tuple[Plane, str], peer: int) -> None:
    control, _ = plane
    await following(rig, control, world(peer, up=False))
    answer = await rig.rpc("/mcp/kagent/peer", "ping", bearer=token("pod-c"))
    assert "not granted" in answer["error"]["message"]
    assert control.wakes == []


async def test_a_virtual_server_wakes_what_it_shows(rig: Rig, plane: tuple[Plane, str], peer: int) -> None:
    control, _ = plane
    shown = ChosenTool("peer", "add", "plus")
    view = VirtualServer(
        "kagent", "view", (ChosenServer("peer", "MCPServer/kagent/peer", Choice(())),), (shown,), False
    )

    def seen(*, up: bool) -> s.Snapshot:
        granted = s.AgentPolicy("kagent", "b", (s.ToolGrant("kagent", "view", "VirtualServer", ("plus",)),))
        return msgspec.structs.replace(world(peer, up=up), virtual=(view,), policies=(granted,))

    path, bearer = "/mcp/kagent/virtualserver.view", token("pod-b")
    await following(rig, control, seen(up=False))
    headers = {"mcp-session-id": await rig.initialize(path, bearer=bearer)}
    call = {"name": "add", "arguments": {"a": 1, "b": 2}}
    assert "error" in await rig.rpc(path, "tools/call", call, bearer=bearer, headers=headers)
    assert "error" in await rig.rpc(path, "tools/call", call | {"name": "plus"}, bearer=token("pod-a"))
    assert control.wakes == [], "what is not shown, or not granted, wakes nobody"
    control.on_wake = seen(up=True)
    answer = await rig.rpc(path, "tools/call", call | {"name": "plus"}, bearer=bearer, headers=headers)
    assert answer["result"]["content"][0]["text"] == "3"
    assert control.wakes == [{"kind": "MCPServer", "namespace": "kagent", "name": "peer"}]


async def test_the_aggregated_endpoint_wakes_what_it_lists_and_calls(
    rig: Rig, plane: tuple[Plane, str], peer: int
) -> None:
    control, _ = plane
    await following(rig, control, world(peer, up=False))
    session = await rig.initialize("/mcp", bearer=token("pod-b"))
    assert control.wakes == [], "a session alone wakes nobody"
    headers = {"mcp-session-id": session}
    control.on_wake = world(peer, up=True)
    answer = await rig.rpc("/mcp", "tools/list", bearer=token("pod-b"), headers=headers)
    assert "peer_add" in {tool["name"] for tool in answer["result"]["tools"]}
    await following(rig, control, world(peer, up=False))
    call = {"name": "peer_add", "arguments": {"a": 1, "b": 2}}
    denied = await rig.rpc(
        "/mcp", "tools/call", call | {"name": "peer_echo"}, bearer=token("pod-a"), headers=await own(rig)
    )
    assert "error" in denied and len(control.wakes) == 1, "what is denied wakes nobody"
    answer = await rig.rpc("/mcp", "tools/call", call, bearer=token("pod-b"), headers=headers)
    assert answer["result"]["content"][0]["text"] == "3"
    assert len(control.wakes) == 2


async def own(rig: Rig) -> dict[str, str]:
    return {"mcp-session-id": await rig.initialize("/mcp", bearer=token("pod-a"))}


async def test_reports_say_what_was_used(rig: Rig, plane: tuple[Plane, str], peer: int) -> None:
    control, _ = plane
    await following(rig, control, world(peer, up=True))
    await rig.rpc("/mcp/kagent/peer", "ping", bearer=token("pod-b"))
    async with asyncio.timeout(30):
        while not any(u.calls for report in control.reports for u in report.used if u.kind == "MCPServer"):
            control.told.clear()
            await control.told.wait()
    assert {u.name for u in control.reports[-1].used} == {"peer", "sleeper"}


class Sleepers:
    def __init__(self) -> None:
        self.up = False
        self.asked = 0
        self.problem = ""

    async def ask(self, sleeper: Sleeper) -> None:
        self.asked += 1
        if self.problem:
            raise UpstreamError(self.problem)


async def test_held_calls_are_bounded() -> None:
    of = Sleepers()
    waker = Waker(of.ask, lambda _: 5.0, lambda _: of.up, limit=8)
    held = [asyncio.ensure_future(waker.ready(AGENT)) for _ in range(2)]
    await asyncio.sleep(0)
    assert "holds 2 calls for it already" in await waker.ready(AGENT), "others are to have room, too"
    others = [("Agent", "kagent", f"other-{number}") for number in range(6)]
    held += [asyncio.ensure_future(waker.ready(other)) for other in others]
    await asyncio.sleep(0)
    assert "holds 8 calls already" in await waker.ready(("Agent", "kagent", "one-too-many"))
    of.up = True
    waker.changed()
    assert await asyncio.gather(*held) == [""] * 8
    assert waker.held == 0


async def test_what_must_not_be_woken_is_not_waited_for() -> None:
    of = Sleepers()
    waker = Waker(of.ask, lambda _: 0.0, lambda _: of.up)
    assert "no ready endpoint" in await waker.ready(AGENT)
    assert of.asked == 0


async def test_a_client_that_leaves_frees_its_place() -> None:
    of = Sleepers()
    waker = Waker(of.ask, lambda _: 60.0, lambda _: of.up)
    call = asyncio.ensure_future(waker.ready(AGENT))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert waker.held == 0
