"""Gateway API on an API server: Gateways become Deployments and Services, and every object is told how it fares."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from quarterdeck.controllers import GatewayConfig
from quarterdeck.kube import resource as k
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.resources.crd import gateway_crds
from quarterdeck.resources.gateway_api import CONTROLLER, GROUP
from quarterdeck.snapshot import Snapshot, decode
from quarterdeck.translate.gateway_api.workload import GatewayPods

from .servers import World, quiet

EXAMPLES = Path(__file__).parents[2] / "examples/gateway/k8s"
KINDS: dict[str, Resource] = {
    res.kind: res
    for res in (
        k.NAMESPACE, k.GATEWAY, k.HTTP_ROUTE, k.GRPC_ROUTE, k.BACKEND, k.TRAFFIC_POLICY, k.REMOTE_MCP_SERVER,
        k.SERVICE, k.AGENTGATEWAY_POLICY,
    )
}  # fmt: skip
PODS = GatewayPods(control_plane="http://quarterdeck.quarterdeck-system:8700")
SHARED = GatewayPods(shared="127.0.0.1")


@pytest.fixture
async def world(world: World) -> World:
    """Both servers."""
    return await prepared(world)


@pytest.fixture
async def embedded_world(embedded_world: World) -> World:
    return await prepared(embedded_world)


async def prepared(world: World) -> World:
    """With the definitions of Gateway API."""
    for document in gateway_crds():
        await world.client.apply(k.CRD, document)
    await world.eventually(lambda: _served(world), "Gateway API is served")
    return world


async def _served(world: World) -> bool:
    found = (await world.client.list(k.CRD)).items
    return all(
        (get_condition((crd.get("status") or {}).get("conditions"), "Established") or {}).get("status") == "True"
        for crd in found
    )


async def apply(world: World, name: str) -> None:
    for obj in yaml.safe_load_all((EXAMPLES / name).read_text()):
        await world.client.apply(KINDS[obj["kind"]], obj)


async def programmed(world: World, config: GatewayConfig, gateway: str, process: str = "") -> Object:
    """The Gateway, once a replica that does not exist said that it serves the newest version."""
    namespace, name = gateway.split("/")
    found: list[Object] = []

    async def read() -> bool:
        line = config.current(process or gateway)
        if line is not None:
            config.acknowledge(process or gateway, "", decode(line).version, True, [])
        obj = await world.find(k.GATEWAY, namespace, name) or {}
        found[:] = [obj]
        condition = get_condition((obj.get("status") or {}).get("conditions"), "Programmed") or {}
        return condition.get("status") == "True"

    try:
        await world.eventually(read, "Programmed")
    except AssertionError:
        raise AssertionError(f"not Programmed: {found[0].get('status')}") from None
    return found[0]


def snapshot(config: GatewayConfig, gateway: str) -> Snapshot:
    line = config.current(gateway)
    assert line is not None
    return decode(line)


def conditions(entries: list[Object]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in entries}


async def test_the_key_of_a_gateways_replicas_outlives_the_operator(world: World) -> None:
    async with world.operator(gateways=PODS) as (_, config):
        await apply(world, "chapter5.yaml")
        await programmed(world, config, "mcp/agentgateway")
    made = (await world.client.get(k.SECRET, "agentgateway-session-key", "mcp"))["data"]
    assert len(base64.b64decode(made["gateway.key"])) == 32
    async with world.operator(gateways=PODS) as (controllers, config):
        await world.client.patch(
            k.GATEWAY, "agentgateway", {"metadata": {"annotations": {"quarterdeck.dev/replicas": "2"}}}, "mcp"
        )

        async def scaled() -> bool:
            return (await world.client.get(k.DEPLOYMENT, "agentgateway", "mcp"))["spec"]["replicas"] == 2

        await world.eventually(scaled, "two replicas")
        await quiet(controllers)
    assert (await world.client.get(k.SECRET, "agentgateway-session-key", "mcp"))["data"] == made


async def test_the_seeds_chapter_5(world: World) -> None:
    """A Gateway of its own, the tools of the policy, and nothing more is written once all is said."""
    async with world.operator(gateways=PODS) as (controllers, config):
        await apply(world, "chapter5.yaml")
        gateway = await programmed(world, config, "mcp/agentgateway")
        deployment = await world.client.get(k.DEPLOYMENT, "agentgateway", "mcp")
        args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        assert "--gateway=mcp/agentgateway" in args and f"--control-plane={PODS.control_plane}" in args
        service = await world.client.get(k.SERVICE, "agentgateway", "mcp")
        assert [(p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [(3000, 3000)]
        assert gateway["status"]["addresses"] == [{"type": "IPAddress", "value": service["spec"]["clusterIP"]}]
        (listener,) = gateway["status"]["listeners"]
        assert listener["attachedRoutes"] == 1
        assert conditions(listener["conditions"]) == {
            "Accepted": ("True", "Accepted"),
            "Conflicted": ("False", "NoConflicts"),
            "Programmed": ("True", "Programmed"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        }

        async def resolved() -> dict[str, Any] | None:
            """What is said of the route, once its backend was seen, too."""
            route = await world.client.get(k.HTTP_ROUTE, "github-mcp-route", "mcp")
            (parent,) = route["status"]["parents"]
            assert parent["controllerName"] == CONTROLLER
            return parent if conditions(parent["conditions"])["ResolvedRefs"][0] == "True" else None

        parent = await world.eventually(resolved, "the route's backend is found")
        assert conditions(parent["conditions"]) == {
            "Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs"),
        }  # fmt: skip

        async def told() -> Object | None:
            found = await world.client.get(k.TRAFFIC_POLICY, "github-rbac-policy", "mcp")
            return found if "status" in found else None

        policy = await world.eventually(told, "the policy has a status")
        assert conditions(policy["status"]["ancestors"][0]["conditions"])["Accepted"] == ("True", "Accepted")
        served = snapshot(config, "mcp/agentgateway")
        assert [server.name for server in served.mcp] == ["Backend.github-mcp-backend.mcp-target"]
        (rules,) = served.listeners[0].routes[0].backends[0].policies.mcp_authorization
        assert '"create_pull_request"]' in rules.rules[0].expression
        await quiet(controllers)
        writes = controllers.client.writes
        await asyncio.sleep(0.2)
        assert controllers.client.writes == writes


async def test_the_seeds_chapter_4_crosses_namespaces(embedded_world: World) -> None:
    world = embedded_world
    async with world.operator(gateways=PODS) as (_, config):
        await apply(world, "chapter4.yaml")
        gateway = await programmed(world, config, "kgateway-system/agentgateway")
        message = (get_condition(gateway["status"]["conditions"], "Programmed") or {})["message"]
        assert "port 80 is 8080 there" in message
        service = await world.client.get(k.SERVICE, "agentgateway", "kgateway-system")
        assert [(p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [(80, 8080)]
        assert gateway["status"]["listeners"][0]["attachedRoutes"] == 1


async def test_one_gateway_for_all_on_a_laptop(embedded_world: World) -> None:
    """The default gateway serves the Gateway; its Service leads there, so its name works."""
    world = embedded_world
    async with world.operator(gateways=SHARED) as (_, config):
        await apply(world, "chapter5.yaml")
        gateway = await programmed(world, config, "mcp/agentgateway", "quarterdeck-system/quarterdeck")
        assert gateway["status"]["addresses"] == [{"type": "IPAddress", "value": "127.0.0.1"}]
        assert await world.find(k.DEPLOYMENT, "mcp", "agentgateway") is None

        async def reached() -> bool:
            served = snapshot(config, "quarterdeck-system/quarterdeck")
            remote = next((s for s in served.mcp if s.name == "agw-mcp-servers"), None)
            return remote is not None and [(e.host, e.port) for e in remote.endpoints] == [("127.0.0.1", 3000)]

        await world.eventually(reached, "the RemoteMCPServer leads to the Gateway")
        served = snapshot(config, "quarterdeck-system/quarterdeck")
        assert [(li.name, li.port) for li in served.listeners] == [("mcp/agentgateway/http", 3000)]
        assert {"Target/mcp/Backend.github-mcp-backend.mcp-target"} <= {
            f"{s.kind}/{s.namespace}/{s.name}" for s in served.mcp
        }


async def test_classes_are_ours_unless_somebody_has_the_name(embedded_world: World) -> None:
    world = embedded_world
    await world.create(
        k.GATEWAY_CLASS,
        {"metadata": {"name": "agentgateway"}, "spec": {"controllerName": "agentgateway.dev/agentgateway"}},
    )
    async with world.operator(gateways=PODS) as (controllers, config):
        accepted = await world.condition(k.GATEWAY_CLASS, "", "quarterdeck", "Accepted", "True")
        assert accepted["reason"] == "Accepted"
        found = await world.client.get(k.GATEWAY_CLASS, "quarterdeck")
        names = [entry["name"] for entry in found["status"]["supportedFeatures"]]
        assert names == sorted(names) and "HTTPRoute" in names
        theirs = await world.client.get(k.GATEWAY_CLASS, "agentgateway")
        assert theirs["spec"]["controllerName"] == "agentgateway.dev/agentgateway"
        await apply(world, "chapter5.yaml")
        await quiet(controllers)
        gateway = await world.client.get(k.GATEWAY, "agentgateway", "mcp")
        assert "listeners" not in (gateway.get("status") or {})
        assert config.current("mcp/agentgateway") is None
        await world.client.delete(k.GATEWAY_CLASS, "quarterdeck")

        async def back() -> Any:
            obj = await world.find(k.GATEWAY_CLASS, "", "quarterdeck")
            return obj is not None and obj["metadata"]["uid"] != found["metadata"]["uid"]

        await world.eventually(back, "the class is made again")


async def test_entries_of_other_controllers_stay(embedded_world: World) -> None:
    """parents is one list for all controllers; ours is changed, theirs is not."""
    world = embedded_world
    async with world.operator(gateways=PODS) as (_, config):
        await apply(world, "chapter5.yaml")
        await programmed(world, config, "mcp/agentgateway")
        route = await world.client.get(k.HTTP_ROUTE, "github-mcp-route", "mcp")
        other = {
            "parentRef": {"group": GROUP, "kind": "Gateway", "name": "theirs"},
            "controllerName": "example.org/other",
            "conditions": [
                {
                    "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
        }  # fmt: skip
        route["status"]["parents"].append(other)
        await world.client.replace(k.HTTP_ROUTE, route, subresource="status")
        body = {"spec": {"parentRefs": [{"name": "agentgateway", "sectionName": "none"}]}}
        await world.client.patch(k.HTTP_ROUTE, "github-mcp-route", body, "mcp", kind="merge")

        async def told() -> Any:
            found = (await world.client.get(k.HTTP_ROUTE, "github-mcp-route", "mcp"))["status"]["parents"]
            ours = [entry for entry in found if entry["controllerName"] == CONTROLLER]
            reasons = [conditions(entry["conditions"])["Accepted"][1] for entry in ours]
            return found if reasons == ["NoMatchingParent"] else None

        parents = await world.eventually(told, "the route has no matching parent")
        assert [entry for entry in parents if entry["controllerName"] == "example.org/other"] == [other]


async def test_a_listener_that_a_replica_cannot_serve_is_not_programmed(embedded_world: World) -> None:
    world = embedded_world
    async with world.operator(gateways=PODS) as (_, config):
        await apply(world, "chapter5.yaml")
        await programmed(world, config, "mcp/agentgateway")
        version = snapshot(config, "mcp/agentgateway").version
        config.acknowledge(
            "mcp/agentgateway", "", version, True, [], {"mcp/agentgateway/http": "port 3000: address in use"}
        )

        async def told() -> bool:
            status = (await world.client.get(k.GATEWAY, "agentgateway", "mcp"))["status"]
            listener = conditions(status["listeners"][0]["conditions"])["Programmed"]
            return listener == ("False", "Invalid") and conditions(status["conditions"])["Programmed"][0] == "False"

        await world.eventually(told, "Programmed is False")


async def test_nobody_else_reads_a_gateways_configuration(embedded_world: World) -> None:
    """Secrets are inside: only the gateways there are get one, each its own."""
    world = embedded_world
    async with world.operator(gateways=PODS) as (_, config):
        await apply(world, "chapter5.yaml")
        await programmed(world, config, "mcp/agentgateway")
        assert config.current("mcp/default") is None
        own = msgspec.json.decode(config.current("mcp/agentgateway") or b"")
        assert own["gateway"] == "mcp/agentgateway" and "models" not in own and "policies" not in own
        assert "listeners" not in msgspec.json.decode(config.current("quarterdeck-system/quarterdeck") or b"")


async def test_a_gateway_that_is_given_to_another_controller_is_left(embedded_world: World) -> None:
    world = embedded_world
    theirs = {"metadata": {"name": "theirs"}, "spec": {"controllerName": "example.org/other"}}
    await world.create(k.GATEWAY_CLASS, theirs)
    async with world.operator(gateways=PODS) as (_, config):
        await apply(world, "chapter5.yaml")
        await programmed(world, config, "mcp/agentgateway")
        body = {"spec": {"gatewayClassName": "theirs"}}
        await world.client.patch(k.GATEWAY, "agentgateway", body, "mcp", kind="merge")
        await world.gone(k.DEPLOYMENT, "mcp", "agentgateway")
        await world.gone(k.SERVICE, "mcp", "agentgateway")
        assert config.current("mcp/agentgateway") is None
