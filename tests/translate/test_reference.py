"""Who may use what of another namespace, and whose Services are dialled."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.errors import RefNotPermitted
from quarterdeck.kube.owner import owner_reference
from quarterdeck.snapshot import Endpoint
from quarterdeck.translate.reference import allowed
from quarterdeck.translate.resolve import Services, closed_addresses, resolve

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


def pod(address: str, namespace: str = "b", **more: Any) -> dict[str, Any]:
    """A Pod of an agent, with what a kubelet says of it."""
    status = {"podIP": address, "podIPs": [{"ip": address}], "hostIP": "192.0.2.1", "phase": "Running"}
    metadata = {"namespace": namespace, "name": "p", "labels": {"kagent": "m"}}
    return {"metadata": metadata, "status": status} | more


def claimed(*addresses: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Service of namespace ``a`` without selector, and the EndpointSlice that its team wrote for it."""
    service = {"metadata": {"namespace": "a", "name": "s"}, "spec": {"clusterIP": "10.97.0.1", "ports": [{"port": 80}]}}
    part = {
        "metadata": {"namespace": "a", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "ports": [{"port": 80}],
        "endpoints": [{"addresses": [address]} for address in addresses],
    }
    return service, part


def test_an_endpoint_slice_cannot_claim_what_another_namespace_runs() -> None:
    service, part = claimed("10.244.0.7", "10.244.0.8", "198.51.100.1", "10.97.0.9")
    theirs = services(owner("Agent", "1")).service("b", "m") or {}
    index = Services.of([service, theirs], [part], [pod("10.244.0.7"), pod("10.244.0.8", "a")])
    left = [endpoint.host for endpoint in index.endpoints("a", "s", 80)]
    assert left == ["10.244.0.8", "198.51.100.1"], "one's own Pods, and what is no workload of the cluster"
    with pytest.raises(RefNotPermitted, match="a workload of another namespace"):
        resolve("http://10.244.0.7/mcp", index, "a")


@pytest.mark.parametrize(("given", "expected"), [
    (pod("10.244.0.7"), ["10.244.0.7"]),
    (pod("192.0.2.1"), []),
    (pod("10.244.0.7", status={"podIP": "10.244.0.7", "phase": "Succeeded"}), []),
    (pod("10.244.0.7", metadata={"namespace": "b", "name": "web", "labels": {"app": "web"}}), []),
    (pod("10.244.0.7", status={"podIPs": [{"ip": "10.244.0.7"}, {"ip": "fd00::7"}]}), ["10.244.0.7", "fd00::7"]),
    (pod("", status={}), []),
    ({"metadata": {"namespace": "b"}, "spec": {"clusterIP": "10.97.0.9"}}, []),
    (services(owner("MCPServer", "1")).service("b", "m"), ["10.97.0.9"]),
])  # fmt: skip
def test_closed_addresses(given: dict[str, Any], expected: list[str]) -> None:
    """Not the machine's, not those that the next Pod may have by now."""
    assert closed_addresses(given) == expected
