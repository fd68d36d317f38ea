"""Several gateways with one control plane that keeps users' grants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.oauth.plane import PlaneStore
from quarterdeck.gateway.options import Options
from quarterdeck.server.database import Database
from quarterdeck.snapshot.sign_in import SignIn
from support.user_tokens import Plane

from ..conftest import Rig
from .conftest import SERVER, World
from .servers import Browser, code_in


class Two:
    """Two replicas of a gateway, each with people's clients of its own."""

    def __init__(self, one: World, other: World, plane: Plane) -> None:
        self.worlds = (one, other)
        self.plane = plane


@pytest.fixture
async def two(world: World, tmp_path: Path) -> AsyncIterator[Two]:
    zero = ("127.0.0.1", 0)
    config = tmp_path / "other.json"
    config.write_bytes(msgspec.json.encode(s.Snapshot(version="v0")))
    (tmp_path / "data2").mkdir()
    (tmp_path / "data2" / "gateway.key").write_bytes((tmp_path / "data" / "gateway.key").read_bytes())
    gateway = Gateway(
        Options(
            zero, zero, zero, zero, zero, data_dir=tmp_path / "data2", config=config,
            audit_file=tmp_path / "audit2.jsonl",
        )
    )  # fmt: skip
    await gateway.start()
    other = World(Rig(gateway, tmp_path / "audit2.jsonl"), world.issuer, world.server, world.clock)
    gateway.sign_ins.sign_ins.clock = world.clock
    await other.serve()
    served = s.McpServer("file", "notes", "Target", "/mcp", sign_in=SignIn("https://x"))
    async with Plane(await Database.open(str(tmp_path / "server.db")), served, clock=world.clock) as plane:
        for each in (world, other):
            each.rig.gateway.sign_ins.sign_ins.store = PlaneStore(plane.ask, world.clock)
            each.rig.gateway.sign_ins._since = 0.0
            each.rig.gateway.revocations._clock = world.clock
            plane.configuration.told.append(each.rig.gateway)
        yield Two(world, other, plane)
    await gateway.stop(0)


async def test_a_sign_in_at_one_gateway_is_good_at_the_others_and_one_refreshes(two: Two) -> None:
    here, there = (world.person("alice") for world in two.worlds)
    await here.begin()
    await there.begin()
    await here.signed_in()
    assert [await person.text("whoami") for person in (here, there)] == ["alice", "alice"]
    issuer = two.worlds[0].issuer
    before = issuer.count("/token")
    two.worlds[0].clock.now += 3600
    texts = await asyncio.gather(*(person.text("whoami") for person in (here, there, here, there)))
    assert texts == ["alice"] * 4
    assert issuer.count("/token") == before + 1
    assert issuer.refused == 0


async def test_a_flow_that_began_at_one_gateway_may_end_at_another(two: Two) -> None:
    here, there = (world.person("alice") for world in two.worlds)
    await here.begin()
    browser = Browser("alice")
    callback = await browser.grant(await browser.open(await here.url()))
    ports = [world.rig.gateway.endpoints["local"] for world in two.worlds]
    response, page = await browser.get(callback.replace(*ports))
    assert response.status == 200
    await there.begin()
    assert "signed in" in await there.text("sign_in", code=code_in(page))
    assert await here.text("whoami") == "alice"


async def test_a_revocation_at_the_control_plane_ends_what_gateways_remember(two: Two) -> None:
    here, there = (world.person("alice") for world in two.worlds)
    for person in (here, there):
        await person.begin()
    await here.signed_in()
    assert [await person.text("whoami") for person in (here, there)] == ["alice", "alice"]
    status, _ = await two.plane("DELETE", f"/v1/user-tokens?server={SERVER}")
    assert status == 200
    for person in (here, there):
        assert (await person.call("whoami"))["error"]["code"] == -32042
    two.worlds[0].clock.now += 1
    await there.signed_in()
    assert [await person.text("whoami") for person in (here, there)] == ["alice", "alice"]
    assert ("oauth/revoke", here.id, "ok") in two.worlds[0].events()
