"""An agent with two tracks behind the gateway: where requests go, what is counted, what sticks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.gateway.a2a.conversation import Reading, conversations
from quarterdeck.snapshot.conversation import new_id, track_tag
from quarterdeck.wire.http import Exchange, Server

from .conftest import Rig, snapshot

TAG = track_tag("a-2", "2026-11-21T12:00:00.000000Z")
AGENT = "kagent/tracked"


class Track:
    """An agent's Pod of one track: answers as it is told, under ids of its track or of its own making."""

    def __init__(self, name: str, tag: int | None) -> None:
        self.name, self.tag, self.fails = name, tag, ""
        self.calls: list[dict[str, Any]] = []

    async def handle(self, exchange: Exchange) -> None:
        if exchange.method == "GET":
            exchange.respond(200, msgspec.json.encode({"name": self.name, "url": "http://x/"}))
            return
        body = msgspec.json.decode(exchange.body)
        self.calls.append(body)
        message = body["params"].get("message", {})
        made = new_id(AGENT, self.tag) if self.tag is not None else f"own-{self.name}-{len(self.calls)}"
        task: dict[str, Any] = {
            "contextId": message.get("contextId") or made,
            "id": "t",
            "status": {"state": "completed"},
        }
        if self.fails == "500":
            exchange.respond(500, b"broken")
            return
        if self.fails == "rpc":
            error = {"jsonrpc": "2.0", "id": body["id"], "error": {"code": -32603, "message": "no model"}}
            exchange.respond(200, msgspec.json.encode(error), [(b"content-type", b"application/json")])
            return
        task["status"]["state"] = "failed" if self.fails == "task" else "completed"
        task["history"] = [{"parts": [{"text": 'they said "state":"failed" and "error": {"code": -32603}'}]}]
        answer = msgspec.json.encode({"jsonrpc": "2.0", "id": body["id"], "result": task})
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        for at in range(0, len(answer), 7):  # in pieces that cut every word
            exchange.write(answer[at : at + 7])
            await asyncio.sleep(0)
        exchange.finish()


@pytest.fixture
async def tracks(bare: Rig) -> AsyncIterator[tuple[Rig, Track, Track]]:
    """An agent whose canary gets a quarter of the conversations."""
    found = (Track("stable", 0), Track("canary", TAG))
    servers = [Server(track.handle, name=track.name) for track in found]
    ports = [(await server.listen("127.0.0.1", 0))[1] for server in servers]
    stable, canary = ((s.Endpoint("127.0.0.1", port),) for port in ports)
    split = s.Split(
        (s.Backend("stable", stable, 75), s.Backend("canary", canary, 25, tag=TAG, epoch=f"{TAG}.0")), sticky=True
    )
    bare.gateway.use(snapshot(1, mcp=(), agents=(s.Agent("kagent", "tracked", stable, split=split),)))
    yield bare, *found
    for server in servers:
        await server.stop(0.1)


async def ask(rig: Rig, context: str = "", **more: Any) -> str:
    """Asks one question; the conversation it is in then."""
    message = {"messageId": "m", "role": "user", "parts": []} | ({"contextId": context} if context else {})
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": {"message": message}}
    response = await rig.request(f"/a2a/{AGENT}", body, listener="local", **more)
    answer = await response.read()
    return msgspec.json.decode(answer).get("result", {}).get("contextId", "") if response.status == 200 else ""


def counted(rig: Rig) -> tuple[int, int]:
    report = rig.gateway._observer.ledger.report(rig.gateway.snapshot, [])  # pyright: ignore[reportPrivateUsage]
    assert report is not None
    return (report.counted[0].requests, report.counted[0].errors) if report.counted else (0, 0)


