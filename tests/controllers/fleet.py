"""A handful of Agents, MCPServers and ModelConfigs, and the proof that what the controllers made of them is right."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from quarterdeck.controllers import ControllerOptions, GatewayConfig, build
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.resource import Object

from .servers import World, quiet


def agent(namespace: str, name: str, *, says: str = "Be brief.", server: str = "") -> Object:
    tools = [{"type": "McpServer", "mcpServer": {"kind": "MCPServer", "apiGroup": "kagent.dev", "name": server}}]
    declarative = {"modelConfig": "default-model-config", "systemMessage": says} | ({"tools": tools} if server else {})
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "Declarative", "description": "One of many.", "declarative": declarative},
    }


def mcp_server(namespace: str, name: str, *, port: int = 3000, secret: str = "") -> Object:
    deployment: Object = {"cmd": "uvx", "args": ["mcp-server-time"], "port": port}
    if secret:
        deployment["secretRefs"] = [{"name": secret}]
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"transportType": "stdio", "deployment": deployment},
    }


async def create(world: World, namespace: str, count: int, first: int = 0) -> None:
    """``count`` pairs of an Agent and its MCPServer."""
    for number in range(first, first + count):
        await world.create(k.MCP_SERVER, mcp_server(namespace, f"tools-{number}"))
        await world.create(k.AGENT, agent(namespace, f"agent-{number}", server=f"tools-{number}"))


@asynccontextmanager
async def operator(config: ClientConfig) -> AsyncGenerator[tuple[ControllerSet, GatewayConfig]]:
    """Our controllers, however they reach the API server."""
    async with KubeClient(config) as client:
        controllers, gateway = build(client, ControllerOptions(discovery_interval=3600))
        await controllers.start()
        try:
            yield controllers, gateway
        finally:
            await controllers.stop()


async def accepted(world: World, namespace: str, seconds: float = 60) -> None:
    """Every Agent and MCPServer is reconciled, and the cluster's own controllers have said what they had to say."""
    missing: list[Object] = []

    async def read() -> bool:
        missing.clear()
        for res in (k.AGENT, k.MCP_SERVER):
            missing.extend(o for o in (await world.client.list(res, namespace)).items if not _accepted(o))
        missing.extend(o for o in (await world.client.list(k.DEPLOYMENT, namespace)).items if not _told(o))
        return not missing

    try:
        await world.eventually(read, "every Agent and MCPServer is accepted and its objects are written", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; missing: {missing}") from None


def _accepted(obj: Object) -> bool:
    conditions, generation = (obj.get("status") or {}).get("conditions"), obj["metadata"]["generation"]
    found = (get_condition(conditions, kind) or {} for kind in ("Accepted", "Programmed"))
    return all((one.get("status"), one.get("observedGeneration")) == ("True", generation) for one in found)


def _told(deployment: Object) -> bool:
    """Whether its status speaks of its newest generation, whose Pods exist."""
    spec, status = deployment["spec"], deployment.get("status") or {}
    seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return seen and status.get("updatedReplicas", 0) == spec.get("replicas", 1)


async def right(world: World, namespace: str) -> None:
    """Nothing is missing, and controllers that start from nothing find nothing to write."""
    await accepted(world, namespace)
    made = {d["metadata"]["name"] for d in (await world.client.list(k.DEPLOYMENT, namespace)).items}
    for res in (k.AGENT, k.MCP_SERVER):
        wanted = {obj["metadata"]["name"] for obj in (await world.client.list(res, namespace)).items}
        assert wanted <= made, f"{res.kind}s without a Deployment: {wanted - made}"
    await silent(world)


async def silent(world: World) -> None:
    """Controllers that start from nothing find nothing to write, once what others do (Pods that become ready, a
    garbage collector) has come to rest."""

    async def look() -> bool:
        async with operator(world.config) as (fresh, _):
            written: list[str] = []
            fresh.client.on_write = lambda _, path: written.append(path)
            await quiet(fresh)
            return not written

    await world.eventually(look, "a look from the outside finds nothing to correct", 60)
