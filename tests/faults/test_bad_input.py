"""Bad input: the error names the object, the field and what to do; what refers to nothing says so in its condition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.platform import Platform, eventually

from .conftest import agent_manifest, server_manifests

AGENT = """apiVersion: kagent.dev/v1alpha2
kind: Agent
metadata: {name: bad-agent, namespace: kagent}
spec:
  type: Declarative
  declarative:
    systemMessage: hello
"""

REFUSED: list[tuple[str, str, tuple[str, ...]]] = [
    ("invalid YAML", AGENT + "  x: [\n", ("yaml",)),
    ("a tab", AGENT + "\tdescription: x\n", ("yaml",)),
    ("unknown field", AGENT + "    sytemMessage: oops\n", ("bad.yaml", "spec.declarative.sytemMessage")),
    ("wrong type", AGENT + "    stream: sometimes\n", ("bad-agent", "spec.declarative.stream", "boolean")),
    ("not allowed", AGENT.replace("Declarative", "Magic"), ("bad-agent", "spec.type", "Declarative")),
    ("rule broken", AGENT.replace("type: Declarative", "type: BYO"), ("bad-agent", "byo")),
    ("bad name", AGENT.replace("bad-agent", "Bad_Agent"), ("Bad_Agent", "metadata.name", "lowercase")),
    ("no namespace", AGENT.replace("namespace: kagent", "namespace: nowhere"), ("nowhere", "not found")),
    ("unknown kind", AGENT.replace("kind: Agent", "kind: Agnet"), ("Agnet", "kagent.dev/v1alpha2")),
    ("missing kind", AGENT.replace("kind: Agent\n", ""), ("kind",)),
]


@pytest.mark.parametrize("tool", ["kubectl", "qd"])
@pytest.mark.parametrize(("what", "text", "named"), REFUSED, ids=[case[0] for case in REFUSED])
def test_refused_with_object_and_field(
    platform: Platform, tmp_path: Path, tool: str, what: str, text: str, named: tuple[str, ...]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    run = platform.kubectl if tool == "kubectl" else platform.qd
    ran = run("apply", "-f", str(path), ok=False)
    assert ran.code == 1, ran.text
    assert "Traceback" not in ran.text
    for word in named:
        assert word.lower() in ran.text.lower(), f"{word!r} is not in: {ran.text}"


def test_a_file_that_is_not_there_is_named(platform: Platform) -> None:
    ran = platform.qd("apply", "-f", "/nowhere/agent.yaml", ok=False)
    assert ran.code in (1, 2) and "/nowhere/agent.yaml" in ran.text and "Traceback" not in ran.text


def said_by(platform: Platform, kind: str, name: str, condition: str, *words: str) -> dict[str, Any]:
    def told() -> dict[str, Any] | None:
        found = platform.condition(kind, name, condition)
        return found if found.get("status") == "False" and all(w in found["message"] for w in words) else None

    return eventually(told, f"{kind}/{name} says {words}: {platform.condition(kind, name, condition)}")


def test_an_agent_without_its_server_says_which_and_heals(platform: Platform) -> None:
    platform.apply(agent_manifest("orphan", "default-model-config", "not-there-yet"))
    said_by(platform, "agent", "orphan", "Accepted", "not-there-yet")
    platform.apply(*server_manifests("not-there-yet"))
    platform.wait("agent/orphan", seconds=60)
    platform.kubectl("delete", "agent/orphan", "mcpserver/not-there-yet", "-n", "kagent")


def test_an_agent_without_its_model_says_which(faulty: Platform) -> None:
    platform = faulty
    platform.apply(agent_manifest("mindless", "no-such-model", "faulty"))
    said_by(platform, "agent", "mindless", "Accepted", "no-such-model")
    platform.kubectl("delete", "agent/mindless", "-n", "kagent")


def test_a_model_without_its_secret_says_which_and_heals(platform: Platform) -> None:
    metadata = {"name": "keyless", "namespace": "kagent"}
    spec = {"provider": "OpenAI", "model": "m", "apiKeySecret": "no-such-secret", "apiKeySecretKey": "KEY"}
    platform.apply({"apiVersion": "kagent.dev/v1alpha2", "kind": "ModelConfig", "metadata": metadata, "spec": spec})
    said_by(platform, "modelconfig", "keyless", "Accepted", "no-such-secret")
    secret = ("create", "secret", "generic", "no-such-secret", "-n", "kagent")
    platform.kubectl(*secret, "--from-literal=OTHER=x")
    said_by(platform, "modelconfig", "keyless", "Accepted", "no-such-secret", "KEY")
    platform.kubectl("delete", "secret/no-such-secret", "-n", "kagent")
    platform.kubectl(*secret, "--from-literal=KEY=x")
    eventually(lambda: platform.condition("modelconfig", "keyless", "Accepted")["status"] == "True", "the key is found")
    platform.kubectl("delete", "modelconfig/keyless", "secret/no-such-secret", "-n", "kagent")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "example.org/unknown/image:1.0"}, ("example.org/unknown/image:1.0",)),
        ({"image": "ghcr.io/quarterdeck-dev/quarterdeck:9.9.9"}, ("9.9.9", "0.1.0")),
        ({"secretRefs": [{"name": "no-such-secret"}]}, ("no-such-secret",)),
        ({"cmd": "no-such-command"}, ("kubectl logs -n kagent deploy/unable",)),
    ],
    ids=["unknown image", "another version of our image", "missing secret", "missing command"],
)
def test_a_server_that_cannot_start_says_why(
    platform: Platform, change: dict[str, Any], words: tuple[str, ...]
) -> None:
    manifests = server_manifests("unable")
    manifests[1]["spec"]["deployment"] |= change
    platform.apply(*manifests)
    try:
        said_by(platform, "mcpserver", "unable", "Ready", *words)
    finally:
        platform.kubectl("delete", "mcpserver/unable", "-n", "kagent")


def test_a_remote_server_that_is_not_there_says_so(platform: Platform) -> None:
    metadata = {"name": "away", "namespace": "kagent"}
    spec = {"description": "nobody listens", "url": "http://127.0.0.1:9/mcp"}
    document = {"apiVersion": "kagent.dev/v1alpha2", "kind": "RemoteMCPServer", "metadata": metadata, "spec": spec}
    platform.apply(document)
    said_by(platform, "remotemcpserver", "away", "Accepted", "127.0.0.1:9")
    platform.kubectl("delete", "remotemcpserver/away", "-n", "kagent")
