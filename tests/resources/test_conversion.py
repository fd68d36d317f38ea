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
        "name": "ts", "namespace": "tools", "kind": "ToolServer", "apiGroup": "kagent.dev", "toolNames": [],
    }  # fmt: skip
    assert tools[1]["agent"] == {"name": "helper"}
    assert old["spec"]["systemMessage"] == "hello", "the argument is not changed"
    assert convert(new, "kagent.dev/v1alpha1")["spec"] == {"type": "Declarative"} | old["spec"]
    assert convert(convert(new, "kagent.dev/v1alpha1"), "kagent.dev/v1alpha2") == new


def test_defaulted_empty_names_do_not_hide_the_reference() -> None:
    tools = [
        {"type": "McpServer", "mcpServer": {"name": "", "toolServer": "ts"}},
        {"type": "Agent", "agent": {"name": "", "ref": "n/helper"}},
    ]
    old = {"kind": "Agent", "metadata": META, "spec": {"systemMessage": "s", "tools": tools}}
    new = convert(old, "kagent.dev/v1alpha2")["spec"]["declarative"]["tools"]
    assert (new[0]["mcpServer"]["name"], new[1]["agent"]) == ("ts", {"name": "helper", "namespace": "n"})


def test_an_older_version_that_is_read_changed_and_written_changes_the_object() -> None:
    """What ``kubectl apply`` of a changed v1alpha1 file does: patch what the server shows of it."""
    old = {"kind": "Agent", "metadata": META, "spec": {"systemMessage": "a", "memory": ["m"], "stream": True}}
    shown = convert(convert(old, "kagent.dev/v1alpha2"), "kagent.dev/v1alpha1")
    assert shown["spec"]["memory"] == ["m"]
    changed = shown | {"spec": shown["spec"] | {"systemMessage": "b", "declarative": {"stream": False}}}
    declarative = convert(changed, "kagent.dev/v1alpha2")["spec"]["declarative"]
    assert declarative == {"systemMessage": "b", "stream": True}

    old = {"kind": "ModelConfig", "metadata": META, "spec": {"model": "m", "apiKeySecretRef": "n/s"}}
    shown = convert(convert(old, "kagent.dev/v1alpha2"), "kagent.dev/v1alpha1")
    assert shown["spec"] == old["spec"]
    assert shown["metadata"] == META
    changed = shown | {"spec": shown["spec"] | {"apiKeySecretRef": "t"}}
    assert convert(changed, "kagent.dev/v1alpha2")["spec"]["apiKeySecret"] == "t"


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
