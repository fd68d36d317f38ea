"""A platform shared by the faults that leave it as it was, with a server and an agent that misbehave on demand."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from quarterdeck.resources.images import own_image
from support.platform import Platform, embedded

from .model_double import ModelDouble

PEER = Path(__file__).parents[1] / "peers" / "stdio_server.py"
Json = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults/" in item.nodeid:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(150))


def server_manifests(name: str, timeout: str = "5s") -> list[Json]:
    """An MCPServer that runs the misbehaving peer out of a ConfigMap."""
    deployment = {
        "image": own_image(), "port": 3000, "cmd": "python", "args": ["/srv/server.py"],
        "volumes": [{"name": "source", "configMap": {"name": f"{name}-source"}}],
        "volumeMounts": [{"name": "source", "mountPath": "/srv"}],
    }  # fmt: skip
    spec = {"transportType": "stdio", "timeout": timeout, "deployment": deployment}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-source", "namespace": "kagent"},
         "data": {"server.py": PEER.read_text()}},
        {"apiVersion": "kagent.dev/v1alpha1", "kind": "MCPServer", "metadata": {"name": name, "namespace": "kagent"},
         "spec": spec},
    ]  # fmt: skip


def model_manifests(name: str, base_url: str) -> list[Json]:
    metadata = {"name": name, "namespace": "kagent"}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"KEY": "sk-double"}},
        {"apiVersion": "kagent.dev/v1alpha2", "kind": "ModelConfig", "metadata": metadata, "spec": {
            "provider": "OpenAI", "model": "double", "apiKeySecret": name, "apiKeySecretKey": "KEY",
            "openAI": {"baseUrl": base_url}}},
    ]  # fmt: skip


def agent_manifest(name: str, model: str, server: str, *tools: str, stream: bool = False) -> Json:
    tool = {"type": "McpServer", "mcpServer": {"kind": "MCPServer", "name": server, "toolNames": list(tools)}}
    declarative = {"systemMessage": "Do as asked.", "modelConfig": model, "tools": [tool], "stream": stream}
    return {
        "apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "metadata": {"name": name, "namespace": "kagent"},
        "spec": {"type": "Declarative", "description": "faults", "declarative": declarative},
    }  # fmt: skip


def post(url: str, document: Any, headers: dict[str, str] = {}, timeout: float = 60) -> Any:
    """One JSON POST. Raises HTTPError, OSError."""
    request = Request(url, json.dumps(document).encode(), {"content-type": "application/json", **headers})
    with urlopen(request, timeout=timeout) as response:
        return json.loads(response.read())


@dataclass(frozen=True, slots=True)
class A2A:
    """An A2A 1.0 client of one agent through the gateway."""

    platform: Platform
    agent: str

    def call(self, method: str, params: Json, timeout: float = 60) -> Json:
        """The whole JSON-RPC answer."""
        url = f"{self.platform.endpoints()['gateway']}/a2a/kagent/{self.agent}"
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return post(url, body, {"a2a-version": "1.0"}, timeout)

    def send(self, text: str, context: str = "", *, wait: bool = True, timeout: float = 60) -> Json:
        """The task that a message becomes."""
        message = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": [{"text": text}]}
        params = {"message": message | ({"contextId": context} if context else {})}
        if not wait:
            params["configuration"] = {"returnImmediately": True}
        answer = self.call("SendMessage", params, timeout)
        assert "result" in answer, answer
        return answer["result"]["task"]

    def task(self, task_id: str) -> Json:
        answer = self.call("GetTask", {"id": task_id})
        assert "result" in answer, answer
        return answer["result"]


def state(task: Json) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_")


def said(task: Json) -> str:
    """The answer, or the message of the last status."""
    parts = [p for a in task.get("artifacts", []) for p in a["parts"]]
    parts += task["status"].get("message", {}).get("parts", [])
    return " ".join(str(part.get("text", "")) for part in parts)


@pytest.fixture(scope="package")
def model() -> Iterator[ModelDouble]:
    double = ModelDouble()
    yield double
    double.close()


@pytest.fixture(scope="package")
def platform() -> Iterator[Platform]:
    with embedded(build=False) as started:
        yield started


@pytest.fixture(scope="package")
def faulty(platform: Platform, model: ModelDouble) -> Platform:
    """The platform with MCPServer ``faulty`` and Agent ``victim``, whose model is the double."""
    platform.apply(*server_manifests("faulty"), *model_manifests("double", model.base_url))
    platform.apply(agent_manifest("victim", "double", "faulty"))
    platform.wait("mcpserver/faulty")
    platform.wait("agent/victim")
    return platform


@pytest.fixture
def victim(faulty: Platform) -> A2A:
    return A2A(faulty, "victim")
