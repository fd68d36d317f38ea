from __future__ import annotations

from quarterdeck.resources.conversion import agent_spec, convert, model_spec

META = {"name": "a", "namespace": "n"}


def test_flat_v1alpha1_agents_become_declarative() -> None:
    old = {
        "apiVersion": "kagent.dev/v1alpha1",
        "kind": "Agent",
        "metadata": META,
        "spec": {
            "systemMessage": "hello",
            "modelConfig": "gpt",
            "description": "d",
            "tools": [
                {"type": "McpServer", "mcpServer": {"toolServer": "tools/ts", "toolNames": ["x"]}},
                {"type": "Agent", "agent": {"ref": "helper"}},
            ],
        },
    }
    new = convert(old, "kagent.dev/v1alpha2")
    assert new["spec"]["type"] == "Declarative"
    assert new["spec"]["description"] == "d"
    assert new["spec"]["declarative"]["systemMessage"] == "hello"
    tools = new["spec"]["declarative"]["tools"]
    assert tools[0]["mcpServer"] | {"toolNames": []} == {
        "name": "ts", "namespace": "tools", "kind": "RemoteMCPServer", "apiGroup": "kagent.dev", "toolNames": [],
    }  # fmt: skip
    assert tools[1]["agent"] == {"name": "helper"}
    assert old["spec"]["systemMessage"] == "hello", "the argument is not changed"
    assert convert(convert(new, "kagent.dev/v1alpha1"), "kagent.dev/v1alpha2") == new


def test_mixed_v1alpha1_agents_keep_their_newer_shape() -> None:
    spec = {"type": "Declarative", "declarative": {"systemMessage": "hi", "modelConfig": "m"}}
    old = {"apiVersion": "kagent.dev/v1alpha1", "kind": "Agent", "metadata": META, "spec": spec}
    assert convert(old, "kagent.dev/v1alpha2")["spec"] == spec
    assert agent_spec(old).declarative is not None


def test_model_secret_reference() -> None:
    old = {
        "kind": "ModelConfig",
        "metadata": META,
        "spec": {"model": "m", "apiKeySecretRef": "n/s", "apiKeySecretKey": "k"},
    }
    assert model_spec(old).api_key_secret == "s"
