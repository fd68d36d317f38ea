"""Tables for the smaller decisions: where a Pod fits, what a slice says, whose time on a lost Node is over."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from quarterdeck.apiserver.workloads import endpoints, node_lifecycle, pods, scheduler
from quarterdeck.apiserver.workloads.disruption import status_of
from quarterdeck.kube.resource import Object


def node(**spec: Any) -> Object:
    status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "1", "pods": "2"}}
    return {"metadata": {"name": "n", "labels": {"disk": "ssd"}}, "spec": spec, "status": status}


def pod(**spec: Any) -> Object:
    return {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": [], **spec}, "status": {}}


TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("candidate", "where", "used", "problem"),
    [
        (pod(), node(), {}, []),
        (pod(nodeSelector={"disk": "hdd"}), node(), {}, ["node(s) didn't match Pod's node affinity/selector"]),
        (pod(), node(unschedulable=True), {}, ["node(s) were unschedulable"]),
        (pod(), node(taints=[TAINT]), {}, ["node(s) had untolerated taint(s) {gpu: yes}"]),
        (pod(tolerations=[{"key": "gpu", "operator": "Exists"}]), node(taints=[TAINT]), {}, []),
        (pod(), node(), {"pods": Decimal(2)}, ["Too many pods"]),
    ],
)
def test_fit(candidate: Object, where: Object, used: dict[str, Decimal], problem: list[str]) -> None:
    assert scheduler.unfit(candidate, where, used) == problem


def test_endpoint_states() -> None:
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    running = pod() | {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert endpoints.endpoint(service, running, "1.2.3.4")["conditions"] == {
        "ready": True, "serving": True, "terminating": False,
    }  # fmt: skip
    leaving = running | {"metadata": running["metadata"] | {"deletionTimestamp": "t"}}
    assert endpoints.endpoint(service, leaving, "1.2.3.4")["conditions"] == {
        "ready": False, "serving": True, "terminating": True,
    }  # fmt: skip
    service["spec"]["publishNotReadyAddresses"] = True
    assert endpoints.endpoint(service, pod(), "1.2.3.4")["conditions"]["ready"] is True


@pytest.mark.parametrize(
    ("port", "expected"),
    [({"port": 80}, 80), ({"port": 80, "targetPort": 3000}, 3000), ({"port": 80, "targetPort": "web"}, 8080),
     ({"port": 80, "targetPort": "nope"}, None)],
)  # fmt: skip
def test_target_ports(port: Object, expected: int | None) -> None:
    declared = pod(containers=[{"name": "m", "ports": [{"name": "web", "containerPort": 8080}]}])
    assert endpoints.target_port(port, declared) == expected


def test_deletion_prefers_pods_nobody_misses() -> None:
    def made(name: str, **status: Any) -> Object:
        return {"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": "n"}, "status": status}  # fmt: skip

    ready = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    unscheduled = made("unscheduled") | {"spec": {}}
    cheap = made("cheap", phase="Running", conditions=ready)
    cheap["metadata"]["annotations"] = {pods.DELETION_COST: "-5"}
    everyone = [made("old", phase="Running", conditions=ready), cheap, made("starting", phase="Running"), unscheduled]
    order = [p["metadata"]["name"] for p in sorted(everyone, key=lambda p: pods.deletion_order(p, 0))]
    assert order == ["unscheduled", "starting", "cheap", "old"]


def test_a_silent_node() -> None:
    conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]
    (unknown,) = node_lifecycle.unknown_conditions(conditions, "now")
    assert (unknown["status"], unknown["reason"]) == ("Unknown", "NodeStatusUnknown")
    lost = {"metadata": {"name": "n"}, "status": {"conditions": [unknown]}}
    taints = node_lifecycle.wanted_taints(lost, "1970-01-01T00:00:00Z")
    assert [t["effect"] for t in taints] == ["NoSchedule", "NoExecute"]
    assert node_lifecycle.wanted_taints(lost | {"spec": {"taints": taints}}, "later") == taints
    assert node_lifecycle.eviction_delay(pod(), taints[1], 100.0) == 200.0
    forever = pod(tolerations=[{"operator": "Exists"}])
    assert node_lifecycle.eviction_delay(forever, taints[1], 100.0) is None


def test_disruption_budget() -> None:
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    members = [pod() | {"status": ready} for _ in range(3)]
    pdb = {"metadata": {"generation": 1}, "spec": {"minAvailable": "50%"}}
    status = status_of(pdb, members, "now")
    assert (status["desiredHealthy"], status["disruptionsAllowed"]) == (2, 1)
