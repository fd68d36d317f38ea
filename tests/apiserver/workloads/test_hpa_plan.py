from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from quarterdeck.apiserver.workloads.hpa_plan import History, MetricUnavailable, resource_recommendation, stabilized
from quarterdeck.kube.resource import Object


def pod(name: str, ready: bool = True) -> Object:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    containers = [{"name": "main", "resources": {"requests": {"cpu": "100m"}}}]
    return {"metadata": {"name": name}, "spec": {"containers": containers},
            "status": {"phase": "Running", "conditions": conditions}}  # fmt: skip


SOURCE = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}


@pytest.mark.parametrize(("millicores", "expected"), [(50, 2), (54, 2), (100, 4), (25, 1), (10, 1)])
def test_utilization(millicores: int, expected: int) -> None:
    usage = {name: {"cpu": Decimal(millicores) / 1000} for name in ("a", "b")}
    size, entry = resource_recommendation(SOURCE, [pod("a"), pod("b")], usage, 2)
    assert size == expected
    assert entry["resource"]["current"]["averageUtilization"] == millicores


def test_missing_metrics_damp_and_none_refuses() -> None:
    usage = {"a": {"cpu": Decimal("0.1")}}
    size, _ = resource_recommendation(SOURCE, [pod("a"), pod("b", ready=False)], usage, 2)
    assert size == 2  # the starting Pod counts as idle while growing
    with pytest.raises(MetricUnavailable):
        resource_recommendation(SOURCE, [pod("a")], {}, 1)


def hpa(**spec: Any) -> Object:
    return {"spec": {"minReplicas": 1, "maxReplicas": 20, **spec}}


def test_growth_is_limited_and_shrinking_waits() -> None:
    history = History()
    assert stabilized(hpa(), 2, 20, history, 0.0)[0] == 6  # +4 Pods is more than +100 %
    history.changes.append((0.0, 4))
    assert stabilized(hpa(), 6, 20, history, 10.0)[0] == 6
    assert stabilized(hpa(), 6, 20, history, 16.0)[0] == 12
    history = History()
    stabilized(hpa(), 10, 10, history, 0.0)
    assert stabilized(hpa(), 10, 2, history, 200.0)[0] == 10
    assert stabilized(hpa(), 10, 2, history, 301.0)[0] == 2
    assert stabilized(hpa(maxReplicas=3), 3, 9, History(), 0.0)[:2] == (3, "TooManyReplicas")
    disabled = hpa(behavior={"scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}})
    assert stabilized(disabled, 5, 1, History(), 0.0)[0] == 5
