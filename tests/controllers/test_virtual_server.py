"""VirtualServers: conditions by name for what clashes or is not there, and agents that go by exposed names."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from gateway.federation.servers import Upstream, running
from quarterdeck.errors import QuarterdeckError
from quarterdeck.kube import resource as k
from quarterdeck.kube.resource import Object

from .servers import World, quiet

ECHO = {
    "name": "echo",
    "description": "Says it again.",
    "inputSchema": {"type": "object", "properties": {"text": {}, "zone": {}}, "required": ["zone"]},
}


def remote(name: str, namespace: str, upstream: Upstream, **labels: str) -> Object:
    spec = {"description": "d", "url": f"http://127.0.0.1:{upstream.port}/mcp", "timeout": "75s"}
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}


def virtual(namespace: str, *servers: Any, **spec: Any) -> Object:
    return {"metadata": {"name": "support", "namespace": namespace}, "spec": {"servers": list(servers), **spec}}


def ref(name: str) -> Object:
    return {"ref": {"kind": "RemoteMCPServer", "name": name}}


async def test_it_is_served_and_every_clash_and_loss_is_told_by_name(world: World) -> None:
    team = await world.namespace()
    one, two = Upstream("one"), Upstream("two")
    one.tools = [ECHO, {"name": "find", "inputSchema": {}}]
    two.tools = [{"name": "find", "inputSchema": {}}, {"name": "say", "inputSchema": {}}]
    say = {"server": "one", "tool": "echo", "name": "say", "defaults": {"zone": "UTC"}, "hidden": ["zone"]}
    async with running(one, two), world.operator() as (controllers, gateway):
        await world.model(team)
        for upstream in (one, two):
            await world.create(k.REMOTE_MCP_SERVER, remote(upstream.name, team, upstream, team="crm"))
        await world.create(k.VIRTUAL_SERVER, virtual(team, ref("one"), tools=[say]))

        async def said(kind: str, status: str, reason: str = "") -> str:
            found = await world.condition(k.VIRTUAL_SERVER, team, "support", kind, status, reason)
            return str(found["message"])

        async def change(**spec: Any) -> None:
            await world.client.patch(k.VIRTUAL_SERVER, "support", {"spec": spec}, team)

        assert await said("Ready", "True") == "2 tools of 1 server"
        for kind in ("Accepted", "ResolvedRefs", "Programmed"):
            await said(kind, "True")
        obj = await world.client.get(k.VIRTUAL_SERVER, "support", team)
        status = obj["status"]
        assert (status["servers"], status["tools"], status["path"]) == (1, 2, f"/mcp/{team}/virtualserver.support")
        assert status["discoveredTools"][1] == {
            "name": "say", "description": "Says it again.", "server": "one", "tool": "echo",
        }  # fmt: skip
        assert status["observedGeneration"] == obj["metadata"]["generation"]

        # an agent names exposed tools; the slowest server decides how long it waits
        names = {"toolNames": ["say", "echo"]}
        tool = {"type": "McpServer", "mcpServer": {"kind": "VirtualServer", "apiGroup": "quarterdeck.dev", **names}}
        tool["mcpServer"]["name"] = "support"
        spec = {"type": "Declarative", "declarative": {"systemMessage": "x", "tools": [tool]}}
        await world.create(k.AGENT, {"metadata": {"name": "a", "namespace": team}, "spec": spec})
        lacking = await world.condition(k.AGENT, team, "a", "ResolvedRefs", "False", "ToolsNotFound")
        assert lacking["message"] == f"VirtualServer {team}/support offers no echo"

        async def granted() -> Any:
            policies = gateway.snapshot.policies if gateway.snapshot is not None else ()
            return next((p.tools for p in policies if (p.namespace, p.name) == (team, "a")), None)

        (grant,) = await world.eventually(granted, "the agent's grant")
        assert (grant.kind, grant.name, grant.tools) == ("VirtualServer", "support", ("say", "echo"))
        secret = await world.client.get(k.SECRET, "a", team)
        (server,) = msgspec.json.decode(base64.b64decode(secret["data"]["config.json"]))["http_tools"]
        assert server["params"]["url"].endswith(f"/mcp/{team}/virtualserver.support")
        assert (server["params"]["timeout"], server["tools"]) == (75.0, ["say", "echo"])
        assert gateway.snapshot is not None
        (served,) = [v for v in gateway.snapshot.virtual if v.namespace == team]
        assert served.servers[0].server == f"RemoteMCPServer/{team}/one" and not served.prefixed

        # names that clash: by entry, and by the servers' own
        await change(servers=[ref("one"), {"selector": {"matchLabels": {"team": "crm"}}}], prefixMode="Never")
        text = await said("Conflicted", "True", "NameConflict")
        assert "find is the name of find of one and find of two: none of them is exposed under it" in text
        assert "say is the name of echo of one and say of two: it is echo of one, the other is not exposed" in text
        assert (await said("Ready", "False", "NameConflict")) == text
        await change(prefixMode="Always")
        await said("Conflicted", "False")
        assert await said("Ready", "True") == "4 tools of 2 servers"

        # what is not there
        await change(tools=[say, {"server": "one", "tool": "gone"}, {"server": "three", "tool": "x"}])
        text = await said("ResolvedRefs", "False", "RefNotFound")
        assert "tools[2]: there is no server three; the servers are: one, two" in text
        assert "tools[1]: one offers no tool gone" in text
        await change(tools=[say | {"hidden": ["zone", "colour"]}], servers=[ref("one"), ref("nobody")])
        text = await said("ResolvedRefs", "False", "RefNotFound")
        assert f"RemoteMCPServer {team}/nobody not found" in text and "echo has no parameter colour" in text
        await change(servers=[ref("one")], tools=[say | {"defaults": None}])
        assert "zone of echo is required" in await said("ResolvedRefs", "False", "ToolsNotFound")

        # what no server can make right is not served
        await change(tools=[say, {"server": "one", "tool": "find", "name": "say"}])
        assert "tools[0] and tools[1] are both exposed as say" in await said("Accepted", "False", "Invalid")

        async def away() -> bool:
            return gateway.snapshot is not None and not gateway.snapshot.virtual

        await world.eventually(away, "it is not served")
        await change(tools=[say])
        await said("Ready", "True")
        await quiet(controllers)


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ([{"name": "a"}], "exactly one of ref and selector must be set"),
        ([{"ref": {"name": "a"}, "selector": {}}], "exactly one of ref and selector must be set"),
        ([{"name": "a", "selector": {}}], "servers found by selector are called by their own names"),
        ([{"ref": {"name": "a", "kind": "VirtualServer"}}], "VirtualServer"),
        ([], "servers"),
    ],
)
async def test_what_is_refused_at_once(embedded_world: World, servers: list[Any], words: str) -> None:
    with pytest.raises(QuarterdeckError) as refused:
        await embedded_world.create(k.VIRTUAL_SERVER, virtual("kagent", *servers))
    assert words in str(refused.value)
