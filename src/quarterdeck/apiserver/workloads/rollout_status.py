"""Deployment.status, with upstream's condition types, reasons and texts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quarterdeck.kube.clock import parse_timestamp, timestamp
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.resource import Object

from .rollout import available, desired, fenceposts, replicas

_NO_DEADLINE = 2**31 - 1


def counts(deployment: Object, new: Object | None, sets: Sequence[Object]) -> Object:
    def total(key: str) -> int:
        return sum((rs.get("status") or {}).get(key, 0) for rs in sets)

    status = deployment.get("status") or {}
    result: Object = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": total("replicas"),
        "updatedReplicas": (new.get("status") or {}).get("replicas", 0) if new is not None else 0,
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": total("availableReplicas"),
        "unavailableReplicas": max(0, sum(map(replicas, sets)) - sum(map(available, sets))),
        "terminatingReplicas": total("terminatingReplicas"),
    }
    if status.get("collisionCount") is not None:
        result["collisionCount"] = status["collisionCount"]
    return result


def conditions_of(
    deployment: Object, new: Object | None, sets: Sequence[Object], fresh: Object, now: float, *, made_new: bool
) -> list[Object]:
    """``fresh``: the new counts; ``made_new``: the new ReplicaSet was created in this pass."""
    conditions: list[Object] = list((deployment.get("status") or {}).get("conditions") or ())
    conditions = _with_available(conditions, deployment, fresh, now)
    conditions = _with_progress(conditions, deployment, new, fresh, now, made_new)
    failure = _replica_failure(sets)
    conditions = [c for c in conditions if c["type"] != "ReplicaFailure"]
    return [*conditions, failure] if failure else conditions


def _put(conditions: list[Object], kind: str, status: str, reason: str, message: str, now: float) -> list[Object]:
    old = get_condition(conditions, kind)
    text = timestamp(now)
    flipped = old is None or old["status"] != status
    new = {
        "type": kind,
        "status": status,
        "lastUpdateTime": text,
        "lastTransitionTime": text if flipped or old is None else old.get("lastTransitionTime", text),
        "reason": reason,
        "message": message,
    }
    return [new if c["type"] == kind else c for c in conditions] if old is not None else [*conditions, new]


def _same(condition: Object | None, status: str, reason: str) -> bool:
    return condition is not None and condition["status"] == status and condition.get("reason") == reason


def _with_available(conditions: list[Object], deployment: Object, fresh: Object, now: float) -> list[Object]:
    _, unavailable = fenceposts(deployment)
    enough = fresh["availableReplicas"] >= desired(deployment) - unavailable
    status, reason, message = (
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        if enough
        else ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    )
    if _same(get_condition(conditions, "Available"), status, reason):
        return conditions
    return _put(conditions, "Available", status, reason, message, now)


def deadline(deployment: Object) -> int | None:
    seconds = deployment["spec"].get("progressDeadlineSeconds", 600)
    return None if seconds >= _NO_DEADLINE else seconds


def is_complete(deployment: Object, fresh: Object) -> bool:
    want = desired(deployment)
    return fresh["updatedReplicas"] == want and fresh["replicas"] == want and fresh["availableReplicas"] == want


def _progressed(old: Object, fresh: Object) -> bool:
    def outdated(status: Object) -> int:
        return status.get("replicas", 0) - status.get("updatedReplicas", 0)

    keys = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return outdated(fresh) < outdated(old) or any(fresh[key] > old.get(key, 0) for key in keys)


def _with_progress(
    conditions: list[Object], deployment: Object, new: Object | None, fresh: Object, now: float, made_new: bool
) -> list[Object]:
    current = get_condition(conditions, "Progressing")
    if deadline(deployment) is None:
        return [c for c in conditions if c["type"] != "Progressing"]
    if deployment["spec"].get("paused"):
        if _same(current, "Unknown", "DeploymentPaused"):
            return conditions
        return _put(conditions, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now)
    if current is not None and current.get("reason") == "DeploymentPaused":
        conditions = _put(conditions, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now)
        current = get_condition(conditions, "Progressing")
    name = new["metadata"]["name"] if new is not None else ""
    subject = f'ReplicaSet "{name}"' if name else f'Deployment "{deployment["metadata"]["name"]}"'
    if made_new:
        return _put(conditions, "Progressing", "True", "NewReplicaSetCreated", f'Created new replica set "{name}"', now)
    if current is None and new is not None:
        text = f'Found new replica set "{name}"'
        conditions = _put(conditions, "Progressing", "True", "FoundNewReplicaSet", text, now)
        current = get_condition(conditions, "Progressing")
    settled = (
        fresh["replicas"] == fresh["updatedReplicas"]
        and current is not None
        and current.get("reason") == "NewReplicaSetAvailable"
    )
    if settled and current is not None and (not name or f'"{name}"' in current.get("message", "")):
        return conditions
    if is_complete(deployment, fresh):
        text = f"{subject} has successfully progressed."
        return _put(conditions, "Progressing", "True", "NewReplicaSetAvailable", text, now)
    if _progressed(deployment.get("status") or {}, fresh):
        return _put(conditions, "Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.", now)
    if timed_out(deployment, conditions, now) and not _same(current, "False", "ProgressDeadlineExceeded"):
        text = f"{subject} has timed out progressing."
        return _put(conditions, "Progressing", "False", "ProgressDeadlineExceeded", text, now)
    return conditions


def timed_out(deployment: Object, conditions: Sequence[Object], now: float) -> bool:
    left = seconds_to_deadline(deployment, conditions, now)
    return left is not None and left <= 0


def seconds_to_deadline(deployment: Object, conditions: Sequence[Object], now: float) -> float | None:
    """None while no deadline runs: complete, paused, already failed, or none set."""
    current = get_condition(conditions, "Progressing")
    limit = deadline(deployment)
    if current is None or limit is None or deployment["spec"].get("paused"):
        return None
    if current.get("reason") in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded", "DeploymentPaused"):
        return None
    return parse_timestamp(current["lastUpdateTime"]) + limit - now


def _replica_failure(sets: Sequence[Object]) -> dict[str, Any] | None:
    for rs in sets:
        found = get_condition((rs.get("status") or {}).get("conditions"), "ReplicaFailure")
        if found is not None and found["status"] == "True":
            return {"lastUpdateTime": found.get("lastTransitionTime"), **found}
    return None
