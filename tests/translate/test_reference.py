"""Who may use what of another namespace, and whose Services are dialled."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.errors import RefNotPermitted
from quarterdeck.kube.owner import owner_reference
from quarterdeck.snapshot import Endpoint
from quarterdeck.translate.reference import allowed
from quarterdeck.translate.resolve import Services, resolve

PROD = {"matchLabels": {"stage": "prod"}}


@pytest.mark.parametrize(("rule", "labels", "expected"), [
    (None, {}, False),
    ({}, {}, False),
    ({"from": "Same"}, {}, False),
    ({"from": "All"}, {}, True),
    ({"from": "Selector", "selector": PROD}, {"stage": "prod"}, True),
    ({"from": "Selector", "selector": PROD}, {"stage": "dev"}, False),
    ({"from": "Selector", "selector": {}}, {}, True),
    ({"from": "Selector"}, {"stage": "prod"}, False),
    ({"from": "Selector", "selector": {"matchExpressions": [{"key": "x", "operator": "Near"}]}}, {"x": "1"}, False),
    ({"from": "Anything"}, {}, False),
])  # fmt: skip
def test_allowed_namespaces(rule: dict[str, Any] | None, labels: dict[str, str], expected: bool) -> None:
    assert allowed(rule, "theirs", "ours", labels) is expected
    assert allowed(rule, "ours", "ours", labels), "one's own namespace needs no rule"


def owner(kind: str, uid: str) -> dict[str, Any]:
    return {"apiVersion": "kagent.dev/v1alpha1", "kind": kind, "metadata": {"namespace": "b", "name": "m", "uid": uid}}


def services(*owners: dict[str, Any]) -> Services:
    service = {
        "metadata": {"namespace": "b", "name": "m", "ownerReferences": [owner_reference(o) for o in owners]},
        "spec": {"clusterIP": "10.97.0.9", "ports": [{"name": "http", "port": 3000}]},
    }
    part = {
        "metadata": {"namespace": "b", "name": "m-1", "labels": {"kubernetes.io/service-name": "m"}},
        "ports": [{"name": "http", "port": 3000}],
        "endpoints": [{"addresses": ["10.244.0.7"]}],
    }
    return Services.of([service], [part])


def test_endpoints_of_a_service_are_its_owners_alone() -> None:
    mine, other = owner("MCPServer", "1"), owner("MCPServer", "2")
    assert services(mine).own_endpoints(mine, 3000) == (Endpoint("10.244.0.7", 3000),)
    assert services(mine).own_endpoints(other, 3000) == ()
    assert services().own_endpoints(mine, 3000) == (), "a Service that somebody made by hand"
    assert services(mine).own_endpoints(mine, 3000, "-canary") == ()


@pytest.mark.parametrize("host", [
    "m.b", "m.b.svc", "m.b.svc.cluster.local", "10.97.0.9", "10.244.0.7",
    "[::ffff:10.244.0.7]", "[::ffff:af4:7]", "0x0af40007", "183762951", "10.244.7", "012.0364.0.7",
    "10-244-0-7.m.b.svc", "web-0.m.b.svc.cluster.local.", "10-244-0-7.b.pod.cluster.local",
])  # fmt: skip
@pytest.mark.parametrize("kind", ["Agent", "MCPServer", "ModelConfig"])
def test_no_url_leads_to_what_another_namespace_runs(host: str, kind: str) -> None:
    url = f"http://{host}:3000/mcp"
    with pytest.raises(RefNotPermitted, match=f"leads to a {kind} of another namespace, which is closed to a;"):
        resolve(url, services(owner(kind, "1")), "a")
    assert resolve(url, services(owner(kind, "1")), "b").endpoints, "its own namespace"
    assert resolve(url, services(), "a").endpoints, "a Service that nobody of ours owns"
