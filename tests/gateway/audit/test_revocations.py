"""The kill switch: new calls are refused, what is open ends, both survive a restart, and undoing ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.errors import BadRequest, NotFound, StorageError, UpstreamError
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.config.lastgood import LastGood, load_key
from quarterdeck.gateway.options import Options
from quarterdeck.gateway.policy.authorizer import Authorizer, Request
from quarterdeck.gateway.policy.principal import LOCAL_USER, Principal, agent_principal
from quarterdeck.gateway.revocations import Revocations
from quarterdeck.snapshot.revocations import Revocation, wanted
from quarterdeck.wire.client import Response

from ..conftest import Rig, snapshot, token

PATH = "/mcp/kagent/peer"
CALL = {"name": "echo", "arguments": {"text": "x"}}


async def admin(rig: Rig, method: str, body: Any = None, path: str = "/revocations") -> tuple[int, Any]:
    host, port = rig.gateway.endpoints["admin"].removeprefix("http://").split(":")
    data = b"" if body is None else msgspec.json.encode(body)
    headers = [(b"host", f"{host}:{port}".encode())]
    response = await rig.pool.request(method, (host, int(port), False), path, headers, data)
    return response.status, msgspec.json.decode(await response.read())


@pytest.fixture
async def hanging() -> AsyncIterator[tuple[int, asyncio.Semaphore]]:
    """A server that starts a stream and never ends it; its semaphore counts the requests that came."""
    came = asyncio.Semaphore(0)
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hello\n\n")
        came.release()
        await over.wait()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], came
    over.set()
    server.close()


async def opened(rig: Rig, came: asyncio.Semaphore, **options: Any) -> list[Response]:
    """A call that is not answered and a GET stream."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}
    responses = [await rig.request(PATH, call, **options), await rig.request(PATH, method="GET", **options)]
    for _ in responses:
        await came.acquire()
    return responses


