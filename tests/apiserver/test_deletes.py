"""delete and deletecollection: what goes at once, what waits for whom, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest

POD = {"containers": [{"name": "c", "image": "x"}], "nodeName": "n1"}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app": name[0]}}, "spec": {**POD, **spec}}


def test_a_running_pod_is_given_its_time(api: Any, space: str) -> None:
    api.ok("POST", f"{space}/pods", pod("a", terminationGracePeriodSeconds=7))
    answer = api.ok("DELETE", f"{space}/pods/a")
    assert answer["kind"] == "Pod" and answer["metadata"]["deletionGracePeriodSeconds"] == 7
    first = api.ok("GET", f"{space}/pods/a")["metadata"]
    api.ok("DELETE", f"{space}/pods/a")
    assert api.ok("GET", f"{space}/pods/a")["metadata"] == first  # asking again changes nothing
    shorter = api.ok("DELETE", f"{space}/pods/a", gracePeriodSeconds="3")["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 3 and shorter["deletionTimestamp"] < first["deletionTimestamp"]
    longer = api.ok("DELETE", f"{space}/pods/a", gracePeriodSeconds="30")["metadata"]
    assert longer["deletionGracePeriodSeconds"] == 3
    gone = api.ok("DELETE", f"{space}/pods/a", {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})
    assert gone["kind"] == "Pod"
    api.refused(404, "GET", f"{space}/pods/a")


def test_pods_that_do_not_run_go_at_once(api: Any, space: str) -> None:
    api.ok("POST", f"{space}/pods", {**pod("a"), "spec": {"containers": POD["containers"]}})
    api.ok("DELETE", f"{space}/pods/a")
    api.refused(404, "GET", f"{space}/pods/a")
    api.ok("POST", f"{space}/pods", pod("b"))
    api.ok("PATCH", f"{space}/pods/b/status", {"status": {"phase": "Succeeded"}}, "application/merge-patch+json")
    api.ok("DELETE", f"{space}/pods/b")
    api.refused(404, "GET", f"{space}/pods/b")


def test_finalizers_hold_an_object(api: Any, space: str) -> None:
    path = f"{space}/configmaps/held"
    made = {"metadata": {"name": "held", "finalizers": ["example.com/a", "example.com/b"]}}
    api.ok("POST", f"{space}/configmaps", made)
    answer = api.ok("DELETE", path)
    assert answer["kind"] == "ConfigMap" and answer["metadata"]["deletionTimestamp"]
    merge = "application/merge-patch+json"
    api.ok("PATCH", path, {"metadata": {"finalizers": ["example.com/b"]}}, merge)
    status = api.refused(422, "PATCH", path, {"metadata": {"finalizers": ["example.com/b", "example.com/c"]}}, merge)
    assert "no new finalizers can be added if the object is being deleted" in status["message"]
    with api.watch(f"{space}/configmaps", fieldSelector="metadata.name=held") as events:
        assert next(events)["type"] == "ADDED"
        api.ok("PATCH", path, {"metadata": {"finalizers": None}}, merge)
        assert next(events)["type"] == "DELETED"
    api.refused(404, "GET", path)


@pytest.mark.parametrize(
    ("policy", "finalizers"),
    [("Foreground", ["foregroundDeletion"]), ("Orphan", ["orphan"]), ("Background", None)],
)
def test_the_propagation_policy_becomes_a_finalizer(
    api: Any, space: str, policy: str, finalizers: list[str] | None
) -> None:
    api.ok("POST", f"{space}/configmaps", {"metadata": {"name": "owner"}})
    api.ok("DELETE", f"{space}/configmaps/owner", {"propagationPolicy": policy})
    if finalizers is None:
        api.refused(404, "GET", f"{space}/configmaps/owner")
    else:
        assert api.ok("GET", f"{space}/configmaps/owner")["metadata"]["finalizers"] == finalizers


def test_preconditions(api: Any, space: str) -> None:
    path = f"{space}/configmaps/one"
    made = api.ok("POST", f"{space}/configmaps", {"metadata": {"name": "one"}})["metadata"]
    wrong = api.refused(409, "DELETE", path, {"preconditions": {"uid": "other"}})
    assert f"UID in precondition: other, UID in object meta: {made['uid']}" in wrong["message"]
    wrong = api.refused(409, "DELETE", path, {"preconditions": {"resourceVersion": "1"}})
    assert wrong["reason"] == "Conflict" and "ResourceVersion in precondition: 1" in wrong["message"]
    right = {"preconditions": {"uid": made["uid"], "resourceVersion": made["resourceVersion"]}}
    status = api.ok("DELETE", path, right)
    assert status["status"] == "Success" and status["details"]["uid"] == made["uid"]


def test_bad_options(api: Any, space: str) -> None:
    api.ok("POST", f"{space}/configmaps", {"metadata": {"name": "one"}})
    path = f"{space}/configmaps/one"
    assert 'Unsupported value: "Slow"' in api.refused(422, "DELETE", path, propagationPolicy="Slow")["message"]
    api.refused(400, "DELETE", path, {"kind": "ConfigMap"})
    api.refused(400, "DELETE", path, {"kind": "DeleteOptions", "gracePeriodSeconds": "soon"})
    api.refused(400, "DELETE", path, {"preconditions": "x"})
    api.refused(422, "DELETE", path, dryRun="Some")
    api.ok("GET", path)


def test_collections_by_selector(api: Any, space: str) -> None:
    for name in ("a1", "a2", "b1"):
        body = {"metadata": {"name": name, "labels": {"app": name[0]}}}
        api.ok("POST", f"{space}/configmaps", body)
    dry = api.ok("DELETE", f"{space}/configmaps", labelSelector="app=a", dryRun="All")
    assert [item["metadata"]["name"] for item in dry["items"]] == ["a1", "a2"]
    gone = api.ok("DELETE", f"{space}/configmaps", labelSelector="app=a")
    assert gone["kind"] == "ConfigMapList" and len(gone["items"]) == 2
    assert [i["metadata"]["name"] for i in api.ok("GET", f"{space}/configmaps")["items"]] == ["b1"]
    api.ok("DELETE", f"{space}/configmaps", fieldSelector="metadata.name=b1")
    assert api.ok("GET", f"{space}/configmaps")["items"] == []
    api.refused(405, "DELETE", "/api/v1/namespaces")  # as upstream: not this one


def test_dry_run_leaves_everything(api: Any, space: str) -> None:
    api.ok("POST", f"{space}/pods", pod("a"))
    before = api.ok("GET", f"{space}/pods/a")
    assert api.ok("DELETE", f"{space}/pods/a", dryRun="All")["metadata"]["deletionTimestamp"]
    api.ok("DELETE", f"{space}/pods/a", {"dryRun": ["All"], "gracePeriodSeconds": 0})
    assert api.ok("GET", f"{space}/pods/a") == before


def test_namespaces_that_stay(api: Any) -> None:
    for name in ("default", "kube-system", "kube-public"):
        assert "may not be deleted" in api.refused(403, "DELETE", f"/api/v1/namespaces/{name}")["message"]


def test_namespaces_end_through_finalize(api: Any, space: str) -> None:
    answer = api.ok("DELETE", space)
    assert answer["status"]["phase"] == "Terminating"
    refused = api.refused(403, "POST", f"{space}/configmaps", {"metadata": {"name": "late"}})
    assert refused["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    live = api.ok("GET", space)
    api.ok("PUT", f"{space}/finalize", {**live, "spec": {"finalizers": []}})
    api.refused(404, "GET", space)
    api.refused(405, "GET", f"{api.namespace()}/finalize")
