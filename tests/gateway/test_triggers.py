"""The gateway's part of triggers: requests to ``/hooks/`` are passed on, and agents' resources are followed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.errors import QuarterdeckError, UpstreamError
from quarterdeck.gateway.call import Call
from quarterdeck.gateway.hooks import AT_ONCE, Hooks
from quarterdeck.gateway.observe import Observer
from quarterdeck.kube import resource as k
from quarterdeck.server.database import Database
from quarterdeck.server.triggers_updates import Updates
from quarterdeck.snapshot import delegation
from quarterdeck.snapshot.hooks import LARGEST, Forwarded
from quarterdeck.snapshot.permits import InvalidPermit, Permit, Signer, Verifier
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.client import Response
from quarterdeck.wire.http import Exchange, Server
from support.trigger_world import Clock, Controller

from .conftest import Rig, grant, snapshot, token
from .federation.servers import Upstream

HOOK = "/hooks/kagent/t"


class Plane:
    """The control plane as the gateway asks it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Forwarded]] = []
        self.answer: dict[str, Any] | bytes = {"status": 202, "outcome": "Started", "run": "r1"}
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def ask(self, path: str, body: bytes) -> bytes:
        self.asked.append((path, msgspec.json.decode(body, type=Forwarded)))
        await self.go_on.wait()
        if isinstance(self.answer, bytes):
            raise UpstreamError("gone")
        return msgspec.json.encode(self.answer)


@pytest.fixture
def plane(bare: Rig) -> Plane:
    plane = Plane()
    bare.gateway.use(snapshot(1, hooks=("kagent/t",)))
    bare.gateway._hooks.ask = plane.ask  # pyright: ignore[reportPrivateUsage]  # what a control plane's URL sets
    return plane


async def post(rig: Rig, path: str = HOOK, body: bytes = b"{}", **options: Any) -> tuple[Response, Any]:
    response = await rig.request(path, body, listener="local", **options)
    return response, msgspec.json.decode(await response.read())


async def test_a_request_is_passed_on_as_it_is_and_its_answer_too(bare: Rig, plane: Plane) -> None:
    headers = {"x-hub-signature-256": "sha256=1", "cookie": "a=b", "X-GitHub-Event": "push"}
    response, told = await post(bare, body=b"\x00\xff", headers=headers)
    assert (response.status, told) == (202, {"outcome": "Started", "run": "r1"})
    path, sent = plane.asked[0]
    assert (path, sent.body, sent.gateway) == ("hooks/kagent/t", b"\x00\xff", "quarterdeck-system/quarterdeck")
    assert sent.headers["x-hub-signature-256"] == "sha256=1" and sent.headers["x-github-event"] == "push"
    assert not {"cookie", "host", "content-length"} & sent.headers.keys()
    plane.answer = {"status": 401, "message": "no"}
    response, told = await post(bare)
    assert (response.status, told) == (401, {"error": {"message": "no", "code": 401}})
    plane.answer = {"status": 429, "message": "slow", "outcome": "Limited", "retryAfter": 7}
    response, _ = await post(bare)
    assert response.status == 429 and response.header(b"retry-after") == b"7"
    plane.answer = b""
    assert (await post(bare))[0].status == 503
    records = bare.records()
    assert [(r["server"], r["outcome"], r["status"]) for r in records] == [
        ("Trigger/kagent/t", "ok", 202), ("Trigger/kagent/t", "denied", 401), ("Trigger/kagent/t", "error", 429),
        ("Trigger/kagent/t", "error", 503),
    ]  # fmt: skip


async def test_lines_that_proxies_added_are_one_header(bare: Rig, plane: Plane) -> None:
    twice = {"X-Forwarded-For": "192.0.2.1", "x-forwarded-for": "192.0.2.2", "Authorization": "Bearer a"}
    assert (await post(bare, headers=twice, bearer="b"))[0].status == 202
    sent = plane.asked[0][1].headers
    assert (sent["x-forwarded-for"], sent["authorization"]) == ("192.0.2.1, 192.0.2.2", "Bearer a, Bearer b")