@pytest.mark.parametrize(
    ("body", "options", "rule"),
    [
        ({"agent": "kagent/b"}, {"bearer": token("pod-b")}, "revoked/agent/kagent/b"),
        ({"server": "kagent/peer"}, {"bearer": token("pod-b")}, "revoked/server/kagent/peer"),
        ({"user": "anonymous@local"}, {"listener": "local"}, "revoked/user/anonymous@local"),
    ],
)
async def test_what_is_open_ends_and_nothing_new_begins(
    rig: Rig, hanging: tuple[int, asyncio.Semaphore], body: Any, options: dict[str, Any], rule: str
) -> None:
    port, came = hanging
    rig.gateway.use(snapshot(port))
    open_now = await opened(rig, came, **options)
    status, made = await admin(rig, "POST", {**body, "reason": "stolen laptop"})
    assert status == 201
    async with asyncio.timeout(30):
        call = b"".join([chunk async for chunk in open_now[0]])
        with pytest.raises(Exception, match="closed the connection"):
            async for _ in open_now[1]:
                pass
    assert rule.encode() in call and b"stolen laptop" in call
    ended = rig.records()
    assert [(r["rule"], r["outcome"]) for r in ended] == [(rule, "error"), (rule, "error")]

    refused = await rig.request(PATH, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": CALL}, **options)
    assert rule.encode() in await refused.read()
    assert (rig.records()[-1]["rule"], rig.records()[-1]["outcome"]) == (rule, "denied")

    assert [r["id"] for r in (await admin(rig, "GET"))[1]["revocations"]] == [made["id"]]
    assert (await admin(rig, "DELETE", path=f"/revocations/{made['id']}"))[0] == 200
    again = await rig.request(PATH, method="GET", **options)
    assert again.status == 200
    again.close()


async def test_others_are_left_alone(rig: Rig, hanging: tuple[int, asyncio.Semaphore]) -> None:
    port, came = hanging
    rig.gateway.use(snapshot(port))
    open_now = await opened(rig, came, bearer=token("pod-b"))
    await admin(rig, "POST", {"agent": "kagent/a"})
    assert len(rig.gateway.upstreams.in_flight) == 2
    for response in open_now:
        response.close()


async def test_a_revoked_server_is_neither_listed_nor_called(rig: Rig, peer: int) -> None:
    await rig.initialize("/mcp", listener="local")
    await admin(rig, "POST", {"server": "kagent/peer"})
    session = await rig.initialize("/mcp", listener="local")
    listed = await rig.rpc("/mcp", "tools/list", listener="local", headers={"mcp-session-id": session})
    assert listed["result"]["tools"] == []
    denied = await rig.rpc(
        "/mcp", "tools/call", {**CALL, "name": "peer_echo"}, listener="local", headers={"mcp-session-id": session}
    )
    assert "error" in denied
    assert rig.records()[-1]["rule"] == "revoked/server/kagent/peer"


async def test_the_snapshot_revokes_too_even_one_that_cannot_be_served(rig: Rig, peer: int) -> None:
    revoked = Revocation("r1", "agent", "kagent/b", created=1.0)
    rig.gateway.use(snapshot(peer, revocations=(revoked,)))
    assert (await rig.request(PATH, b"{}", bearer=token("pod-b"))).status == 403
    rig.gateway.use(snapshot(peer))
    assert (await rig.request(PATH, b"{}", bearer=token("pod-b"))).status == 400
    broken = s.McpServer("kagent", "x", "MCPServer", "/mcp", tls=True, tls_ca="no certificate")
    with pytest.raises(Exception, match="certificate"):
        rig.gateway.use(snapshot(peer, mcp=(broken,), revocations=(revoked,)))
    assert (await rig.request(PATH, b"{}", bearer=token("pod-b"))).status == 403


async def test_it_holds_after_a_restart_without_a_control_plane(tmp_path: Path, peer: int) -> None:
    config = tmp_path / "snapshot.json"
    config.write_bytes(msgspec.json.encode(snapshot(peer)))
    zero = ("127.0.0.1", 0)
    options = Options(
        zero, zero, zero, zero, zero, data_dir=tmp_path / "data", config=config, audit_file=tmp_path / "audit.jsonl"
    )
    for expected in (201, 403):
        gateway = Gateway(options)
        await gateway.start()
        rig = Rig(gateway, tmp_path / "audit.jsonl")
        if expected == 201:
            assert (await admin(rig, "POST", {"agent": "kagent/b"}))[0] == 201
        assert (await rig.request(PATH, b"{}", bearer=token("pod-b"))).status == 403
        rig.pool.close()
        await gateway.stop(0.1)


def made(tmp_path: Path, clock: Callable[[], float] = lambda: 100.0) -> Revocations:
    return Revocations(tmp_path / "revocations.json", lambda _: None, clock)


def test_one_that_expires_ends_by_itself(tmp_path: Path) -> None:
    now = [100.0]
    revocations = made(tmp_path, lambda: now[0])
    revocations.add(wanted({"user": "alice", "for": 60}, by="me", now=100.0))
    alice = Principal("x", claims={"sub": "alice"})
    assert revocations.refusal(alice) is not None
    now[0] = 161.0
    assert revocations.refusal(alice) is None and revocations.all() == []


def test_of_two_the_longer_counts(tmp_path: Path) -> None:
    now = [100.0]
    revocations = made(tmp_path, lambda: now[0])
    for seconds in (0, 60):
        revocations.add(wanted({"agent": "ns/a", "for": seconds}, by="me", now=100.0))
    now[0] = 200.0
    assert revocations.refusal(agent_principal("ns/a")) is not None


def test_what_another_worker_kept_holds_here_and_a_lost_file_frees_nobody(tmp_path: Path) -> None:
    ended: list[int] = []
    one = made(tmp_path)
    late = Revocations(tmp_path / "revocations.json", lambda _: ended.append(1), lambda: 100.0)
    one.add(wanted({"user": "alice"}, by="me", now=1.0))
    alice = Principal("x", claims={"sub": "alice"})
    assert late.refusal(alice) is None
    late.look()
    assert late.refusal(alice) is not None and ended == [1], "what alice has open ends, too"
    for text in (None, "{"):
        (tmp_path / "revocations.json").unlink() if text is None else (tmp_path / "revocations.json").write_text(text)
        late.look()
        assert late.refusal(alice) is not None
    ident = one.all()[0].id
    one.undo(ident)
    late.look()
    assert late.refusal(alice) is None
    assert late.undo(ident).id == ident, "the same request, which goes to all workers"
    for worker in (one, late):
        with pytest.raises(NotFound):
            worker.undo(ident)


@pytest.mark.parametrize(
    ("principal", "target", "denied"),
    [
        (agent_principal("ns/a"), ("MCPServer", "ns", "s"), True),
        (Principal("u", on_behalf_of="alice"), ("Model", "ns", "m"), True),
        (Principal("u", username="alice"), ("Model", "ns", "m"), True),
        (LOCAL_USER, ("Agent", "ns", "a"), True),
        (LOCAL_USER, ("MCPServer", "ns", "a"), False),
        (LOCAL_USER, ("RemoteMCPServer", "ns", "bad"), True),
        (LOCAL_USER, ("Model", "ns", "bad"), False),
        (agent_principal("ns/b"), ("Model", "ns", "m"), False),
    ],
)
def test_the_authorizer_asks_first(
    tmp_path: Path, principal: Principal, target: tuple[str, str, str], denied: bool
) -> None:
    authorizer = Authorizer(s.Snapshot(policies=(s.AgentPolicy("ns", "b", models=("ns/m",)),)))
    revocations = authorizer.revocations = made(tmp_path)
    for body in ({"agent": "ns/a"}, {"user": "alice"}, {"server": "ns/bad"}):
        revocations.add(wanted(body, by="me", now=1.0))
    decision = authorizer.decide(Request(principal, target, "tools/call", "t"))
    assert decision.rule.startswith("revoked/") == denied


@pytest.mark.parametrize(
    "body",
    [{}, {"agent": "a/b", "user": "c"}, {"agent": "nobody"}, {"server": "a/"}, {"user": 1}, {"user": "a", "for": -1},
     {"user": "a", "reason": "x" * 600}, {"user": "a", "for": True}],
)  # fmt: skip
def test_requests_that_make_no_sense(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        wanted(body, by="me", now=1.0)


def test_a_damaged_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "revocations.json").write_text("{")
    with pytest.raises(StorageError, match="who is revoked is not known"):
        made(tmp_path)


async def test_streams_that_the_gateway_serves_itself_end_too(rig: Rig, peer: int) -> None:
    session = await rig.initialize("/mcp", bearer=token("pod-b"))
    headers = {"mcp-session-id": session, "accept": "text/event-stream"}
    stream = await rig.request("/mcp", method="GET", bearer=token("pod-b"), headers=headers)
    assert stream.status == 200
    await admin(rig, "POST", {"agent": "kagent/b"})
    async with asyncio.timeout(30):
        with contextlib.suppress(UpstreamError):
            async for _ in stream:
                pass


async def test_it_holds_while_the_control_plane_is_gone(tmp_path: Path, peer: int) -> None:
    data = tmp_path / "data"
    revoked = Revocation("r1", "agent", "kagent/b", created=1.0)
    LastGood(data / "snapshot.bin", load_key(data / "gateway.key")).save(
        s.encode(snapshot(peer, revocations=(revoked,)))
    )
    zero = ("127.0.0.1", 0)
    options = Options(
        zero, zero, zero, zero, zero, control_plane="http://127.0.0.1:9", data_dir=data,
        audit_file=tmp_path / "audit.jsonl",
    )  # fmt: skip
    gateway = Gateway(options)
    await gateway.start()
    rig = Rig(gateway, tmp_path / "audit.jsonl")
    assert (await rig.request(PATH, b"{}", bearer=token("pod-b"))).status == 403
    assert (await rig.request(PATH, b"{}", bearer=token("pod-a"))).status == 400
    rig.pool.close()
    await gateway.stop(0.1)
