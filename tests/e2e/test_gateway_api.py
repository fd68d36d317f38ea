"""Gateway API on a laptop: a Gateway, a route to an MCP server and a policy by kubectl, real clients at its port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from socket import socket
from typing import Any

import httpx
import pytest
from mcp import Client, MCPError

from support.platform import EXAMPLES, Platform, eventually

GATEWAY_API, KGATEWAY = "gateway.networking.k8s.io/v1", "gateway.kgateway.dev/v1alpha1"


def free_port() -> int:
    with socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def manifest(api_version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "kagent"}, "spec": spec}


@pytest.fixture(scope="module")
def tools(seed: Platform) -> Iterator[tuple[Platform, str]]:
    """A Gateway whose route leads to the seed's MCP server, and the URL of its listener."""
    port = free_port()
    rule = {
        "matches": [{"path": {"value": "/tools"}}],
        "backendRefs": [{"group": "kagent.dev", "kind": "MCPServer", "name": "datetime-agent-mcp"}],
    }
    moved = {
        "matches": [{"path": {"value": "/old"}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": {"path": {
            "type": "ReplaceFullPath", "replaceFullPath": "/tools"}, "statusCode": 301}}],
    }  # fmt: skip
    seed.apply(
        manifest(GATEWAY_API, "Gateway", "tools", {
            "gatewayClassName": "quarterdeck", "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}]}),
        manifest(GATEWAY_API, "HTTPRoute", "tools", {"parentRefs": [{"name": "tools"}], "rules": [rule, moved]}),
    )  # fmt: skip
    eventually(lambda: seed.condition("gateway", "tools", "Programmed").get("status") == "True", "Programmed")
    yield seed, f"http://127.0.0.1:{port}"
    seed.kubectl("delete", "-n", "kagent", "gateway/tools", "httproute/tools")


async def names(url: str) -> set[str]:
    async with Client(url) as client:
        return {tool.name for tool in (await client.list_tools()).tools}


async def test_an_mcp_server_behind_a_gateway(tools: tuple[Platform, str]) -> None:
    platform, url = tools
    assert await names(f"{url}/tools")
    answer = httpx.get(f"{url}/old", follow_redirects=False, trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (301, f"{url}/tools")
    assert httpx.get(f"{url}/nothing", trust_env=False).status_code == 404
    shown = json.loads(platform.kubectl("get", "-n", "kagent", "gateway/tools", "-o", "json").out)["status"]
    assert shown["addresses"] == [{"type": "IPAddress", "value": "127.0.0.1"}]
    assert shown["listeners"][0]["attachedRoutes"] == 1
    explained = platform.kubectl("explain", "httproute.spec.rules.filters.urlRewrite").out
    assert "GROUP:      gateway.networking.k8s.io" in explained and "hostname" in explained


async def test_a_policy_hides_and_refuses_tools(tools: tuple[Platform, str]) -> None:
    platform, url = tools
    before = await names(f"{url}/tools")
    denied = sorted(before)[0]
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "tools"}
    rule = {"policy": {"matchExpressions": [f'mcp.tool.name != "{denied}"']}}
    platform.apply(manifest(KGATEWAY, "TrafficPolicy", "tools", {"targetRefs": [target], "rbac": rule}))
    try:
        left: set[str] = before
        for _ in range(100):
            left = await names(f"{url}/tools")
            if left != before:
                break
        assert left == before - {denied}
        async with Client(f"{url}/tools") as client:
            with pytest.raises(MCPError, match=f"Unknown tool: {denied}"):
                await client.call_tool(denied, {})
    finally:
        platform.kubectl("delete", "-n", "kagent", "trafficpolicy/tools")


def test_the_seeds_chapters_are_accepted(seed: Platform) -> None:
    for name in ("chapter4.yaml", "chapter5.yaml"):
        seed.kubectl("apply", "-f", str(EXAMPLES / "gateway/k8s" / name))
        namespace = "kgateway-system" if name == "chapter4.yaml" else "mcp"

        def programmed(namespace: str = namespace) -> bool:
            said = seed.kubectl(
                "wait", "-n", namespace, "gateway/agentgateway", "--for=condition=Programmed", "--timeout=90s", ok=False
            )
            return said.code == 0

        eventually(programmed, f"{name} is programmed", 60)
        for kind in ("gateway/agentgateway", "httproute/github-mcp-route"):
            place = namespace if kind.startswith("gateway") else "mcp"
            seed.kubectl("delete", "-n", place, kind)