async def test_what_is_no_trigger_or_too_much_does_not_reach_the_control_plane(bare: Rig, plane: Plane) -> None:
    for path, status in (("/hooks/kagent/other", 404), ("/hooks/", 404), ("/hooks/kagent/t/x", 404), (HOOK + "/", 202)):
        assert (await post(bare, path))[0].status == status, path
    assert len(plane.asked) == 1
    response, _ = await post(bare, method="PUT")
    assert response.status == 405 and response.header(b"allow") == b"POST"
    assert (await post(bare, body=b"x" * (LARGEST + 1)))[0].status == 413
    assert (await post(bare, headers={"x": "y" * 5000}))[0].status == 431
    assert (await post(bare, headers={f"x{n}": "y" for n in range(70)}))[0].status == 431
    workloads = await bare.request(HOOK, b"{}")
    assert workloads.status == 401, "Pods have a listener of their own, and it takes tokens only"
    await workloads.read()
    assert len(plane.asked) == 1


async def test_a_flood_is_held_back_and_others_are_served(bare: Rig, plane: Plane) -> None:
    plane.go_on.clear()
    first = [asyncio.create_task(post(bare)) for _ in range(AT_ONCE)]
    while len(plane.asked) < AT_ONCE:
        await asyncio.sleep(0)
    flood = await asyncio.gather(*(post(bare) for _ in range(40)))
    assert {(response.status, response.header(b"retry-after")) for response, _ in flood} == {(503, b"1")}
    assert len(plane.asked) == AT_ONCE
    plane.go_on.set()
    assert {response.status for response, _ in await asyncio.gather(*first)} == {202}
    assert (await post(bare))[0].status == 202


async def test_what_comes_in_one_moment_is_held_back_too(plane: Plane) -> None:
    """Handlers run one after the other before what they have begun does."""
    plane.go_on.clear()
    hooks = Hooks(cast(Observer, _Unheard()), "kagent/gw", Registry())
    hooks.ask = plane.ask
    begun = [hooks.handle(cast(Exchange, _Asked()), frozenset({"kagent/t"})) for _ in range(2 * AT_ONCE)]
    tasks = [asyncio.create_task(work) for work in begun if work is not None]
    assert len(tasks) == 2 * AT_ONCE
    while sum(task.done() for task in tasks) < AT_ONCE:
        await asyncio.sleep(0)
    plane.go_on.set()
    await asyncio.gather(*tasks)
    assert len(plane.asked) == AT_ONCE


class _Unheard:
    def begin(self, call: Call) -> None: ...
    def finish(self, call: Call, outcome: str, status: int, detail: str = "") -> None: ...


class _Asked:
    """A request to the trigger."""

    method, raw_path, body, disconnected = "POST", b"/hooks/kagent/t", b"{}", True

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.context: dict[bytes, bytes] = {}


# -- resources of MCP servers


@pytest.fixture
async def server() -> AsyncIterator[Upstream]:
    upstream = Upstream("first", modern=True)
    listening = Server(upstream.handle, name="upstream")
    _, upstream.port = await listening.listen("127.0.0.1", 0)
    yield upstream
    await listening.stop(0)


