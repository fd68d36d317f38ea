"""create, update, patch and apply over HTTP: conflicts, ownership, validation modes, generations."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def deployment(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    body = {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": body}


@pytest.fixture
def deployments(space: str) -> str:
    return space.replace("/api/v1", "/apis/apps/v1") + "/deployments"


@pytest.fixture(scope="module")
def widgets(api: Any) -> str:
    """URL below which ``/namespaces/x/widgets`` are served, with status, scale and a default."""
    number = {"type": "integer"}
    spec = {"type": "object", "properties": {"size": {**number, "default": 3}, "color": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": "!has(oldSelf.color) || self.color == oldSelf.color",
                                          "message": "color is for ever"}]}  # fmt: skip
    status = {"type": "object", "properties": {"size": number, "note": {"type": "string"}}}
    version = {
        "name": "v1", "served": True, "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
        "subresources": {
            "status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
        },
        "selectableFields": [{"jsonPath": ".spec.color"}],
    }  # fmt: skip
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    body = {
        "metadata": {"name": "widgets.test.example"},
        "spec": {"group": "test.example", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    api.ok("POST", CRDS, body)
    return "/apis/test.example/v1"


def managers(obj: Any) -> list[tuple[str, str, str]]:
    return sorted((m["manager"], m["operation"], m.get("subresource", "")) for m in obj["metadata"]["managedFields"])


async def test_fifty_writers_lose_no_update(api: Any, running: Any, space: str) -> None:
    api.ok("POST", f"{space}/configmaps", {"metadata": {"name": "count"}, "data": {"n": "0"}})
    verify = api.http._transport._pool._ssl_context
    headers = {"authorization": f"Bearer {api.token}"}
    conflicts = 0

    async def add(http: httpx.AsyncClient) -> None:
        nonlocal conflicts
        while True:
            obj = (await http.get(f"{space}/configmaps/count")).json()
            obj["data"]["n"] = str(int(obj["data"]["n"]) + 1)
            answer = await http.put(f"{space}/configmaps/count", json=obj)
            if answer.status_code == 200:
                return
            assert answer.status_code == 409 and answer.json()["reason"] == "Conflict"
            conflicts += 1

    async with httpx.AsyncClient(base_url=running.server.url, headers=headers, verify=verify, timeout=30) as http:
        await asyncio.gather(*(add(http) for _ in range(50)))
    assert api.ok("GET", f"{space}/configmaps/count")["data"]["n"] == "50" and conflicts > 0


def test_generated_names(api: Any, space: str) -> None:
    made = {
        api.ok("POST", f"{space}/configmaps", {"metadata": {"generateName": "x-"}})["metadata"]["name"] for _ in "12345"
    }
    assert len(made) == 5 and all(len(name) == 7 and name.startswith("x-") for name in made)
    status = api.refused(422, "POST", f"{space}/configmaps", {"metadata": {}})
    assert "name or generateName is required" in status["message"]
    api.refused(422, "POST", f"{space}/configmaps", {"metadata": {"generateName": "Bad_"}})


def test_strategic_merge_joins_lists_by_their_keys(api: Any, deployments: str) -> None:
    api.ok("POST", deployments, deployment())
    more = {"containers": [{"name": "side", "image": "y"}, {"name": "c", "env": [{"name": "A", "value": "1"}]}]}
    made = api.ok("PATCH", f"{deployments}/web", {"spec": {"template": {"spec": more}}}, STRATEGIC)
    found = {c["name"]: c for c in made["spec"]["template"]["spec"]["containers"]}
    assert found["c"]["image"] == "x" and found["c"]["env"] == [{"name": "A", "value": "1"}] and "side" in found
    gone = {"containers": [{"name": "side", "$patch": "delete"}]}
    made = api.ok("PATCH", f"{deployments}/web", {"spec": {"template": {"spec": gone}}}, STRATEGIC)
    assert [c["name"] for c in made["spec"]["template"]["spec"]["containers"]] == ["c"]
    assert made["metadata"]["generation"] == 3
    replaced = api.ok(
        "PATCH",
        f"{deployments}/web",
        {"spec": {"template": {"spec": {"containers": [{"name": "n", "image": "z"}]}}}},
        MERGE,
    )
    assert [c["name"] for c in replaced["spec"]["template"]["spec"]["containers"]] == ["n"]


def test_json_patch_tests_and_paths(api: Any, space: str) -> None:
    path = f"{space}/configmaps/one"
    api.ok("POST", f"{space}/configmaps", {"metadata": {"name": "one"}, "data": {"a": "1"}})
    failing = [{"op": "test", "path": "/data/a", "value": "2"}, {"op": "replace", "path": "/data/a", "value": "3"}]
    status = api.refused(422, "PATCH", path, failing, JSON_PATCH)
    assert "testing value /data/a failed" in status["message"] or "test" in status["message"]
    api.refused(422, "PATCH", path, [{"op": "remove", "path": "/data/none"}], JSON_PATCH)
    api.refused(400, "PATCH", path, [{"op": "dance", "path": "/data"}], JSON_PATCH)
    api.refused(400, "PATCH", path, {"data": {}}, JSON_PATCH)
    assert api.ok("GET", path)["data"] == {"a": "1"}


def test_yaml_bodies_in_and_out(api: Any, space: str) -> None:
    body = "metadata: {name: yaml}\ndata:\n  day: '2020-01-01'\n  on: 'yes'\n  1: one\n"
    answer = api.http.post(
        f"{space}/configmaps", content=body, headers={"content-type": "application/yaml", "accept": "application/yaml"}
    )
    assert answer.status_code == 201 and answer.headers["content-type"] == "application/yaml"
    assert "day: '2020-01-01'" in answer.text


def test_an_update_without_change_writes_nothing(api: Any, space: str) -> None:
    made = api.ok("POST", f"{space}/configmaps", {"metadata": {"name": "same"}, "data": {"a": "1"}})
    again = api.ok("PUT", f"{space}/configmaps/same", made)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


@pytest.mark.parametrize("media", ["application/json", "application/yaml"])
def test_field_validation(api: Any, space: str, media: str) -> None:
    twice = '{"metadata": {"name": "v"}, "data": {"a": "1", "a": "2"}, "surplus": true}'
    path = f"{space}/configmaps"
    status = api.refused(400, "POST", path, twice, media, fieldValidation="Strict")
    assert "strict decoding error" in status["message"] and 'unknown field "surplus"' in status["message"]
    assert ("duplicate field" if media.endswith("json") else "already set in map") in status["message"]
    warned = api("POST", path, twice, media, fieldValidation="Warn", dryRun="All")
    texts = warned.headers.get_list("warning")
    assert any("unknown field" in t and t.startswith('299 - "') for t in texts) and len(texts) >= 2
    assert not api("POST", path, twice, media, fieldValidation="Ignore", dryRun="All").headers.get_list("warning")
    assert api("POST", path, twice, media, dryRun="All").headers.get_list("warning")  # Warn is the default
    assert "supported values" in api.refused(422, "POST", path, twice, media, fieldValidation="Some")["message"]


def test_dry_run_changes_nothing(api: Any, space: str, deployments: str) -> None:
    api.ok("POST", deployments, deployment())
    api.ok("POST", f"{space}/configmaps", {"metadata": {"name": "a"}})
    before = [api.ok("GET", p)["items"] for p in (deployments, f"{space}/configmaps")]
    dry = {"dryRun": "All"}
    api.ok("POST", f"{space}/configmaps", {"metadata": {"name": "b"}}, **dry)
    api.ok("PUT", f"{space}/configmaps/a", {"metadata": {"name": "a"}, "data": {"x": "y"}}, **dry)
    for media in (MERGE, STRATEGIC):
        api.ok("PATCH", f"{space}/configmaps/a", {"data": {"x": "y"}}, media, **dry)
    api.ok("PATCH", f"{space}/configmaps/a", [{"op": "add", "path": "/data", "value": {}}], JSON_PATCH, **dry)
    for name in ("a", "c"):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "y"}}
        api.ok("PATCH", f"{space}/configmaps/{name}", body, APPLY, fieldManager="m", **dry)
    api.ok("PATCH", f"{deployments}/web/scale", {"spec": {"replicas": 9}}, MERGE, **dry)
    api.ok("PATCH", f"{deployments}/web/status", {"status": {"replicas": 9}}, MERGE, **dry)
    api.ok("DELETE", f"{space}/configmaps/a", **dry)
    api.ok("DELETE", f"{space}/configmaps", **dry)
    assert [api.ok("GET", p)["items"] for p in (deployments, f"{space}/configmaps")] == before


def test_scale_and_status_of_a_built_in_kind(api: Any, deployments: str) -> None:
    made = api.ok("POST", deployments, deployment())
    scale = api.ok("GET", f"{deployments}/web/scale")
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 1})
    assert scale["status"]["selector"] == "a=b"
    scaled = api.ok("PUT", f"{deployments}/web/scale", {**scale, "spec": {"replicas": 5}})
    assert scaled["spec"]["replicas"] == 5
    stale = api.refused(409, "PUT", f"{deployments}/web/scale", {**scale, "spec": {"replicas": 6}})
    assert "object has been modified" in stale["message"]
    api.refused(422, "PATCH", f"{deployments}/web/scale", {"spec": {"replicas": -1}}, MERGE)
    status = api.ok("PATCH", f"{deployments}/web/status", {"spec": {"replicas": 7}, "status": {"replicas": 2}}, MERGE)
    assert (status["spec"]["replicas"], status["status"]["replicas"]) == (5, 2)
    assert (made["metadata"]["generation"], status["metadata"]["generation"]) == (1, 2)
    main = api.ok("PATCH", f"{deployments}/web", {"status": {"replicas": 8}}, MERGE)
    assert main["status"]["replicas"] == 2 and main["metadata"]["generation"] == 2
    assert [s for _, _, s in managers(main)] == ["", "scale", "status"]


def test_status_and_scale_of_a_custom_resource(api: Any, space: str, widgets: str) -> None:
    path = f"{widgets}{space.removeprefix('/api/v1')}/widgets"
    made = api.ok("POST", path, {"metadata": {"name": "w"}, "spec": {"color": "red"}, "status": {"note": "lost"}})
    assert made["spec"]["size"] == 3 and "status" not in made and made["metadata"]["generation"] == 1
    body = {"apiVersion": "test.example/v1", "kind": "Widget", "metadata": {"name": "w"}}
    config = {**body, "spec": {"size": 4}, "status": {"note": "not here"}}
    applied = api.ok("PATCH", f"{path}/w", config, APPLY, fieldManager="me", force="true")
    mine = next(m for m in applied["metadata"]["managedFields"] if m["manager"] == "me")
    assert "f:status" not in mine["fieldsV1"] and applied["metadata"]["generation"] == 2
    config = {**body, "spec": {"size": 9}, "status": {"note": "here", "size": 4}}
    applied = api.ok("PATCH", f"{path}/w/status", config, APPLY, fieldManager="other")
    theirs = next(m for m in applied["metadata"]["managedFields"] if m["manager"] == "other")
    assert set(theirs["fieldsV1"]) == {"f:status"} and theirs["subresource"] == "status"
    assert applied["spec"]["size"] == 4 and applied["metadata"]["generation"] == 2
    assert api.ok("GET", f"{path}/w/scale")["status"]["replicas"] == 4
    api.ok("PATCH", f"{path}/w/scale", {"spec": {"replicas": 6}}, MERGE)
    assert api.ok("GET", f"{path}/w")["spec"]["size"] == 6
    status = api.refused(422, "PATCH", f"{path}/w", {"spec": {"color": "blue"}}, MERGE)
    assert "color is for ever" in status["message"]
    assert len(api.ok("GET", path, fieldSelector="spec.color=red")["items"]) == 1
    assert api.ok("GET", path, fieldSelector="spec.color=blue")["items"] == []
    api.refused(415, "PATCH", f"{path}/w", {}, STRATEGIC)
    missing = api.refused(422, "PUT", f"{path}/w", {**body, "spec": {}})
    assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in missing["message"]


def test_a_changed_schema_applies_at_once(api: Any, space: str, widgets: str) -> None:
    path = f"{widgets}{space.removeprefix('/api/v1')}/widgets"
    api.ok("POST", path, {"metadata": {"name": "old"}, "spec": {}})
    crd = api.ok("GET", f"{CRDS}/widgets.test.example")
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["shape"] = {"type": "string", "enum": ["round", "square"], "default": "round"}
    api.ok("PUT", f"{CRDS}/widgets.test.example", crd)
    assert api.ok("GET", f"{path}/old")["spec"]["shape"] == "round"  # defaults also apply to what was stored before
    assert api.ok("GET", path)["items"][0]["spec"]["shape"] == "round"
    text = api.refused(422, "POST", path, {"metadata": {"name": "n"}, "spec": {"shape": "flat"}})["message"]
    assert 'Unsupported value: "flat": supported values: "round", "square"' in text


def test_names_of_definitions_conflict(api: Any, widgets: str) -> None:
    crd = api.ok("GET", f"{CRDS}/widgets.test.example")
    spec = json.loads(json.dumps(crd["spec"]))
    spec["names"] = {"plural": "gadgets", "singular": "gadget", "kind": "Widget", "listKind": "GadgetList"}
    made = api.ok("POST", CRDS, {"metadata": {"name": "gadgets.test.example"}, "spec": spec})
    conditions = {c["type"]: c for c in made["status"]["conditions"]}
    assert conditions["NamesAccepted"]["status"] == "False" and conditions["NamesAccepted"]["reason"] == "KindConflict"
    assert crd["status"]["storedVersions"] == ["v1"]
    api.ok("DELETE", f"{CRDS}/gadgets.test.example")


def test_events_in_both_groups(api: Any, space: str) -> None:
    name = space.rpartition("/")[2]
    core = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": name, "name": "p"},
            "message": "hello", "reason": "R", "type": "Normal", "count": 2}  # fmt: skip
    api.ok("POST", f"{space}/events", core)
    new = f"/apis/events.k8s.io/v1/namespaces/{name}/events"
    shown = api.ok("GET", f"{new}/e")
    assert (shown["apiVersion"], shown["note"], shown["regarding"]["name"]) == ("events.k8s.io/v1", "hello", "p")
    assert shown["deprecatedCount"] == 2 and "message" not in shown
    made = {"metadata": {"name": "n"}, "regarding": {"kind": "Pod", "namespace": name, "name": "p"}, "note": "hi",
            "reason": "R", "type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Do",
            "reportingController": "c", "reportingInstance": "i"}  # fmt: skip
    api.ok("POST", new, made)
    assert api.ok("GET", f"{space}/events/n")["message"] == "hi"
    assert len(api.ok("GET", new, fieldSelector="regarding.name=p")["items"]) == 2


def test_binding_and_eviction_with_a_budget(api: Any, space: str) -> None:
    spec = {"containers": [{"name": "c", "image": "x"}]}
    api.ok("POST", f"{space}/pods", {"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": spec})
    bind = {"target": {"kind": "Node", "name": "n1"}}
    assert api.ok("POST", f"{space}/pods/p/binding", bind)["status"] == "Success"
    assert 'already assigned to node "n1"' in api.refused(409, "POST", f"{space}/pods/p/binding", bind)["message"]
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    api.ok("PATCH", f"{space}/pods/p/status", ready, MERGE)
    budgets = space.replace("/api/v1", "/apis/policy/v1") + "/poddisruptionbudgets"
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}
    api.ok("POST", budgets, budget)
    evict = {"metadata": {"name": "p"}}
    status = api.refused(429, "POST", f"{space}/pods/p/eviction", evict)
    assert status["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    assert status["details"]["causes"][0]["reason"] == "DisruptionBudget"
    api.ok("PATCH", f"{budgets}/b/status", {"status": {"disruptionsAllowed": 1, "currentHealthy": 2}}, MERGE)
    api.ok("POST", f"{space}/pods/p/eviction", evict, dryRun="All")
    assert api.ok("POST", f"{space}/pods/p/eviction", evict)["status"] == "Success"
    spent = api.ok("GET", f"{budgets}/b")["status"]
    assert spent["disruptionsAllowed"] == 0 and list(spent["disruptedPods"]) == ["p"]
    assert api.ok("GET", f"{space}/pods/p")["metadata"]["deletionTimestamp"]


def test_discovery_names_only_what_is_served(api: Any) -> None:
    names = {r["name"] for r in api.ok("GET", "/api/v1")["resources"]}
    assert {"pods/eviction", "pods/binding", "namespaces/finalize", "pods/log"} <= names
    assert "pods/ephemeralcontainers" not in names


def test_metrics_without_a_node_are_unavailable(api: Any) -> None:
    assert api.refused(503, "GET", "/apis/metrics.k8s.io/v1beta1/pods")["reason"] == "ServiceUnavailable"
