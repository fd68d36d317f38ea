"""Services labelled ``kagent.dev/mcp-service``: found, asked for their tools, served, and gone with their label."""

from __future__ import annotations

from typing import Any

from gateway.federation.servers import Upstream, running
from quarterdeck.kube import resource as k
from quarterdeck.snapshot import Endpoint

from .servers import World


def slice_of(service: str, namespace: str, port: int) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{service}-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "mcp", "port": port}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
    }


def agent(namespace: str, *tools: str) -> dict[str, Any]:
    tool = {"type": "McpServer", "mcpServer": {"kind": "Service", "name": "crm", "toolNames": list(tools)}}
    spec = {"type": "Declarative", "declarative": {"systemMessage": "x", "tools": [tool]}}
    return {"metadata": {"name": "a", "namespace": namespace}, "spec": spec}


async def test_a_labelled_service_is_a_server_as_long_as_it_is_labelled(embedded_world: World) -> None:
    world = embedded_world
    team, upstream = await world.namespace(), Upstream("crm")
    upstream.tools = [{"name": "find", "inputSchema": {}}]
    labels = {"kagent.dev/mcp-service": "true", "team": "crm"}
    ports = [{"name": "web", "port": 80}, {"name": "mcp", "port": 8080}]
    async with running(upstream), world.operator() as (_, gateway):
        await world.model(team)
        await world.create(
            k.SERVICE, {"metadata": {"name": "crm", "namespace": team, "labels": labels}, "spec": {"ports": ports}}
        )
        await world.create(k.ENDPOINT_SLICE, slice_of("crm", team, upstream.port))
        await world.warned(team, "crm", "InvalidMCPService")  # which of its ports?
        note = {"kagent.dev/mcp-service-port": "mcp", "kagent.dev/mcp-service-path": "tools"}
        await world.client.patch(k.SERVICE, "crm", {"metadata": {"annotations": note}}, team)

        async def served() -> Any:
            found = gateway.snapshot.mcp if gateway.snapshot is not None else ()
            return next((server for server in found if (server.namespace, server.name) == (team, "crm")), None)

        server = await world.eventually(served, "the Service is served")
        assert (server.kind, server.path) == ("Service", "/tools")
        assert server.endpoints == (Endpoint("127.0.0.1", upstream.port),)

        # its tools are known: an agent's are compared with them, a virtual server finds it by its label
        await world.create(k.AGENT, agent(team, "find", "lose"))
        lacking = await world.condition(k.AGENT, team, "a", "ResolvedRefs", "False", "ToolsNotFound")
        assert lacking["message"] == f"Service {team}/crm offers no lose"
        spec = {"servers": [{"selector": {"matchLabels": {"team": "crm"}}}]}
        await world.create(k.VIRTUAL_SERVER, {"metadata": {"name": "v", "namespace": team}, "spec": spec})
        ready = await world.condition(k.VIRTUAL_SERVER, team, "v", "Ready", "True")
        assert ready["message"] == "1 tools of 1 server"

        # another port, then no server any more
        await world.client.patch(
            k.SERVICE, "crm", {"metadata": {"annotations": {"kagent.dev/mcp-service-protocol": "sse"}}}, team
        )

        async def spoken() -> bool:
            found = await served()
            return found is not None and found.protocol == "SSE"

        await world.eventually(spoken, "the annotation is followed")
        await world.client.patch(k.SERVICE, "crm", {"metadata": {"labels": {"kagent.dev/mcp-service": None}}}, team)

        async def gone() -> bool:
            return await served() is None

        await world.eventually(gone, "it is no server any more")
        await world.condition(k.VIRTUAL_SERVER, team, "v", "Ready", "False", "NoServers")
