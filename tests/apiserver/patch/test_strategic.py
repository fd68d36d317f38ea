from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.patch import strategic_merge
from quarterdeck.apiserver.schema import kind_node
from quarterdeck.errors import BadRequest


def pod(doc: Any, patch: Any) -> Any:
    """Merge under ``spec`` of a Pod."""
    return strategic_merge({"spec": doc}, {"spec": patch}, kind_node("", "v1", "Pod"))["spec"]


C = "containers"


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [
        ({C: [{"name": "a", "image": "1"}, {"name": "b"}]}, {C: [{"name": "a", "image": "2"}]},
         {C: [{"name": "a", "image": "2"}, {"name": "b"}]}),
        ({C: [{"name": "a"}]}, {C: [{"name": "b"}]}, {C: [{"name": "a"}, {"name": "b"}]}),
        ({C: [{"name": "a"}, {"name": "b"}]}, {C: [{"$patch": "delete", "name": "a"}]}, {C: [{"name": "b"}]}),
        ({C: [{"name": "a"}]}, {C: [{"name": "b"}, {"$patch": "replace"}]}, {C: [{"name": "b"}]}),
        ({"nodeSelector": {"x": "y", "z": "1"}}, {"nodeSelector": {"x": None}}, {"nodeSelector": {"z": "1"}}),
        ({"nodeSelector": {"x": "y"}}, {"nodeSelector": {"$patch": "replace", "q": "1"}}, {"nodeSelector": {"q": "1"}}),
        ({"nodeSelector": {"x": "y"}}, {"nodeSelector": {"$patch": "delete"}}, {"nodeSelector": {}}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        ({C: [{"name": "a", "args": ["1"]}]}, {C: [{"name": "a", "args": ["2"]}]}, {C: [{"name": "a", "args": ["2"]}]}),
        ({C: [{"name": "a", "ports": [{"containerPort": 80, "name": "x"}]}]},
         {C: [{"name": "a", "ports": [{"containerPort": 80, "name": "y"}, {"containerPort": 81}]}]},
         {C: [{"name": "a", "ports": [{"containerPort": 80, "name": "y"}, {"containerPort": 81}]}]}),
        ({"volumes": [{"name": "v", "emptyDir": {}}]},
         {"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}]},
         {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}),
        ({C: [{"name": "a"}, {"name": "b"}]},
         {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
          C: [{"name": "c", "tty": True}]},
         {C: [{"name": "c", "tty": True}, {"name": "b"}, {"name": "a"}]}),
        ({C: [{"name": "server"}, {"name": "a"}]},
         {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], C: [{"name": "b"}]},
         {C: [{"name": "server"}, {"name": "a"}, {"name": "b"}]}),
        ({}, {C: [{"name": "a", "image": None, "env": [{"$patch": "delete", "name": "x"}]}]},
         {C: [{"name": "a", "env": []}]}),
    ],
)  # fmt: skip
def test_pod_specs(doc: Any, patch: Any, expected: Any) -> None:
    assert pod(doc, patch) == expected


def test_primitive_lists_merge_delete_and_order() -> None:
    node = kind_node("", "v1", "Pod")

    def finalizers(names: list[str], patch: dict[str, Any]) -> Any:
        return strategic_merge({"metadata": {"finalizers": names}}, {"metadata": patch}, node)["metadata"]["finalizers"]

    assert finalizers(["a", "b"], {"finalizers": ["b", "c"]}) == ["a", "b", "c"]
    assert finalizers(["a", "b"], {"$deleteFromPrimitiveList/finalizers": ["a"]}) == ["b"]
    order = {"$setElementOrder/finalizers": ["c", "a"], "finalizers": ["c"]}
    assert finalizers(["a"], order) == ["c", "a"]


def test_strategy_retains_only_named_keys() -> None:
    node = kind_node("apps", "v1", "Deployment")
    live = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge(live, patch, node) == {"spec": {"strategy": {"type": "Recreate"}}}
    with pytest.raises(BadRequest, match="retainKeys"):
        strategic_merge(live, {"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {"maxSurge": 2}}}}, node)


def test_an_item_without_its_merge_key_is_refused() -> None:
    with pytest.raises(BadRequest, match="does not contain declared merge key: name"):
        pod({C: [{"name": "a"}]}, {C: [{"image": "x"}]})


NAMES = st.lists(st.sampled_from("abcd"), unique=True, max_size=4)


@given(NAMES, st.dictionaries(st.sampled_from("xyz"), st.text("12", max_size=2)))
def test_a_patch_that_says_what_is_there_changes_nothing(names: list[str], selector: dict[str, str]) -> None:
    spec = {C: [{"name": name, "env": [{"name": name, "value": "1"}]} for name in names], "nodeSelector": selector}
    assert pod(spec, spec) == spec
