"""What controllers ask about Pods: phase, readiness, selectors, which one to delete first. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from quarterdeck.kube.clock import parse_timestamp
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.resource import Object

# Letters and digits that never spell words, as apimachinery's rand.SafeEncodeString.
_SAFE = "bcdfghjklmnpqrstvwxz2456789"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def safe_encode(text: str) -> str:
    return "".join(_SAFE[ord(c) % len(_SAFE)] for c in text)


def stable_hash(value: Any, collisions: int | None = None) -> str:
    """Ten safe characters over JSON data, e.g. a pod template; ``collisions`` as ``status.collisionCount``."""
    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    if collisions is not None:
        data += b"#%d" % collisions
    number = int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
    return safe_encode(f"{number:010d}")


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str] | None) -> bool:
    """metav1.LabelSelector against labels. None matches nothing, an empty selector everything."""
    if selector is None:
        return False
    labels = labels or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_matches_expression(e, labels) for e in selector.get("matchExpressions") or ())


def _matches_expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


def phase(pod: Object) -> str:
    return (pod.get("status") or {}).get("phase", "Pending")


def is_terminating(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_finished(pod: Object) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    return not is_finished(pod) and not is_terminating(pod)


def is_ready(pod: Object) -> bool:
    condition = get_condition((pod.get("status") or {}).get("conditions"), "Ready")
    return condition is not None and condition["status"] == "True"


def ready_since(pod: Object) -> float:
    """Seconds since the epoch; 0 when not ready or unknown."""
    condition = get_condition((pod.get("status") or {}).get("conditions"), "Ready")
    if condition is None or condition["status"] != "True":
        return 0.0
    since = condition.get("lastTransitionTime")
    return parse_timestamp(since) if since else 0.0


def is_available(pod: Object, min_ready_seconds: int, now: float) -> bool:
    return is_ready(pod) and (min_ready_seconds == 0 or ready_since(pod) + min_ready_seconds <= now)


def created(obj: Object) -> float:
    text = obj["metadata"].get("creationTimestamp")
    return parse_timestamp(text) if text else 0.0


def restarts(pod: Object) -> int:
    return max((c.get("restartCount", 0) for c in (pod.get("status") or {}).get("containerStatuses") or ()), default=0)


def deletion_order(pod: Object, now: float) -> tuple[Any, ...]:
    """Sort key: the Pod to delete first comes first (upstream's ActivePodsWithRanks without node ranks)."""
    phases = {"Pending": 0, "Unknown": 1}
    cost = (pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0")
    ready = is_ready(pod)
    return (
        bool((pod.get("spec") or {}).get("nodeName")),
        phases.get(phase(pod), 2),
        ready,
        int(cost) if cost.lstrip("-").isdigit() else 0,
        # The one that became ready last goes first; ages compare on a logarithmic scale upstream, exactly here.
        -ready_since(pod) if ready else 0.0,
        -restarts(pod),
        -created(pod),
        pod["metadata"]["name"],
    )


def from_template(template: Object, owner: Object, reference: Object, name_prefix: str) -> Object:
    """A Pod to create for a workload ``owner`` from its pod template."""
    metadata = template.get("metadata") or {}
    pod_metadata: Object = {"generateName": f"{name_prefix}-", "namespace": owner["metadata"]["namespace"]}
    for key in ("labels", "annotations", "finalizers"):
        if metadata.get(key):
            pod_metadata[key] = dict(metadata[key]) if key != "finalizers" else list(metadata[key])
    pod_metadata["ownerReferences"] = [reference]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": pod_metadata, "spec": template.get("spec") or {}}
