"""ReplicaSet → Pods.

Without expectations: the Pod cache takes over the answer of each write, so a reconcile always sees what earlier ones
did, and a fresh process starts from a fresh list.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from quarterdeck import errors
from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.conditions import remove_condition, set_condition
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.owner import controller_of, owner_reference
from quarterdeck.kube.resource import POD, REPLICA_SET, Key, Object, key_of

from .control import PodControl, claim, controller_uid, orphan_namespace, slow_start, write_status
from .pods import deletion_order, from_template, is_active, is_available, is_finished, is_ready, is_terminating, matches
from .pods import ready_since as pod_ready_since

_BURST = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """``create``: how many Pods; ``delete``: which, in order."""

    create: int
    delete: tuple[Object, ...]


def plan(replicas: int, pods: list[Object], now: float) -> Plan:
    """What brings the active Pods to ``replicas``."""
    active = [pod for pod in pods if is_active(pod)]
    missing = replicas - len(active)
    if missing >= 0:
        return Plan(min(missing, _BURST), ())
    order = sorted(active, key=lambda pod: deletion_order(pod, now))
    return Plan(0, tuple(order[: min(-missing, _BURST)]))


def status_of(rs: Object, pods: list[Object], now: float, failure: str = "") -> Object:
    """ReplicaSet.status; ``failure`` is why Pods could not be created or deleted, with its reason before a colon."""
    spec = rs["spec"]
    active = [pod for pod in pods if is_active(pod)]
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    min_ready = spec.get("minReadySeconds", 0)
    conditions: list[dict[str, Any]] = (rs.get("status") or {}).get("conditions") or []
    if failure:
        reason, _, message = failure.partition(":")
        conditions = set_condition(conditions, "ReplicaFailure", "True", reason, message, None, timestamp(now))
    else:
        conditions = remove_condition(conditions, "ReplicaFailure")
    terminating = sum(is_terminating(pod) and not is_finished(pod) for pod in pods)
    return {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(matches({"matchLabels": labels}, p["metadata"].get("labels")) for p in active),
        "readyReplicas": sum(is_ready(pod) for pod in active),
        "availableReplicas": sum(is_available(pod, min_ready, now) for pod in active),
        "terminatingReplicas": terminating,
        "observedGeneration": rs["metadata"].get("generation", 0),
        "conditions": conditions,
    }


class ReplicaSets:
    """Owns the Pods of each ReplicaSet."""

    def __init__(self, controllers: ControllerSet) -> None:
        self._clock = controllers.clock
        self._sets = controllers.informer(REPLICA_SET)
        self._pods = controllers.informer(POD)
        self._pods.add_index("controller", controller_uid)
        self._pods.add_index("orphans", orphan_namespace)
        self._control = PodControl(self._pods, controllers.recorder("replicaset-controller"))
        controllers.add(
            Controller("replicaset", REPLICA_SET, self.reconcile, owns=[POD], maps=[(POD, self._for_orphan)], workers=4)
        )

    def _for_orphan(self, pod: Object) -> list[Key]:
        if controller_of(pod) is not None or is_terminating(pod):
            return []
        labels = pod["metadata"].get("labels")
        if not labels:
            return []
        sets = self._sets.list(pod["metadata"]["namespace"])
        return [key_of(rs) for rs in sets if matches(rs["spec"].get("selector"), labels)]

    async def reconcile(self, key: Key) -> Result:
        rs = self._sets.get(*key)
        if rs is None:
            return DONE
        deleting = "deletionTimestamp" in rs["metadata"]
        candidates = self._pods.by_index("controller", rs["metadata"]["uid"])
        candidates += self._pods.by_index("orphans", key.namespace)
        pods = await claim(self._pods, POD, rs, candidates, may_adopt=not deleting)
        failure: errors.ApiError | None = None
        if not deleting:
            try:
                await self._scale(rs, plan(rs["spec"].get("replicas", 1), pods, self._clock.time()))
            except errors.ApiError as error:
                failure = error
            candidates = self._pods.by_index("controller", rs["metadata"]["uid"])
            pods = [p for p in candidates if matches(rs["spec"].get("selector"), p["metadata"].get("labels"))]
        now = self._clock.time()
        reason = f"FailedCreate:{failure}" if failure else ""
        await write_status(self._sets, REPLICA_SET, rs, status_of(rs, pods, now, reason))
        if failure is not None:
            raise failure
        return Result(_next_availability(rs, pods, now))

    async def _scale(self, rs: Object, wanted: Plan) -> None:
        reference = owner_reference(rs)
        pod = from_template(rs["spec"]["template"], rs, reference, rs["metadata"]["name"])
        await slow_start([partial(self._create, pod, rs)] * wanted.create)
        await slow_start([partial(self._control.delete, victim, rs) for victim in wanted.delete])

    async def _create(self, pod: Object, rs: Object) -> None:
        await self._control.create(pod, rs)


def _next_availability(rs: Object, pods: list[Object], now: float) -> float | None:
    """Seconds until a ready Pod has been so for minReadySeconds."""
    min_ready = rs["spec"].get("minReadySeconds", 0)
    waits = [pod_ready_since(p) + min_ready - now for p in pods if is_active(p) and is_ready(p)] if min_ready else []
    return min((wait for wait in waits if wait > 0), default=None)
