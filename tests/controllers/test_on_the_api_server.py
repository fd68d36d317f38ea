"""The same controllers against the embedded API server: real schemas, server-side apply, status subresources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.apiserver.crd.conversion import InProcess
from quarterdeck.controllers import ControllerOptions, bootstrap, build
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.conditions import get_condition
from quarterdeck.resources.conversion import CONVERTED_KINDS, convert
from quarterdeck.resources.crd import crds

SEED = Path(__file__).parents[2] / "examples/seed"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[KubeClient]:
    converters = InProcess()
    for group, kind in CONVERTED_KINDS:
        converters.register(group, kind, convert)
    server = ApiServer(ApiServerConfig(tmp_path, port=0, converters=converters))
    await server.start()
    client = KubeClient(ClientConfig(**server.client_config()))
    try:
        for crd in crds():
            await client.create(k.CRD, crd)
        for namespace in bootstrap.namespaces():
            await client.apply(k.NAMESPACE, namespace)
        await client.create(k.MODEL_CONFIG, bootstrap.default_model_config(bootstrap.scripted_model()))
        yield client
    finally:
        await client.close()
        await server.stop()


async def settled(client: KubeClient, idle: object) -> None:
    quiet, last = 0, -1
    async with asyncio.timeout(30):
        while quiet < 25:
            await asyncio.sleep(0.01)
            quiet = quiet + 1 if idle.idle and client.writes == last else 0  # type: ignore[attr-defined]
            last = client.writes


async def test_the_datetime_pair_is_accepted_and_then_left_alone(client: KubeClient) -> None:
    controllers, config = build(client, ControllerOptions(discovery_interval=3600))
    await controllers.start()
    try:
        for obj in yaml.safe_load_all((SEED / "datetime-agent.yaml").read_text()):
            await client.create(k.AGENT if obj["kind"] == "Agent" else k.MCP_SERVER, obj)
        async with asyncio.timeout(20):
            while True:
                agent = await client.get(k.AGENT, "datetime-agent", "kagent")
                accepted = get_condition((agent.get("status") or {}).get("conditions"), "Accepted") or {}
                if accepted.get("status") == "True":
                    break
                await asyncio.sleep(0.02)
        deployment = await client.get(k.DEPLOYMENT, "datetime-agent", "kagent")
        assert deployment["spec"]["template"]["spec"]["containers"][0]["name"] == "kagent"
        await settled(client, controllers)
        assert config.snapshot is not None
        assert [agent.name for agent in config.snapshot.agents] == ["datetime-agent"]
        before = client.writes
        await client.list(k.AGENT)
        for name in ("agent", "mcpserver", "modelconfig"):
            for res in (k.AGENT, k.MCP_SERVER, k.MODEL_CONFIG):
                for obj in controllers.informer(res).list():
                    controllers.enqueue(name, k.key_of(obj))
        await settled(client, controllers)
        assert client.writes == before
    finally:
        await controllers.stop()

    again, _ = build(client, ControllerOptions(discovery_interval=3600))
    before = client.writes
    await again.start()
    try:
        await settled(client, again)
        assert client.writes == before, "a restarted controller finds everything as it should be"
    finally:
        await again.stop()


async def test_v1alpha1_agents_are_served_in_both_versions(client: KubeClient) -> None:
    spec = {"systemMessage": "Old.", "modelConfig": "default-model-config", "description": "d"}
    old = k.Resource("kagent.dev", "v1alpha1", "Agent", "agents")
    await client.create(
        old,
        {
            "apiVersion": "kagent.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": "o", "namespace": "kagent"},
            "spec": spec,
        },
    )
    new = await client.get(k.AGENT, "o", "kagent")
    assert new["spec"]["declarative"]["systemMessage"] == "Old."


async def test_a_v1alpha1_file_reaches_its_tools_and_reads_back_as_it_was_written(client: KubeClient) -> None:
    old = k.Resource("kagent.dev", "v1alpha1", "Agent", "agents")
    spec = {
        "systemMessage": "Old.",
        "modelConfig": "default-model-config",
        "tools": [{"type": "McpServer", "mcpServer": {"toolServer": "datetime-agent-mcp", "toolNames": ["get_time"]}}],
    }
    written = {"kind": "Agent", "metadata": {"name": "o", "namespace": "kagent"}, "spec": spec}
    for obj in yaml.safe_load_all((SEED / "datetime-agent.yaml").read_text()):
        if obj["kind"] == "MCPServer":
            await client.create(k.MCP_SERVER, obj)
    await client.apply(old, written, "kagent", field_manager="kubectl")
    stored = (await client.get(k.AGENT, "o", "kagent"))["spec"]["declarative"]
    assert stored["tools"][0]["mcpServer"]["name"] == "datetime-agent-mcp"
    assert stored["runtime"] == "go", "defaults of the stored version are there"
    read = (await client.get(old, "o", "kagent"))["spec"]
    assert read["tools"][0]["mcpServer"]["toolServer"] == "datetime-agent-mcp"
    assert read["systemMessage"] == "Old."

    controllers, config = build(client, ControllerOptions(discovery_interval=3600))
    await controllers.start()
    try:
        async with asyncio.timeout(20):
            while True:
                status = (await client.get(k.AGENT, "o", "kagent")).get("status") or {}
                if (get_condition(status.get("conditions"), "Accepted") or {}).get("status") == "True":
                    break
                await asyncio.sleep(0.02)
        await settled(client, controllers)
        assert config.snapshot is not None
        grants = next(p for p in config.snapshot.policies if p.name == "o").tools
        assert [(grant.kind, grant.name) for grant in grants] == [("MCPServer", "datetime-agent-mcp")]

        spec["systemMessage"] = "New."
        await client.apply(old, written, "kagent", field_manager="kubectl")
        assert (await client.get(k.AGENT, "o", "kagent"))["spec"]["declarative"]["systemMessage"] == "New."
    finally:
        await controllers.stop()


async def test_kagents_replicas_seed_the_scale_and_then_yield_to_it(client: KubeClient) -> None:
    controllers, _ = build(client, ControllerOptions(discovery_interval=3600))
    await controllers.start()

    async def scale(res: k.Resource, name: str) -> int:
        return (await client.request("GET", res.path("kagent", name, "scale")))["spec"]["replicas"]

    async def running(name: str) -> int:
        await settled(client, controllers)
        return (await client.get(k.DEPLOYMENT, name, "kagent"))["spec"]["replicas"]

    try:
        for obj in yaml.safe_load_all((SEED / "datetime-agent.yaml").read_text()):
            deployment = obj["spec"]["deployment"] if obj["kind"] == "MCPServer" else {}
            if obj["kind"] == "Agent":
                obj["spec"]["declarative"]["deployment"] = deployment
            deployment["replicas"] = 3
            await client.create(k.AGENT if obj["kind"] == "Agent" else k.MCP_SERVER, obj)
        for res, name in ((k.AGENT, "datetime-agent"), (k.MCP_SERVER, "datetime-agent-mcp")):
            assert (await running(name), await scale(res, name)) == (3, 3)
            await client.patch(res, name, {"spec": {"replicas": 1}}, "kagent", subresource="scale")
            assert (await running(name), await scale(res, name)) == (1, 1)
            before = client.writes
            assert (await running(name), client.writes) == (1, before)
    finally:
        await controllers.stop()
