"""Controllers through a network and a server that fail: the end state is right, and then nothing is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.controllers import ControllerOptions, build
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import SystemClock
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.resource import Object
from quarterdeck.resources.crd import crds
from support.fault_proxy import FAULTS, SILENT, FaultProxy

from . import fleet
from .servers import World, quiet

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def team(world: World) -> str:
    name = await world.namespace()
    await world.model(name)
    return name


@pytest.fixture
async def proxy(world: World) -> AsyncIterator[FaultProxy]:
    yield FaultProxy(world.config, seed=7)


async def test_a_third_of_all_writes_fails(world: World, team: str, proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.failing = 0.3
    async with proxy.serve(tmp_path) as config, fleet.operator(config) as (controllers, _):
        await fleet.create(world, team, 8)
        await fleet.accepted(world, team)
        assert set(FAULTS) <= set(proxy.done), f"every kind of fault was met: {proxy.done}"
        await quiet(controllers)
        before = controllers.client.writes
        for res, name in ((k.AGENT, "agent"), (k.MCP_SERVER, "mcpserver")):
            for obj in controllers.informer(res).list():
                controllers.enqueue(name, k.key_of(obj))
        await quiet(controllers)
        assert controllers.client.writes == before
    await fleet.right(world, team)


async def test_a_conflict_is_no_other_owner(world: World, team: str, proxy: FaultProxy, tmp_path: Path) -> None:
    """An API server answers 409 to two writes at once, too; who waited for somebody to go away waited for ever."""
    proxy.failing, proxy.faults, proxy.about = 1.0, ("conflict",), "/deployments/"
    async with proxy.serve(tmp_path) as config, fleet.operator(config):
        await fleet.create(world, team, 1)
        await world.eventually(lambda: _met(proxy, "conflict", 3), "it is tried again")
        proxy.failing = 0.0
        await fleet.accepted(world, team)


async def _met(proxy: FaultProxy, fault: str, times: int) -> bool:
    return proxy.done[fault] >= times


async def test_writes_that_nobody_answers(world: World, team: str, proxy: FaultProxy, tmp_path: Path) -> None:
    """The connection stays open and nothing comes: the request may have been carried out, or not."""
    proxy.failing, proxy.faults = 0.3, SILENT
    async with proxy.serve(tmp_path) as config:
        config.timeout = 0.5
        async with fleet.operator(config) as (controllers, _):
            await fleet.create(world, team, 4)
            await fleet.accepted(world, team)
            await world.client.patch(k.AGENT, "agent-0", {"spec": {"declarative": {"systemMessage": "Two."}}}, team)
            await world.client.delete(k.DEPLOYMENT, "tools-1", team)
            await world.client.delete(k.MCP_SERVER, "tools-2", team)
            await world.create(k.MCP_SERVER, fleet.mcp_server(team, "tools-2", port=3002))
            await fleet.accepted(world, team)
            assert set(proxy.done) == set(SILENT), proxy.done
            proxy.failing = 0.0
            await quiet(controllers)
    revisions = (await world.client.list(k.CONTROLLER_REVISION, team)).items
    of = [item["metadata"]["ownerReferences"][0]["name"] for item in revisions]
    assert {name: of.count(name) for name in set(of) if name.startswith("agent")} == {
        "agent-0": 2, "agent-1": 1, "agent-2": 1, "agent-3": 1,
    }, "what was carried out without an answer is not done again"  # fmt: skip
    service = await world.find(k.SERVICE, team, "tools-2") or {}
    assert service["spec"]["ports"][0]["port"] == 3002
    await fleet.right(world, team)


async def test_watches_are_cut_and_forgotten_while_objects_change(
    world: World, team: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    async with proxy.serve(tmp_path) as config, fleet.operator(config) as (controllers, _):
        await fleet.create(world, team, 2)
        for turn in range(4):
            await world.eventually(lambda: _true(proxy.watches > 0), "watches are open")
            if turn % 2:
                proxy.expired = 30
            assert await proxy.cut() > 0
            await world.client.patch(
                k.AGENT, "agent-0", {"spec": {"declarative": {"systemMessage": f"Turn {turn}."}}}, team
            )
            await world.client.delete(k.MCP_SERVER, f"tools-{turn % 2}", team)
            await world.create(k.MCP_SERVER, fleet.mcp_server(team, f"tools-{turn % 2}", port=3000 + turn))
        await fleet.accepted(world, team)
        assert proxy.done["expired"] > 0
        await quiet(controllers)
    await fleet.right(world, team)
    port = await world.find(k.SERVICE, team, "tools-1") or {}
    assert port["spec"]["ports"][0]["port"] == 3003


async def _true(value: bool) -> bool:
    return value


async def test_a_cache_that_is_behind_neither_doubles_nor_reverts(
    world: World, team: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    async with proxy.serve(tmp_path) as config, fleet.operator(config) as (controllers, _):
        await fleet.create(world, team, 1)
        await fleet.accepted(world, team)
        await quiet(controllers)
        written: list[str] = []
        controllers.client.on_write = lambda method, path: written.append(f"{method} {path.partition(team)[2]}")
        proxy.flow.clear()  # nothing is told any more, everything can be written
        await world.client.patch(k.AGENT, "agent-0", {"spec": {"declarative": {"systemMessage": "Newer."}}}, team)
        for _ in range(3):
            controllers.enqueue("agent", k.Key(team, "agent-0"))
            await quiet(controllers, turns=5)
        assert written == [], "acting on what it knows changes nothing"
        proxy.flow.set()
        await fleet.accepted(world, team)
        await quiet(controllers)
        assert written.count("POST /controllerrevisions") == 1, written
        sets = await world.client.list(k.REPLICA_SET, team)
        owners = [owner["name"] for item in sets.items for owner in item["metadata"]["ownerReferences"]]
        assert owners.count("agent-0") == 2, "one change, one rollout"
    await fleet.right(world, team)


async def test_a_token_expires_and_is_rotated(world: World, team: str, tmp_path: Path) -> None:
    """The account behind the token goes, and its successor's token appears in the file, as a kubelet would write it."""
    account = {"metadata": {"name": "operator", "namespace": team}}
    binding = {
        "metadata": {"name": f"operator-{team}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": team}],
    }
    await world.create(k.CLUSTER_ROLE_BINDING, binding)
    file = tmp_path / "token"

    async def issue() -> None:
        await world.create(k.SERVICE_ACCOUNT, account)
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {}}
        path = k.SERVICE_ACCOUNT.path(team, "operator", "token")
        answer = await world.client.request("POST", path, body=body)
        file.write_text(answer["status"]["token"])

    await issue()
    upstream = world.config.__class__(
        world.config.base_url, ca_file=world.config.ca_file, ca_data=world.config.ca_data, timeout=5.0
    )
    proxy = FaultProxy(upstream)
    async with proxy.serve(tmp_path / "proxy") as config:
        config.token_file = str(file)
        async with fleet.operator(config) as (controllers, _):
            await fleet.create(world, team, 1)
            await fleet.accepted(world, team)
            await world.client.delete(k.SERVICE_ACCOUNT, "operator", team)
            await world.gone(k.SERVICE_ACCOUNT, team, "operator")

            async def refused() -> bool:
                await proxy.cut()  # a watch once open is not asked for its token again
                return sum(count for (_, code), count in controllers.client.answers.items() if code == 401) > 3

            await world.eventually(refused, "the old token is refused")
            await issue()
            await fleet.create(world, team, 1, first=1)
            await fleet.accepted(world, team)
            await quiet(controllers)
    await world.client.delete(k.CLUSTER_ROLE_BINDING, f"operator-{team}")
    await fleet.right(world, team)