async def test_conversations_are_dealt_out_and_stay_where_they_began(tracks: tuple[Rig, Track, Track]) -> None:
    rig, stable, canary = tracks
    begun = [await ask(rig) for _ in range(20)]
    assert (len(stable.calls), len(canary.calls)) == (15, 5)
    for context in begun:
        assert await ask(rig, context) == context
    assert (len(stable.calls), len(canary.calls)) == (30, 10)
    assert Counter(c["params"]["message"].get("contextId") for c in canary.calls[5:]) == Counter(
        context for context in begun if context[9:13] == f"{TAG:04x}"
    )


async def test_agents_that_make_ids_of_their_own_are_remembered(tracks: tuple[Rig, Track, Track]) -> None:
    rig, stable, canary = tracks
    stable.tag = canary.tag = None
    begun = [await ask(rig) for _ in range(8)]
    assert {c.split("-")[1] for c in begun} == {"stable", "canary"}
    for context in begun:
        at = canary if "canary" in context else stable
        before = len(at.calls)
        assert await ask(rig, context) == context
        assert len(at.calls) == before + 1


@pytest.mark.parametrize("kind", ["500", "rpc", "task"])
async def test_failures_of_the_canary_are_counted_and_what_people_write_is_not(
    tracks: tuple[Rig, Track, Track], kind: str
) -> None:
    rig, stable, canary = tracks
    stable.fails = kind
    for _ in range(8):
        await ask(rig)
    assert counted(rig) == (2, 0)
    canary.fails = kind
    for _ in range(8):
        await ask(rig)
    assert counted(rig) == (4, 2)


async def test_a_canary_that_is_down_fails_nobody_but_in_flight_and_counts(tracks: tuple[Rig, Track, Track]) -> None:
    rig, _, _ = tracks
    dead = (s.Endpoint("127.0.0.1", 9),)
    agent = rig.gateway.snapshot.agents[0]
    assert agent.split is not None
    moved = s.Split((agent.split.backends[0], s.Backend("canary", dead, 25, tag=TAG, epoch=f"{TAG}.0")), sticky=True)
    rig.gateway.use(snapshot(1, mcp=(), agents=(s.Agent("kagent", "tracked", agent.endpoints, split=moved),)))
    for _ in range(8):
        await ask(rig)
    assert counted(rig) == (2, 2)


async def test_cards_come_from_the_stable_track_and_take_no_turn(tracks: tuple[Rig, Track, Track]) -> None:
    rig, stable, canary = tracks
    for _ in range(7):
        response = await rig.request(f"/a2a/{AGENT}/.well-known/agent-card.json", method="GET", listener="local")
        assert msgspec.json.decode(await response.read())["name"] == "stable"
    for _ in range(4):
        await ask(rig)
    assert (len(stable.calls), len(canary.calls)) == (3, 1)


@pytest.mark.parametrize(
    ("body", "target", "expected"),
    [
        ({"params": {"message": {"contextId": "c", "taskId": "t"}}}, "/", ("c", "t")),
        ({"params": {"id": "t"}}, "/", ("t",)),
        ({"params": {"taskId": "t", "contextId": "c"}}, "/", ("c", "t")),
        ({"message": {"contextId": "c"}}, "/v1/message:stream", ("c",)),
        ({"id": "request"}, "/v1/tasks/t1:subscribe?x=/tasks/t2", ("t1",)),
        ({"params": {"id": 7}}, "/", ()),
        ({"params": [1]}, "/", ()),
        ({"params": {"message": {"contextId": "c" * 300}}}, "/", ()),
    ],
)
def test_which_conversation_a_request_belongs_to(body: dict[str, Any], target: str, expected: tuple[str, ...]) -> None:
    assert conversations(msgspec.json.encode(body), target) == expected
    assert conversations(b"no json", "/") == ()


def test_the_tail_between_two_chunks_is_bounded() -> None:
    reading = Reading()
    for _ in range(1000):
        reading.feed(b"x" * 1000)
    reading.feed(b'"state":"fai')
    reading.feed(b'led"')
    assert reading.failed
