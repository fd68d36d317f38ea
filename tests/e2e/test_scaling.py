"""Numbers of Pods as kubectl sets them: of an Agent and of a stdio MCP server whose sessions have a home."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.platform import SEED, Platform, eventually

NAMESPACE = ("-n", "kagent")
NAME = "datetime-agent-mcp"
VERSION = "2025-11-25"


class Session:
    """One session of a client of 2025-11-25 with the server, through the gateway."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client, self._url = client, url
        self._headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": VERSION}
        params = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        answer = self.ask("initialize", params)
        assert answer.status_code == 200, answer.text
        self._headers["mcp-session-id"] = answer.headers["mcp-session-id"]
        body = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert client.post(url, json=body, headers=self._headers).status_code == 202

    def ask(self, method: str, params: dict[str, Any]) -> httpx.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return self._client.post(self._url, json=body, headers=self._headers)

    def call(self) -> httpx.Response:
        return self.ask("tools/call", {"name": "get_date", "arguments": {}})


@pytest.fixture(scope="module")
def pair(platform: Platform) -> Iterator[Platform]:
    platform.kubectl("apply", "-f", str(SEED / "datetime-agent.yaml"))
    platform.wait(f"mcpserver/{NAME}")
    yield platform
    platform.kubectl("scale", "mcpserver", NAME, "--replicas=1", *NAMESPACE, ok=False)


def scaled(platform: Platform, replicas: int) -> None:
    platform.kubectl("scale", "mcpserver", NAME, f"--replicas={replicas}", *NAMESPACE)
    platform.qd("rollout", "status", f"mcpserver/{NAME}", "--timeout=90s", *NAMESPACE)

    def ready() -> bool:
        pods = platform.get("pods", selector=f"app.kubernetes.io/instance={NAME}")["items"]
        return len([p for p in pods if not p["metadata"].get("deletionTimestamp")]) == replicas

    eventually(ready, f"{replicas} Pods")
    status = platform.get("mcpserver", NAME)["status"]
    assert status["selector"] == f"app.kubernetes.io/name={NAME},app.kubernetes.io/instance={NAME}"


def test_sessions_of_a_scaled_stdio_server_stay_where_they_began(pair: Platform) -> None:
    url = f"{pair.gateway}/mcp/kagent/{NAME}"
    with httpx.Client(timeout=60, trust_env=False, headers=pair.headers) as client:
        scaled(pair, 3)
        assert eventually(lambda: pair.get("mcpserver", NAME)["status"]["replicas"] == 3, "status.replicas")

        def known() -> bool:
            """The gateway deals new sessions out to all three."""
            slices = pair.get("endpointslices", selector=f"kubernetes.io/service-name={NAME}")["items"]
            return sum(e["conditions"]["ready"] for s in slices for e in s["endpoints"]) == 3

        eventually(known, "three endpoints")
        sessions = [Session(client, url) for _ in range(6)]
        for _ in range(3):  # in turn: a call that went to the next Pod would find no session there
            for session in sessions:
                answer = session.call()
                assert answer.status_code == 200 and '"isError":true' not in answer.text, answer.text
        scaled(pair, 1)
        said = {session.call().status_code for session in sessions}
        assert said <= {200, 404}, "a session whose Pod is gone is unknown: its client begins anew"
        assert 404 in eventually(lambda: {s.call().status_code for s in sessions} - {200}, "sessions that went")
        assert Session(client, url).call().status_code == 200


def counts(platform: Platform, kind: str, name: str) -> tuple[int, int]:
    """Pods wanted, and those there are."""
    obj = platform.get(kind, name)
    return obj["spec"]["replicas"], obj["status"].get("replicas", 0)


def test_an_autoscaler_can_scale_agents_and_servers(pair: Platform) -> None:
    for kind, name in (("agent", "datetime-agent"), ("mcpserver", NAME)):
        target = {"apiVersion": "kagent.dev/v1alpha2" if kind == "agent" else "kagent.dev/v1alpha1", "name": name,
                  "kind": "Agent" if kind == "agent" else "MCPServer"}  # fmt: skip
        hpa = {
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name, "namespace": "kagent"},
            "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3},
        }  # fmt: skip
        pair.apply(hpa)
        try:
            eventually(lambda kind=kind, name=name: counts(pair, kind, name) == (2, 2), f"{kind} scaled by the HPA", 90)
            able = eventually(lambda name=name: pair.condition("hpa", name, "AbleToScale"), "AbleToScale")
            assert able["status"] == "True"
        finally:
            pair.kubectl("delete", "hpa", name, *NAMESPACE)
            pair.kubectl("scale", kind, name, "--replicas=1", *NAMESPACE)


@pytest.mark.slow
def test_an_mcp_server_that_rests_is_woken_by_a_call(pair: Platform) -> None:
    """Scaled to zero while nobody calls; the call is held until a Pod answers it, its session too."""
    name = "resting-mcp"
    deployment = {"image": "datetime-server:latest", "port": 3000, "cmd": "python", "args": ["src/main.py"]}
    spec = {"transportType": "stdio", "deployment": deployment, "scaleToZero": {"after": "2s"}}
    metadata = {"name": name, "namespace": "kagent"}
    pair.apply({"apiVersion": "kagent.dev/v1alpha1", "kind": "MCPServer", "metadata": metadata, "spec": spec})
    url = f"{pair.gateway}/mcp/kagent/{name}"

    def replicas() -> int:
        return int(pair.get("deployment", name)["spec"]["replicas"])

    def asleep() -> bool:
        pods = pair.get("pods", selector=f"app.kubernetes.io/instance={name}")["items"]
        return replicas() == 0 and not pods

    try:
        pair.wait(f"mcpserver/{name}", seconds=90)
        eventually(asleep, "nobody calls: no Pods", 60)
        ready = pair.condition("mcpserver", name, "Ready")
        assert (ready["status"], ready["reason"]) == ("True", "ScaledToZero")
        with httpx.Client(timeout=90, trust_env=False, headers=pair.headers) as client:
            session = Session(client, url)  # held until the Pod is there
            answer = session.call()
            assert answer.status_code == 200 and '"isError":true' not in answer.text, answer.text
            eventually(asleep, "it rests again", 60)
            assert session.call().status_code in (200, 404), "woken again; the Pod that knew the session is gone"
            assert Session(client, url).call().status_code == 200
        assert pair.get("mcpserver", name)["spec"]["replicas"] == 1, "the spec is never written"
        text = pair.kubectl("get", "events", *NAMESPACE, "--field-selector", f"involvedObject.name={name}").out
        assert "ScaledToZero" in text and "Woken" in text
    finally:
        pair.kubectl("delete", "mcpserver", name, *NAMESPACE, ok=False)
