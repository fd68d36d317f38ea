"""The control plane goes away under the controllers and comes back: the end state is right, then nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest

from controllers import fleet, servers
from controllers.servers import World, quiet
from quarterdeck.kube import resource as k

from .plane import Plane, available, plane

COMMANDS, WHY = available()
pytestmark = [
    pytest.mark.skipif(COMMANDS is None, reason=f"kube-apiserver: {WHY}"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def cluster() -> Generator[Plane]:
    with plane(nodes=0) as started:
        yield started


@pytest.fixture
async def world(cluster: Plane) -> AsyncGenerator[World]:
    async with servers.real(cluster) as world:
        yield world


def killed(name: str) -> Callable[[Plane], Any]:
    def outage(plane: Plane) -> None:
        component = getattr(plane, name)
        component.kill()
        component.start()
        plane.wait_ready()

    return outage


def both(plane: Plane) -> None:
    plane.api_server.kill()
    plane.etcd.kill()
    plane.etcd.start()
    plane.api_server.start()
    plane.wait_ready()


OUTAGES = [
    pytest.param(killed("api_server"), id="kube-apiserver"),
    pytest.param(killed("etcd"), id="etcd", marks=pytest.mark.slow),
    pytest.param(both, id="both", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("outage", OUTAGES)
async def test_the_control_plane_is_killed_in_the_middle_of_work(
    cluster: Plane, world: World, outage: Callable[[Plane], None]
) -> None:
    team = await world.namespace()
    await world.model(team)
    async with fleet.operator(cluster.client_config()) as (controllers, _):
        await fleet.create(world, team, 5)
        await asyncio.to_thread(outage, cluster)
        await fleet.create(world, team, 3, first=5)
        await world.client.delete(k.AGENT, "agent-0", team)
        await fleet.accepted(world, team, seconds=150)
        await world.gone(k.DEPLOYMENT, team, "agent-0")
        await quiet(controllers)
    await fleet.right(world, team)
    await silent(cluster, world)


async def test_a_paused_api_server_is_waited_for(cluster: Plane, world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    config = cluster.client_config()
    config.timeout = 2.0
    await fleet.create(world, team, 3)
    cluster.api_server.pause()
    async with fleet.operator(config) as (controllers, _):
        try:
            async with asyncio.timeout(60):
                while not all(informer.stats.failures for informer in controllers.informers if not informer.lean):
                    await asyncio.sleep(0.05)
        finally:
            cluster.api_server.resume()
        await fleet.accepted(world, team, seconds=150)
        await quiet(controllers)
    await fleet.right(world, team)


async def silent(cluster: Plane, world: World) -> None:
    """Controllers that watch for three seconds: the audit log shows no write of theirs."""
    config = cluster.client_config()
    config.user_agent = "silent"
    before = len(cluster.audit(user_agent="silent", writes=True))
    async with fleet.operator(config) as (controllers, _):
        await quiet(controllers, turns=300)
    assert cluster.audit(user_agent="silent", writes=True)[before:] == []