class Skewed(SystemClock):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def time(self) -> float:
        return time.time() + self.seconds


async def test_clocks_that_disagree_write_nothing_twice(world: World, team: str) -> None:
    """What a clock were to change it would change each time; a real server's own controllers may speak up late."""
    await fleet.create(world, team, 2)

    async def written(skew: float) -> list[str]:
        paths: list[str] = []
        async with KubeClient(world.config, on_write=lambda _, path: paths.append(path)) as client:
            controllers, _ = build(client, ControllerOptions(discovery_interval=3600), clock=Skewed(skew))
            await controllers.start()
            await fleet.accepted(world, team)
            await quiet(controllers, turns=50)
            await controllers.stop()
        return paths

    assert await written(86_400.0)
    for skew in (-86_400.0, 0.0):

        async def silent(skew: float = skew) -> bool:
            return not await written(skew)

        await world.eventually(silent, f"nothing is written by a clock that is {skew:g} s off", 60)


async def test_a_missing_definition_holds_up_only_those_who_need_it(world: World) -> None:
    team = await world.namespace()
    missing = [crd for crd in crds() if crd["spec"]["names"]["kind"] in ("Agent", "RemoteMCPServer")]
    for crd in missing:
        await world.client.delete(k.CRD, crd["metadata"]["name"])
        await world.gone(k.CRD, "", crd["metadata"]["name"])
    async with world.operator() as (controllers, gateway):
        await world.create(k.MCP_SERVER, fleet.mcp_server(team, "tools-0"))
        await world.model(team)
        await world.condition(k.MCP_SERVER, team, "tools-0", "Programmed", "True")
        await world.eventually(lambda: _true(gateway.snapshot is not None), "gateways are served")
        for crd in missing:
            await world.client.create(k.CRD, _bare(crd))
        await world.eventually(lambda: _true(controllers.informer(k.AGENT).synced.is_set()), "Agents are followed")
        await world.create(k.AGENT, fleet.agent(team, "agent-0", server="tools-0"))
        await fleet.accepted(world, team)
        await quiet(controllers)
    await fleet.right(world, team)


