"""HorizontalPodAutoscaler arithmetic: desired size from metrics, stabilization and scaling policies. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import ceil
from typing import Any

from quarterdeck.kube.quantity import parse_quantity
from quarterdeck.kube.resource import Object

from .pods import is_ready, phase

_TOLERANCE = Decimal("0.1")
_DEFAULT_UP: Mapping[str, Any] = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Percent", "value": 100, "periodSeconds": 15},
        {"type": "Pods", "value": 4, "periodSeconds": 15},
    ],
}
_DEFAULT_DOWN: Mapping[str, Any] = {
    "stabilizationWindowSeconds": 300,
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}


class MetricUnavailable(Exception):
    """``reason``: condition reason, e.g. FailedGetResourceMetric."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(slots=True)
class History:
    """What one autoscaler remembers in memory: recommendations (time, size) and changes (time, difference)."""

    recommendations: list[tuple[float, int]] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)


def resource_recommendation(
    source: Object, pods: Sequence[Object], usage: Mapping[str, Mapping[str, Decimal]], current: int
) -> tuple[int, Object]:
    """(replicas, currentMetrics entry) for one Resource metric. ``usage``: by Pod name, summed over containers.

    Missing Pods count as using all of their request when scaling down and nothing when scaling up; Pods not ready yet
    count as using nothing when scaling up. Raises MetricUnavailable.
    """
    name, target = source["name"], source["target"]
    live = [p for p in pods if phase(p) not in ("Failed", "Succeeded") and "deletionTimestamp" not in p["metadata"]]
    measured = {p["metadata"]["name"]: usage[p["metadata"]["name"]][name] for p in live
                if name in usage.get(p["metadata"]["name"], {}) and is_ready(p)}  # fmt: skip
    if not measured:
        raise MetricUnavailable(
            "FailedGetResourceMetric", f"did not receive metrics for targeted pods (pods might be unready): {name}"
        )
    total = sum(measured.values(), Decimal(0))
    if target["type"] == "AverageValue":
        wanted = parse_quantity(target["averageValue"])
        requests = {p["metadata"]["name"]: wanted for p in live}
        goal = Decimal(100)
    else:
        requests = {p["metadata"]["name"]: _request(p, name) for p in live}
        goal = Decimal(target["averageUtilization"])
    ratio = _ratio(total, sum((requests[n] for n in measured), Decimal(0)), goal)
    current_value: Object = {"averageValue": f"{int(total / len(measured) * 1000)}m"}
    if target["type"] == "Utilization":
        current_value["averageUtilization"] = int(total * 100 / sum((requests[n] for n in measured), Decimal(0)))
    entry = {"type": "Resource", "resource": {"name": name, "current": current_value}}
    missing = [n for n in requests if n not in measured]
    if not missing:
        return (current if abs(ratio - 1) <= _TOLERANCE else ceil(ratio * len(measured))), entry
    assumed = sum((requests[n] for n in missing), Decimal(0)) * (goal / 100) if ratio < 1 else Decimal(0)
    again = _ratio(total + assumed, sum(requests.values(), Decimal(0)), goal)
    if abs(again - 1) <= _TOLERANCE or (ratio > 1) != (again > 1):
        return current, entry
    size = ceil(again * len(requests))
    return (current if (size < current) == (again > 1) else size), entry


def _ratio(used: Decimal, requested: Decimal, goal: Decimal) -> Decimal:
    return used * 100 / requested / goal


def _request(pod: Object, name: str) -> Decimal:
    total = Decimal(0)
    for container in pod["spec"].get("containers") or ():
        value = ((container.get("resources") or {}).get("requests") or {}).get(name)
        if value is None:
            pod_name = pod["metadata"]["name"]
            raise MetricUnavailable(
                "FailedGetResourceMetric",
                f"missing request for {name} in container {container['name']} of Pod {pod_name}",
            )
        total += parse_quantity(value)
    return total


def stabilized(hpa: Object, current: int, wanted: int, history: History, now: float) -> tuple[int, str, str]:
    """The size to set now, and the reason and message of ScalingLimited or AbleToScale; updates ``history``."""
    spec = hpa["spec"]
    low, high = spec.get("minReplicas", 1), spec["maxReplicas"]
    behavior = spec.get("behavior") or {}
    up = {**_DEFAULT_UP, **(behavior.get("scaleUp") or {})}
    down = {**_DEFAULT_DOWN, **(behavior.get("scaleDown") or {})}
    longest = max(up["stabilizationWindowSeconds"], down["stabilizationWindowSeconds"])
    history.recommendations = [(t, r) for t, r in history.recommendations if t >= now - longest]
    history.recommendations.append((now, wanted))
    floor = min(r for t, r in history.recommendations if t >= now - up["stabilizationWindowSeconds"])
    ceiling = max(r for t, r in history.recommendations if t >= now - down["stabilizationWindowSeconds"])
    size = min(max(current, floor), ceiling)
    if size > current:
        size = min(size, _limit(up, current, history, now, 1))
    elif size < current:
        size = max(size, _limit(down, current, history, now, -1))
    bounded = min(max(size, low), high)
    if bounded < size:
        return bounded, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
    if bounded > size:
        return bounded, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
    return bounded, "DesiredWithinRange", "the desired count is within the acceptable range"


def _limit(rules: Mapping[str, Any], current: int, history: History, now: float, sign: int) -> int:
    """How far the policies let the size go in one direction."""
    if rules.get("selectPolicy") == "Disabled":
        return current
    bounds: list[int] = []
    for policy in rules.get("policies") or ():
        recent = sum(d for t, d in history.changes if t >= now - policy["periodSeconds"] and d * sign > 0)
        start = current - recent
        step = policy["value"]
        if policy["type"] == "Percent":
            bounds.append(ceil(start * (100 + sign * step) / 100) if sign > 0 else int(start * (100 - step) / 100))
        else:
            bounds.append(start + sign * step)
    widest = (rules.get("selectPolicy") or "Max") == "Max"
    chosen = max(bounds) if widest == (sign > 0) else min(bounds)
    return max(chosen, 1) if sign > 0 else max(chosen, 0)
