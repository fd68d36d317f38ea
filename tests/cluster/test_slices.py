"""What slices.py writes where Pods have loopback addresses: the EndpointSlice controller's answer, in another type."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.node.services import port_endpoints, ready_addresses

from .slices import slice_of


def service(target: int | str = 8080, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": target}], **spec},
    }


def pod(ip: str, *, ready: bool = True, app: str = "web", phase: str = "Running", **meta: Any) -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": 8080}]
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": f"p{ip}", "namespace": "default", "uid": ip, "labels": {"app": app}} | meta,
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": ports}]},
        "status": {"phase": phase, "podIP": ip, "conditions": conditions},
    }


PODS = [
    pod("127.1.0.1"),
    pod("127.1.0.2", ready=False),
    pod("127.1.0.3", app="other"),
    pod("127.1.0.4", deletionTimestamp="2026-01-01T00:00:00Z"),
    pod("127.1.0.5", phase="Succeeded"),
]


@pytest.mark.parametrize("target", [8080, "http"])
def test_ready_pods_of_the_selector(target: int | str) -> None:
    found = slice_of(service(target), PODS)
    assert port_endpoints([found], "") == [("127.1.0.1", 8080)]
    assert [e["addresses"][0] for e in found["endpoints"]] == ["127.1.0.1", "127.1.0.2", "127.1.0.4"]
    assert found["addressType"] == "FQDN" and found["metadata"]["labels"]["kubernetes.io/service-name"] == "web"


def test_the_last_that_leaves_serves_on_and_unready_may_be_published() -> None:
    assert ready_addresses([slice_of(service(), PODS[1:])]) == ["127.1.0.4"]
    every = slice_of(service(publishNotReadyAddresses=True), PODS)
    assert ready_addresses([every]) == ["127.1.0.1", "127.1.0.2", "127.1.0.4"]
    assert slice_of(service(), [])["endpoints"] == []
