from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.apply import apply, track
from quarterdeck.apiserver.schema import SchemaNode, kind_node
from quarterdeck.errors import BadRequest, Conflict

NODE = kind_node("apps", "v1", "Deployment")
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"


def deployment(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": "n"}, "spec": spec}


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"template": {"spec": {"containers": list(items)}}}


def ssa(live: Any, config: Any, manager: str = "me", *, force: bool = False, now: str = NOW, node: Any = NODE) -> Any:
    return apply(live, config, manager=manager, force=force, node=node, api_version="apps/v1", now=now)


def updated(old: Any, new: Any, manager: str = "kubectl-client-side-apply", **more: Any) -> Any:
    new = copy.deepcopy(new)
    track(old, new, manager=manager, node=NODE, api_version="apps/v1", now=NOW, **more)
    return new


def fields_of(obj: Any, manager: str) -> Any:
    found = [e["fieldsV1"] for e in obj["metadata"].get("managedFields", ()) if e["manager"] == manager]
    return found[0] if found else None


def test_create_records_what_was_applied_without_identity() -> None:
    container = {"name": "c", "image": "i", "ports": [{"containerPort": 80}]}
    made = ssa(None, deployment(replicas=2, **containers(container)))
    assert made["metadata"]["managedFields"] == [{
        "manager": "me", "operation": "Apply", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {'k:{"name":"c"}': {
            ".": {}, "f:name": {}, "f:image": {},
            "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}}}}}}}},
    }]  # fmt: skip


def test_one_conflict_has_upstreams_words() -> None:
    live = updated(None, deployment(replicas=1))
    with pytest.raises(Conflict) as caught:
        ssa(live, deployment(replicas=3))
    message = 'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas'
    assert caught.value.message == message
    (cause,) = caught.value.causes
    assert (cause.reason, cause.field) == ("FieldManagerConflict", ".spec.replicas")
    assert cause.message == 'conflict with "kubectl-client-side-apply" using apps/v1'


def test_several_conflicts_are_listed_by_manager() -> None:
    live = ssa(updated(None, deployment(replicas=1)), deployment(paused=True), "other")
    with pytest.raises(Conflict) as caught:
        ssa(live, deployment(replicas=3, paused=False))
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "kubectl-client-side-apply" using apps/v1:\n- .spec.replicas\n'
        'conflicts with "other":\n- .spec.paused'
    )


def test_force_takes_the_field_over() -> None:
    made = ssa(updated(None, deployment(replicas=1)), deployment(replicas=3), force=True)
    assert made["spec"]["replicas"] == 3
    assert fields_of(made, "kubectl-client-side-apply") is None
    assert fields_of(made, "me") == {"f:spec": {"f:replicas": {}}}


def test_the_same_value_is_shared_and_survives_one_owner_leaving() -> None:
    both = ssa(ssa(None, deployment(replicas=2), "a"), deployment(replicas=2), "b")
    assert fields_of(both, "a") == fields_of(both, "b") == {"f:spec": {"f:replicas": {}}}
    left = ssa(both, deployment(), "a")
    assert left["spec"]["replicas"] == 2
    gone = ssa(left, deployment(), "b")
    assert "replicas" not in gone.get("spec", {})


def test_dropping_an_item_removes_it_unless_somebody_owns_part_of_it() -> None:
    two = ssa(None, deployment(**containers({"name": "a", "image": "1"}, {"name": "b", "image": "2"})))
    one = ssa(two, deployment(**containers({"name": "a", "image": "1"})))
    assert [c["name"] for c in one["spec"]["template"]["spec"]["containers"]] == ["a"]
    touched = copy.deepcopy(two)
    touched["spec"]["template"]["spec"]["containers"][1]["tty"] = True
    touched = updated(two, touched, "editor")
    kept = ssa(touched, deployment(**containers({"name": "a", "image": "1"})))
    assert kept["spec"]["template"]["spec"]["containers"][1] == {"name": "b", "tty": True}


def test_a_dropped_struct_goes_with_what_the_server_defaulted_in_it() -> None:
    probe = {"httpGet": {"port": 80}}
    live = ssa(None, deployment(**containers({"name": "a", "livenessProbe": probe})))
    live["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["timeoutSeconds"] = 1
    after = ssa(live, deployment(**containers({"name": "a"})))
    assert after["spec"]["template"]["spec"]["containers"] == [{"name": "a"}]


def test_an_object_nobody_tracks_belongs_to_before_first_apply() -> None:
    made = ssa(deployment(replicas=1, paused=True), deployment(replicas=2), force=True)
    assert fields_of(made, "before-first-apply") == {"f:spec": {"f:paused": {}}}


def test_kubectl_takes_over_its_own_client_side_apply() -> None:
    first = deployment(replicas=1, paused=True)
    annotated = copy.deepcopy(first)
    key = "kubectl.kubernetes.io/last-applied-configuration"
    annotated["metadata"]["annotations"] = {key: json.dumps(first)}
    live = updated(None, annotated)
    made = ssa(live, deployment(replicas=5, paused=True), "kubectl")
    assert made["spec"]["replicas"] == 5
    assert json.loads(made["metadata"]["annotations"][key])["spec"]["replicas"] == 5
    with pytest.raises(Conflict):
        ssa(live, deployment(replicas=5), "somebody")


def test_updates_move_ownership_of_what_changed() -> None:
    live = ssa(None, deployment(replicas=1, paused=True))
    changed = copy.deepcopy(live)
    changed["spec"]["replicas"] = 4
    changed["spec"].pop("paused")
    after = updated(live, changed, "scaler")
    assert fields_of(after, "me") is None
    assert fields_of(after, "scaler") == {"f:spec": {"f:replicas": {}}}


def test_a_no_op_update_changes_nothing() -> None:
    live = updated(None, deployment(replicas=1))
    again = copy.deepcopy(live)
    track(live, again, manager="other", node=NODE, api_version="apps/v1", now=LATER)
    assert again == live


def test_a_reset_forgets_everybody() -> None:
    live = updated(None, deployment(replicas=1))
    wiped = copy.deepcopy(live)
    wiped["metadata"]["managedFields"] = [{}]
    assert "managedFields" not in updated(live, wiped)["metadata"]


def test_status_belongs_to_the_status_subresource() -> None:
    live = updated(None, deployment(replicas=1))
    after = updated(live, {**live, "status": {"replicas": 1}}, "controller", subresource="status")
    entry = next(e for e in after["metadata"]["managedFields"] if e["manager"] == "controller")
    assert entry["subresource"] == "status"
    assert set(entry["fieldsV1"]) == {"f:status"}


def test_bad_configurations_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"metadata\.managedFields must be nil"):
        ssa(None, {**deployment(), "metadata": {"name": "x", "managedFields": [{"manager": "a"}]}})
    with pytest.raises(BadRequest, match=r"failed to create typed patch object \(n/x; apps/v1, Kind=Deployment\): "
                       r"\.spec\.foo: field not declared in schema"):  # fmt: skip
        ssa(None, deployment(foo=1))
    with pytest.raises(BadRequest, match=r"duplicate entries for key"):
        ssa(None, deployment(**containers({"name": "a"}, {"name": "a"})))


def test_custom_resources_keep_what_their_schema_preserves() -> None:
    node = SchemaNode(type="object", properties={"spec": SchemaNode(type="object", preserve_unknown=True)})
    config = {"apiVersion": "k/v1", "kind": "K", "metadata": {"name": "x"}, "spec": {"any": {"a": 1}, "list": [1]}}
    made = ssa(None, config, node=node)
    owned = {"f:spec": {"f:any": {".": {}, "f:a": {}}, "f:list": {}}}
    assert fields_of(made, "me") == owned
    assert ssa(made, {**config, "spec": {"list": [1]}}, node=node)["spec"] == {"list": [1]}


NAMED = st.lists(st.sampled_from("abcd"), unique=True, max_size=3)
LABELS = st.dictionaries(st.sampled_from("pqr"), st.sampled_from("12"), max_size=2)


def config(replicas: int, names: list[str], labels: dict[str, str]) -> dict[str, Any]:
    spec = containers(*({"name": name, "image": name} for name in names)) if names else {}
    if replicas:
        spec["replicas"] = replicas
    return {**deployment(**spec), "metadata": {"name": "x", "namespace": "n", "labels": labels}}


CONFIGS = st.builds(config, st.integers(0, 3), NAMED, LABELS)


@given(CONFIGS, CONFIGS)
def test_apply_is_idempotent_and_the_last_word_of_its_manager(first: Any, second: Any) -> None:
    once = ssa(ssa(None, first), second)
    assert ssa(once, second, now=LATER) == once
    fresh = ssa(None, second)
    assert fields_of(once, "me") == fields_of(fresh, "me")
    names = [c["name"] for c in ((once.get("spec") or {}).get("template") or {}).get("spec", {}).get("containers", [])]
    assert names == [c["name"] for c in (second["spec"].get("template") or {}).get("spec", {}).get("containers", [])]
    assert (once.get("spec") or {}).get("replicas") == second["spec"].get("replicas")


@given(CONFIGS, CONFIGS)
def test_what_two_managers_agree_on_never_conflicts(first: Any, second: Any) -> None:
    live = ssa(ssa(None, first, "a"), second, "b", force=True)
    assert ssa(live, second, "b", now=LATER) == live
