"""The controllers against an API over real HTTP: what they create, say, keep quiet about, and put back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from kube.fake_api import FakeApi
from quarterdeck import snapshot
from quarterdeck.controllers import ControllerOptions, GatewayConfig, build
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.wire.http import Exchange, Server

SEED = Path(__file__).parents[2] / "examples/seed"
TOOLS = [
    {"name": name, "description": f"The {name}.", "inputSchema": {"type": "object"}}
    for name in ("get_date", "get_time")
]


class ApplyingApi(FakeApi):
    """The fake with server-side apply of absent objects and the token keys' documents."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path in ("/.well-known/openid-configuration", "/openid/v1/jwks"):
            return web.json_response({"issuer": "https://test", "keys": []})
        applied = request.method == "PATCH" and "apply-patch" in request.content_type
        found = re.fullmatch(r"/apis?(?:/([^/]+))?/v\w+/namespaces/([^/]+)/(\w+)/([^/]+)", request.path)
        if applied and found:
            group = found[1] or ""
            key = (group, found[3], found[2], found[4])
            if key not in self.objects:
                self.requests.append(("PATCH", request.path))
                body = json.loads(await request.read())
                return await self.create(self.kinds[key[:2]], key[2], key[3], "", body)
        return await super().handle(request)


class Platform:
    def __init__(self, api: FakeApi, client: KubeClient, controllers: ControllerSet, config: GatewayConfig) -> None:
        self.api, self.client, self.controllers, self.config = api, client, controllers, config

    async def eventually(self, check: Callable[[], Any]) -> Any:
        async with asyncio.timeout(30):
            while not (found := check()):
                async with self.api.changed:
                    try:
                        await asyncio.wait_for(self.api.changed.wait(), 0.05)
                    except TimeoutError:
                        continue
        return found

    def get(self, res: Resource, name: str, namespace: str = "kagent") -> Object:
        return self.api.objects[(res.group, res.plural, namespace, name)]

    def condition(self, res: Resource, name: str, kind: str) -> Object:
        obj = self.api.objects.get((res.group, res.plural, "kagent", name)) or {}
        return get_condition((obj.get("status") or {}).get("conditions"), kind) or {}

    async def seed(self, name: str) -> None:
        for obj in yaml.safe_load_all((SEED / name).read_text()):
            res = {"Agent": k.AGENT, "MCPServer": k.MCP_SERVER, "RemoteMCPServer": k.REMOTE_MCP_SERVER}[obj["kind"]]
            await self.client.create(res, obj)

    async def model(self) -> None:
        body = {
            "metadata": {"name": "default-model-config", "namespace": "kagent"},
            "spec": {"provider": "Scripted", "model": "scripted"},
        }
        await self.client.create(k.MODEL_CONFIG, body)

    async def available(self, name: str) -> None:
        status = {"status": {"replicas": 1, "availableReplicas": 1, "observedGeneration": 99}}
        await self.client.patch(k.DEPLOYMENT, name, status, "kagent", subresource="status")

    async def endpoints(self, name: str, port: int) -> None:
        labels = {"kubernetes.io/service-name": name}
        body = {
            "metadata": {"name": f"{name}-x", "namespace": "kagent", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": port}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }
        await self.client.create(k.ENDPOINT_SLICE, body)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    api = ApplyingApi()
    client = KubeClient(await api.start())
    controllers, config = build(client, ControllerOptions(gateway_url="http://127.0.0.1:8702", discovery_interval=3600))
    await controllers.start()
    try:
        yield Platform(api, client, controllers, config)
    finally:
        await controllers.stop()
        await client.close()
        await api.stop()


async def mcp_peer() -> tuple[Server, int]:
    """An MCP server with two pages of tools."""

    async def handle(exchange: Exchange) -> None:
        if exchange.method == "DELETE":
            exchange.respond(204, b"", [])
            return
        message = json.loads(exchange.body)
        if "id" not in message:
            exchange.respond(202, b"", [])
            return
        result: dict[str, Any] = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "serverInfo": {"name": "x", "version": "1"},
        }
        if message["method"] == "tools/list":
            second = (message.get("params") or {}).get("cursor") == "2"
            result = {"tools": TOOLS[1:]} if second else {"tools": TOOLS[:1], "nextCursor": "2"}
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        exchange.respond(200, body, [(b"content-type", b"application/json"), (b"mcp-session-id", b"s1")])

    server = Server(handle, name="mcp")
    return server, (await server.listen("127.0.0.1", 0))[1]


async def test_the_datetime_pair_from_yaml_to_ready(platform: Platform) -> None:
    peer, port = await mcp_peer()
    try:
        await platform.model()
        await platform.seed("datetime-agent.yaml")
        await platform.eventually(
            lambda: platform.condition(k.AGENT, "datetime-agent", "Accepted").get("status") == "True"
        )
        for res in (k.SECRET, k.SERVICE_ACCOUNT, k.DEPLOYMENT, k.SERVICE):
            assert platform.get(res, "datetime-agent")["metadata"]["ownerReferences"][0]["kind"] == "Agent"
        assert platform.condition(k.AGENT, "datetime-agent", "Ready")["status"] == "False"

        await platform.endpoints("datetime-agent-mcp", port)
        await platform.available("datetime-agent-mcp")
        await platform.available("datetime-agent")
        await platform.eventually(
            lambda: platform.condition(k.AGENT, "datetime-agent", "Ready").get("status") == "True"
        )
        ready = platform.condition(k.MCP_SERVER, "datetime-agent-mcp", "Ready")
        assert (ready["status"], ready["reason"]) == ("True", "Available")
        refs = await platform.eventually(
            lambda: (
                (c := platform.condition(k.AGENT, "datetime-agent", "ResolvedRefs"))
                and "offers no get_datetime" in c["message"]
                and c
            )
        )
        assert (refs["status"], refs["reason"]) == ("False", "ToolsNotFound"), "the peer has no get_datetime"
        tools = platform.get(k.MCP_SERVER, "datetime-agent-mcp")["status"]["discoveredTools"]
        assert [tool["name"] for tool in tools] == ["get_date", "get_time"], "both pages are read"

        current = await platform.eventually(
            lambda: platform.config.snapshot and platform.config.snapshot.policies and platform.config.snapshot
        )
        grant = current.policies[0].tools[0]
        assert grant.tools == ("get_date", "get_time", "get_datetime")
        assert current.policies[0].models == ("kagent/default-model-config",)
        assert snapshot.decode(platform.config.line).policies == current.policies
    finally:
        await peer.stop(0)


async def settled(platform: Platform) -> None:
    """No key waits and no request was made for a while of event-loop turns."""
    quiet, last = 0, -1
    while quiet < 20:
        await asyncio.sleep(0.01)
        writes = platform.client.writes
        quiet = quiet + 1 if platform.controllers.idle and writes == last else 0
        last = writes


async def test_nothing_is_written_when_nothing_changed(platform: Platform) -> None:
    await platform.model()
    await platform.seed("datetime-agent.yaml")
    await platform.eventually(lambda: platform.condition(k.AGENT, "datetime-agent", "Accepted").get("status") == "True")
    await settled(platform)
    before = platform.client.writes
    for controller in ("agent", "mcpserver", "modelconfig"):
        for obj in list(platform.api.objects.values()):
            platform.controllers.enqueue(controller, k.key_of(obj))
    await settled(platform)
    assert platform.client.writes == before


async def test_a_missing_reference_is_named_and_recovered_from(platform: Platform) -> None:
    await platform.seed("datetime-agent.yaml")
    accepted = await platform.eventually(lambda: platform.condition(k.AGENT, "datetime-agent", "Accepted"))
    assert accepted["reason"] == "ReconcileFailed"
    assert "default-model-config not found" in accepted["message"]
    assert accepted["observedGeneration"] == 1
    await platform.model()
    await platform.eventually(lambda: platform.condition(k.AGENT, "datetime-agent", "Accepted").get("status") == "True")


async def test_an_undone_template_is_put_back_and_a_restart_survives(platform: Platform) -> None:
    await platform.model()
    await platform.seed("datetime-agent.yaml")
    await platform.eventually(lambda: platform.condition(k.AGENT, "datetime-agent", "Accepted").get("status") == "True")
    wanted = platform.get(k.DEPLOYMENT, "datetime-agent")["spec"]["template"]["metadata"]["annotations"][
        "kagent.dev/config-hash"
    ]
    stamps = {"kagent.dev/config-hash": "old", "kubectl.kubernetes.io/restartedAt": "now"}
    patch = {"spec": {"template": {"metadata": {"annotations": stamps}}}}
    await platform.client.patch(k.DEPLOYMENT, "datetime-agent", patch, "kagent")

    def annotations() -> dict[str, str]:
        return platform.get(k.DEPLOYMENT, "datetime-agent")["spec"]["template"]["metadata"]["annotations"]

    await platform.eventually(lambda: annotations()["kagent.dev/config-hash"] == wanted)
    assert annotations()["kubectl.kubernetes.io/restartedAt"] == "now"


async def test_an_autoscaler_keeps_its_replicas(platform: Platform) -> None:
    await platform.model()
    target = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "datetime-agent"}}
    await platform.client.create(k.HPA, {"metadata": {"name": "h", "namespace": "kagent"}, "spec": target})
    await platform.seed("datetime-agent.yaml")
    await platform.eventually(lambda: platform.condition(k.AGENT, "datetime-agent", "Accepted").get("status") == "True")
    await platform.client.patch(k.DEPLOYMENT, "datetime-agent", {"spec": {"replicas": 5}}, "kagent")
    await settled(platform)
    assert platform.get(k.DEPLOYMENT, "datetime-agent")["spec"]["replicas"] == 5


