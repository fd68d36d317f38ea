"""Several processes of one gateway behind a balancer: what one of them holds is reached through the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.mcp import peers
from quarterdeck.gateway.mcp.keys import KeyFile
from quarterdeck.gateway.mcp.session import Session, SessionSealer
from quarterdeck.gateway.options import Options
from quarterdeck.gateway.policy.attributes import api_key_value
from quarterdeck.gateway.policy.principal import Principal

from ..conftest import Rig
from .servers import Client, Upstream, ask, behind, messages
from .test_duties import ELICITATION, until

KEY = b"k" * 32


async def gateway(directory: Path, peers: Any, key: bytes = KEY) -> Rig:
    directory.mkdir()
    key_file, config = directory / "key", directory / "snapshot.json"
    key_file.write_bytes(key)
    config.write_bytes(msgspec.json.encode(s.Snapshot(version="v0")))
    zero = ("127.0.0.1", 0)
    options = Options(
        zero, zero, zero, zero, None,
        data_dir=directory, config=config, key_file=key_file, audit_file=directory / "audit", peers=peers,
    )  # fmt: skip
    made = Gateway(options)
    await made.start()
    return Rig(made, directory / "audit")


@pytest.fixture(params=["workers", "replicas"])
async def pair(
    request: pytest.FixtureRequest, tmp_path: Path, one: Upstream, new: Upstream
) -> AsyncIterator[tuple[Rig, Rig]]:
    """Two gateways with one key in front of a server of each era: on sockets of one machine, and on addresses."""
    peers: Any = tmp_path / "p" if request.param == "workers" else ("127.0.0.1", 0)
    rigs = (await gateway(tmp_path / "a", peers), await gateway(tmp_path / "b", peers))
    for rig in rigs:
        rig.gateway.use(behind(one, new))
        await rig.gateway.listeners.settled()
    yield rigs
    for rig in rigs:
        rig.pool.close()
        await rig.gateway.stop(0.2)


async def test_a_session_is_served_by_any_process(pair: tuple[Rig, Rig], one: Upstream, new: Upstream) -> None:
    client = Client(*pair)
    await client.initialize()
    for _ in range(4):
        assert (await client.call("tools/call", name="one_echo", arguments={}))["result"]
        assert (await client.call("tools/call", name="new_echo", arguments={}))["result"]
        names = [tool["name"] for tool in (await client.call("tools/list"))["result"]["tools"]]
        assert names == ["new_echo", "one_echo"]
    assert one.opened == 1, "all of them use the session that was opened at first"


async def test_answers_find_the_question_through_any_process(pair: tuple[Rig, Rig]) -> None:
    for start in (0, 1):
        for server, said in (("one", "5 accept"), ("new", "accept s1")):
            client = Client(*pair)
            await client.initialize(elicitation={})
            client._turn = start
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": f"{server}_ask"}}
            stream = messages(await client.post(body))
            question = await anext(stream)
            answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
            assert (await client.post(answer)).status == 202
            assert (await anext(stream))["result"]["content"][0]["text"] == said


async def test_a_held_call_is_taken_up_through_any_process(pair: tuple[Rig, Rig]) -> None:
    for first, second in (pair, reversed(pair)):
        asked = (await ask(first, "tools/call", ELICITATION, name="one_ask", arguments={}))["result"]
        (key,) = asked["inputRequests"]
        again = {"inputResponses": {key: {"action": "accept"}}, "requestState": asked["requestState"]}
        answer = await ask(second, "tools/call", ELICITATION, name="one_ask", arguments={}, **again)
        assert answer["result"]["content"][0]["text"] == "5 accept"


async def test_the_get_stream_is_the_owners(pair: tuple[Rig, Rig], one: Upstream) -> None:
    client = Client(*pair)
    await client.initialize()
    stream = messages(await client.post(None, "GET"))
    await until(lambda: one.streams)
    await one.push({"method": "notifications/tools/list_changed"})
    assert (await anext(stream))["method"] == "notifications/tools/list_changed"
    assert (await client.post(None, "DELETE")).status == 204
    for method in ("tools/list", "ping", "logging/setLevel"):
        for _ in pair:
            assert (await client.post({"jsonrpc": "2.0", "id": 1, "method": method})).status == 404


async def test_requests_at_the_same_time_are_answered_by_all(pair: tuple[Rig, Rig]) -> None:
    client = Client(*pair)
    await client.initialize()
    stream = await client.post(None, "GET")
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(client.call("tools/list") for _ in range(6)))
    assert all(len(answer["result"]["tools"]) == 2 for answer in answers)
    stream.close()


async def test_an_owner_that_is_gone_is_a_clear_error(pair: tuple[Rig, Rig]) -> None:
    first, second = pair
    client = Client(first, second)
    await client.initialize()
    asked = (await ask(first, "tools/call", ELICITATION, name="one_ask", arguments={}))["result"]
    await first.gateway.peers.stop()
    client.rigs = (second,)
    assert (await client.call("tools/call", name="one_echo", arguments={}))["result"], "this needs no owner"
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "new_echo", "arguments": {}}}
    response = await client.post(body)
    assert response.status == 404 and b"initialize again" in await response.read()
    again = {"inputResponses": {}, "requestState": asked["requestState"]}
    refused = await ask(second, "tools/call", ELICITATION, name="one_ask", arguments={}, **again)
    assert "without requestState" in refused["error"]["message"]


async def test_the_peer_port_is_for_the_gateways_own_processes(pair: tuple[Rig, Rig]) -> None:
    owner = pair[0].gateway.peers.owner.partition("@")[2]
    port = 0 if owner.startswith("/") else int(owner.rpartition(":")[2])
    origin = ("127.0.0.1" if port else owner, port, False)
    for headers in ([], [(b"x-quarterdeck-peer", b"nonsense")]):
        response = await pair[0].pool.request("POST", origin, "/mcp", headers, b"{}", timeout=60)
        assert response.status == 403


def test_a_caller_with_an_api_key_is_the_same_for_the_other_process() -> None:
    key = Principal("alice@apikey", api_key=api_key_value({"team": "a"}, "k"), username="alice")
    again = peers._principal(msgspec.msgpack.decode(msgspec.msgpack.encode(key, enc_hook=peers._bare)))
    assert (again, again.api_key["team"], again.api_key["key"].value) == (key, "a", "k")
    assert str(again.api_key["key"]) == "<redacted>"


def test_a_key_is_rotated_without_dropping_sessions(tmp_path: Path) -> None:
    path, new = tmp_path / "key", b"n" * 32
    path.write_bytes(KEY)
    sealer = SessionSealer(KEY)
    file = KeyFile(path, KEY, sealer)
    old = sealer.seal(Session("s"), b"b")
    path.write_bytes(new + KEY)
    file.look()
    fresh = sealer.seal(Session("s"), b"b")
    assert sealer.open(old, b"b") == sealer.open(fresh, b"b") == Session("s")
    assert SessionSealer(KEY).open(fresh, b"b") is None, "the new key seals"
    path.write_bytes(b"half a key")
    file.look()
    assert sealer.open(fresh, b"b") is not None
    path.write_bytes(new)
    file.look()
    assert sealer.open(old, b"b") is None and sealer.open(fresh, b"b") is not None