def _bare(crd: Object) -> Object:
    return {**crd, "metadata": {"name": crd["metadata"]["name"], "labels": crd["metadata"].get("labels") or {}}}


async def test_secrets_that_nobody_names_are_not_kept_in_memory(world: World, team: str) -> None:
    for name in ("used", "unused"):
        await world.create(k.SECRET, {"metadata": {"name": name, "namespace": team}, "stringData": {"KEY": "x" * 1000}})
    await world.create(k.MCP_SERVER, fleet.mcp_server(team, "tools-0", secret="used"))
    async with world.operator() as (controllers, gateway):
        await fleet.accepted(world, team)
        await quiet(controllers)
        held = {o["metadata"]["name"]: "data" in o for o in controllers.informer(k.SECRET).list(team)}
        assert (held["used"], held["unused"]) == (True, False)
        before = await world.find(k.DEPLOYMENT, team, "tools-0") or {}
        # From now on somebody refers to it: the data is fetched, and its changes roll the workload.
        change = {"spec": {"deployment": {"secretRefs": [{"name": "unused"}]}}}
        await world.client.patch(k.MCP_SERVER, "tools-0", change, team)
        await fleet.accepted(world, team)
        middle = await world.find(k.DEPLOYMENT, team, "tools-0") or {}
        assert middle["metadata"]["generation"] > before["metadata"]["generation"]
        await world.client.patch(k.SECRET, "unused", {"stringData": {"KEY": "new"}}, team)

        async def rolled() -> bool:
            found = await world.find(k.DEPLOYMENT, team, "tools-0") or {}
            return found["metadata"]["generation"] > middle["metadata"]["generation"]

        await world.eventually(rolled, "a changed Secret rolls its user")
        ref = {"spec": {"provider": "OpenAI", "model": "m", "apiKeySecret": "used", "apiKeySecretKey": "KEY"}}
        await world.create(k.MODEL_CONFIG, {"metadata": {"name": "m", "namespace": team}} | ref)
        await world.condition(k.MODEL_CONFIG, team, "m", "Accepted", "True")

        async def compiled() -> bool:
            found = gateway.snapshot.models if gateway.snapshot is not None else ()
            return any(model.name == "m" and not model.error for model in found)

        await world.eventually(compiled, "the gateway has the key")
        status = (await world.find(k.MODEL_CONFIG, team, "m") or {})["status"]
        assert get_condition(status["conditions"], "Ready")["status"] == "True"  # type: ignore[index]
        await asyncio.wait_for(quiet(controllers), 30)
    await fleet.right(world, team)