async def test_an_image_that_cannot_run_is_told(platform: Platform) -> None:
    await platform.seed("datetime-agent.yaml")
    await platform.eventually(
        lambda: platform.condition(k.MCP_SERVER, "datetime-agent-mcp", "Programmed").get("status") == "True"
    )
    waiting = {"reason": "ImageNotRunnable", "message": "build it with qd mcp build"}
    pod = {
        "metadata": {"name": "p", "namespace": "kagent", "labels": {
            "app.kubernetes.io/name": "datetime-agent-mcp", "app.kubernetes.io/instance": "datetime-agent-mcp",
            "app.kubernetes.io/managed-by": "kmcp"}},
        "spec": {"containers": []},
        "status": {"containerStatuses": [{"name": "mcp-server", "state": {"waiting": waiting}}]},
    }  # fmt: skip
    await platform.client.create(k.POD, pod)
    found = await platform.eventually(
        lambda: (
            (c := platform.condition(k.MCP_SERVER, "datetime-agent-mcp", "Ready")).get("reason") == "ImageNotRunnable"
            and c
        )
    )
    assert "build it with qd mcp build" in found["message"]


async def test_an_unreachable_remote_server_says_so(platform: Platform) -> None:
    await platform.seed("agw-mcp-servers.yaml")
    found = await platform.eventually(lambda: platform.condition(k.REMOTE_MCP_SERVER, "agw-mcp-servers", "Accepted"))
    assert (found["status"], found["reason"]) == ("False", "ReconcileFailed")
    assert "no ready endpoints" in found["message"]