async def test_a_resource_that_changes_starts_one_run(bare: Rig, server: Upstream, tmp_path: Path) -> None:
    signer, _ = Signer.new()
    policies = (s.AgentPolicy("kagent", "helper", (grant(),)), s.AgentPolicy("kagent", "narrow", (grant("add"),)))
    bare.gateway.use(snapshot(server.port, permit_keys=(signer.public,), policies=policies))
    database = await Database.open(str(tmp_path / "server.db"))
    two = [Controller(database, Clock()) for _ in range(2)]
    tools = {"type": "Declarative", "declarative": {"tools": [{"mcpServer": {"name": "peer"}}]}}
    for one in two:
        one.triggers._context.options = type(one.triggers._context.options)(  # pyright: ignore[reportPrivateUsage]
            gateway_url=bare.gateway.endpoints["workloads"]
        )
        one.put(k.MCP_SERVER, "peer", {})
        for agent in ("helper", "narrow"):
            one.put(k.AGENT, agent, tools)
        for name, agent in (("t", "helper"), ("narrow", "narrow")):
            resources = {"server": {"name": "peer"}, "uris": ["memo://one"]}
            one.trigger(name, agent=agent, mcpResources=resources, deduplicate={"window": "0s"})

    def bearer(trigger: str, agent: str) -> str:
        return delegation.sign(signer, trigger, agent, time.time())

    with pytest.raises(QuarterdeckError, match="not allowed for agent kagent/narrow"):
        await Updates(two[0].engine, bearer).follow(two[0].triggers.get("kagent", "narrow"))
    following = [
        asyncio.create_task(Updates(one.engine, bearer).follow(one.triggers.get("kagent", "t"))) for one in two
    ]
    reads = len(server.requests("resources/read"))
    await until(lambda: len(server.requests("resources/read")) == reads + 2)
    assert await two[0].all() == [], "what is there already is no news"
    tell = {"method": "notifications/resources/updated", "params": {"uri": "memo://one"}}
    await server.push(tell)  # without a change
    await until(lambda: len(server.requests("resources/read")) == reads + 4)
    server.name = "second"
    await server.push(tell)
    await until(lambda: len(server.requests("resources/read")) == reads + 6)
    runs = await settled(two[0], 1)
    assert '"text":"second"' in await two[0].message(runs[0]) and runs[0]["agent"] == "kagent/helper"
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    server.name = "first"  # while nobody listened, and back to what it was
    task = asyncio.create_task(Updates(two[0].engine, bearer).follow(two[0].triggers.get("kagent", "t")))
    await settled(two[0], 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(await two[0].all()) == 2
    await database.close()


async def test_a_bug_met_while_resources_are_followed_ends_nothing(tmp_path: Path) -> None:
    """It is logged, and they are followed again."""
    database = await Database.open(str(tmp_path / "server.db"))
    one = Controller(database, Hasty())
    one.put(k.MCP_SERVER, "peer", {})
    one.put(k.AGENT, "helper", {"type": "Declarative", "declarative": {"tools": [{"mcpServer": {"name": "peer"}}]}})
    one.trigger(mcpResources={"server": {"name": "peer"}, "uris": ["memo://one"]})
    updates = Odd(one.engine, lambda trigger, agent: "")
    running = asyncio.create_task(updates.run())
    await until(lambda: updates.followed > 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await database.close()


class Odd(Updates):
    """Meets a server whose word is not what anybody expects."""

    followed = 0

    async def follow(self, found: Any) -> None:
        self.followed += 1
        raise AttributeError("'list' object has no attribute 'get'")


class Hasty(Clock):
    """Nobody waits long."""

    def call_later(self, delay: float, callback: Any) -> Any:
        return asyncio.get_running_loop().call_soon(callback)


async def until(check: Any) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.01)


async def settled(one: Controller, count: int) -> list[dict[str, Any]]:
    """The runs, when there are so many."""
    async with asyncio.timeout(60):
        while len(found := await one.all()) < count:
            await asyncio.sleep(0.01)
    assert len(found) == count
    return found


async def test_the_control_planes_token_is_for_looking_and_for_nobody_else(bare: Rig, peer: int) -> None:
    signer, _ = Signer.new()
    bare.gateway.use(snapshot(peer, permit_keys=(signer.public,)))
    verifier, now = Verifier((signer.public,)), time.time()
    good = delegation.sign(signer, "kagent/t", "kagent/b", now)
    permit = signer.sign(Permit("run", 1, 1, 1, "kagent/b", "add", "sha256:", now + 30))
    with pytest.raises(InvalidPermit, match="no delegation"):
        delegation.read(verifier, delegation.PREFIX + permit, now)
    with pytest.raises(InvalidPermit, match="no permit"):
        verifier.open(good.removeprefix(delegation.PREFIX), now)
    path = "/mcp/kagent/peer"
    assert "tools" in (await _list(bare, path, good))["result"]
    old = delegation.sign(signer, "kagent/t", "kagent/b", now - delegation.LIFETIME - 60)
    forged = delegation.sign(Signer.new()[0], "kagent/t", "kagent/b", now)
    nobody = delegation.sign(signer, "kagent/t", "kagent/c", now)
    for bad, status in ((old, 401), (forged, 401), (delegation.PREFIX + permit, 401), (good[:-2], 401)):
        assert (await bare.request(path, {}, bearer=bad)).status == status
    assert (await _list(bare, path, nobody)).get("error"), "the agent's own grants hold"
    assert "tools" in (await _list(bare, path, token("pod-b")))["result"]


async def _list(rig: Rig, path: str, bearer: str) -> dict[str, Any]:
    session = await rig.initialize(path, bearer=bearer)
    return await rig.rpc(path, "tools/list", bearer=bearer, headers={"mcp-session-id": session})
