from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

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


TEXT = st.text("abc/.-", min_size=1, max_size=6)
NAME = st.text("abc.-", min_size=1, max_size=6)
WORDS = st.lists(TEXT, max_size=3)
LEGACY_TOOL = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("McpServer"),
            "mcpServer": st.fixed_dictionaries({"toolServer": TEXT}, optional={"toolNames": WORDS}),
        }
    ),
    st.fixed_dictionaries(
        {"type": st.just("Agent"), "agent": st.fixed_dictionaries({"ref": st.sampled_from(("a", "n/a"))})}
    ),
)
TOOL = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("McpServer"),
            "mcpServer": st.fixed_dictionaries(
                {"name": NAME},
                optional={
                    "namespace": NAME,
                    "toolNames": WORDS,
                    "apiGroup": st.just("kagent.dev"),
                    "kind": st.sampled_from(("MCPServer", "RemoteMCPServer", "Service", "ToolServer")),
                },
            ),
        },
        optional={"headersFrom": st.just([{"name": "h", "value": "v"}])},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("Agent"),
            "agent": st.fixed_dictionaries(
                {"name": NAME}, optional={"namespace": NAME, "kind": st.sampled_from(("Agent", "SandboxAgent"))}
            ),
        },
        optional={"isolateSessions": st.booleans()},
    ),
)
DEPLOYMENT = st.fixed_dictionaries({}, optional={"replicas": st.integers(0, 3), "labels": st.just({"a": "b"})})
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "systemMessage": TEXT, "modelConfig": TEXT, "stream": st.booleans(), "deployment": DEPLOYMENT,
    "a2aConfig": st.just({"skills": [{"id": "i", "name": "n", "tags": []}]}),
}  # fmt: skip
DECLARATIVE = st.fixed_dictionaries(
    {}, optional=COMMON | {"runtime": st.just("go"), "tools": st.lists(TOOL, max_size=3), "shareTools": st.booleans()}
)
AROUND: dict[str, st.SearchStrategy[Any]] = {"description": TEXT, "replicas": st.integers(0, 3)}
FLAT_AGENT = st.fixed_dictionaries(
    {}, optional=COMMON | AROUND | {"memory": WORDS, "tools": st.lists(LEGACY_TOOL, max_size=3)}
)
NEW_AGENT = st.fixed_dictionaries(
    {"type": st.just("Declarative"), "declarative": DECLARATIVE}, optional=AROUND
) | st.fixed_dictionaries({"type": st.just("BYO"), "byo": st.just({"deployment": {"image": "i"}})}, optional=AROUND)
MODEL: dict[str, st.SearchStrategy[Any]] = {"apiKeySecretKey": TEXT, "defaultHeaders": st.just({"a": "b"})}
FLAT_MODEL = st.fixed_dictionaries(
    {"model": TEXT},
    optional=MODEL | {"apiKeySecretRef": st.sampled_from(("s", "n/s")), "modelInfo": st.just({"vision": True})},
)
NEW_MODEL = st.fixed_dictionaries({"model": TEXT}, optional=MODEL | {"apiKeySecret": TEXT})
METADATA = st.fixed_dictionaries(
    {"name": st.just("a"), "namespace": st.just("n")},
    optional={"annotations": st.just({"mine": "1"}), "labels": st.just({"x": "y"})},
)


def typed(kind: str, version: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": f"kagent.dev/{version}", "kind": kind, "metadata": metadata, "spec": spec}


@given(st.sampled_from(("Agent", "ModelConfig")), METADATA, st.data())
def test_v1alpha1_objects_come_back_as_they_were_written(
    kind: str, metadata: dict[str, Any], data: st.DataObject
) -> None:
    spec = data.draw(FLAT_AGENT if kind == "Agent" else FLAT_MODEL)
    old = typed(kind, "v1alpha1", metadata, spec)
    new = convert(old, "kagent.dev/v1alpha2")
    back = convert(new, "kagent.dev/v1alpha1")
    assert convert(back, "kagent.dev/v1alpha2") == new
    if kind == "Agent":
        assert back["spec"].pop("type") == "Declarative"  # the default of the field
        if not any(key in spec for key in COMMON | {"tools": TOOL}):
            assert back["spec"].pop("declarative") == {}
    assert back == old


@given(st.sampled_from(("Agent", "ModelConfig")), METADATA, st.data())
def test_v1alpha2_objects_lose_nothing_on_the_way_through_v1alpha1(
    kind: str, metadata: dict[str, Any], data: st.DataObject
) -> None:
    new = typed(kind, "v1alpha2", metadata, data.draw(NEW_AGENT if kind == "Agent" else NEW_MODEL))
    assert convert(convert(new, "kagent.dev/v1alpha1"), "kagent.dev/v1alpha2") == new


@given(METADATA, FLAT_AGENT, NEW_AGENT)
def test_a_mixture_of_both_shapes_settles(metadata: dict[str, Any], flat: dict[str, Any], new: dict[str, Any]) -> None:
    first = convert(typed("Agent", "v1alpha1", metadata, new | flat), "kagent.dev/v1alpha2")
    assert convert(convert(first, "kagent.dev/v1alpha1"), "kagent.dev/v1alpha2") == first
