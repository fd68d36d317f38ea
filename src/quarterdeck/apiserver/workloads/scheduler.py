"""Binds pending Pods to Nodes: readiness, node selector and required affinity, taints, requested resources.

One pass per Pod; among fitting Nodes the one with the most free CPU and memory wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from quarterdeck import errors
from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.conditions import condition_is, get_condition, set_condition
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.quantity import parse_quantity
from quarterdeck.kube.resource import NODE, POD, Key, Object, key_of

from .pods import is_finished, matches

SCHEDULER = "default-scheduler"
_RETRY = 30.0
Amounts = dict[str, Decimal]


def requests_of(pod: Object) -> Amounts:
    """What a Pod asks for: the sum over containers, or one larger init container, plus overhead and 1 Pod."""
    spec = pod.get("spec") or {}
    total: Amounts = {}
    for container in spec.get("containers") or ():
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, Decimal(0)) + parse_quantity(value)
    for container in spec.get("initContainers") or ():
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            amount = parse_quantity(value)
            always = container.get("restartPolicy") == "Always"
            total[name] = total.get(name, Decimal(0)) + amount if always else max(total.get(name, amount), amount)
    total["pods"] = Decimal(1)
    return total


def tolerates(tolerations: Sequence[Mapping[str, Any]], taint: Mapping[str, Any]) -> bool:
    for t in tolerations:
        if t.get("effect") and t["effect"] != taint.get("effect"):
            continue
        if t.get("key") and t["key"] != taint["key"]:
            continue
        exists = t.get("operator") == "Exists"
        if exists or (t.get("key") and t.get("value", "") == taint.get("value", "")):
            return True
    return False


def _affinity_matches(pod: Object, node: Object) -> bool:
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not affinity:
        return True
    labels = node["metadata"].get("labels") or {}
    name = {"metadata.name": node["metadata"]["name"]}
    for term in affinity.get("nodeSelectorTerms") or ():
        by_label = matches({"matchExpressions": term.get("matchExpressions") or []}, labels)
        by_field = matches({"matchExpressions": term.get("matchFields") or []}, name)
        if by_label and by_field:
            return True
    return False


def unfit(pod: Object, node: Object, used: Amounts) -> list[str]:
    """Why the Node cannot take the Pod, in upstream's words; empty when it can."""
    spec = node.get("spec") or {}
    tolerations = pod["spec"].get("tolerations") or ()
    if spec.get("unschedulable") and not tolerates(
        tolerations, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    ):
        return ["node(s) were unschedulable"]
    for taint in spec.get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
            return [f"node(s) had untolerated taint(s) {{{taint['key']}: {taint.get('value', '')}}}"]
    if not condition_is((node.get("status") or {}).get("conditions"), "Ready"):
        return ["node(s) were not ready"]
    labels = node["metadata"].get("labels") or {}
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(k) != v for k, v in selector.items()) or not _affinity_matches(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    missing: list[str] = []
    for name, amount in requests_of(pod).items():
        if amount and name in allocatable and used.get(name, Decimal(0)) + amount > parse_quantity(allocatable[name]):
            missing.append("Too many pods" if name == "pods" else f"Insufficient {name}")
        elif amount and name not in allocatable and name not in ("pods", "cpu", "memory", "ephemeral-storage"):
            missing.append(f"Insufficient {name}")
    return missing


def choose(pod: Object, nodes: Sequence[Object], used: Mapping[str, Amounts]) -> tuple[str | None, str]:
    """The Node's name, or None and the message of the Unschedulable condition."""
    problems: Counter[str] = Counter()
    fitting: list[tuple[Decimal, str]] = []
    for node in nodes:
        name = node["metadata"]["name"]
        reasons = unfit(pod, node, used.get(name, {}))
        problems.update(reasons)
        if not reasons:
            fitting.append((_load(node, used.get(name, {})), name))
    if fitting:
        return min(fitting)[1], ""
    if not nodes:
        return None, "no nodes available to schedule pods"
    detail = ", ".join(sorted(f"{count} {reason}" for reason, count in problems.items()))
    return None, f"0/{len(nodes)} nodes are available: {detail}."


def _load(node: Object, used: Amounts) -> Decimal:
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    load = Decimal(0)
    for name in ("cpu", "memory"):
        if name in allocatable and parse_quantity(allocatable[name]):
            load += used.get(name, Decimal(0)) / parse_quantity(allocatable[name])
    return load


class Scheduler:
    def __init__(self, controllers: ControllerSet) -> None:
        self._client = controllers.client
        self._clock = controllers.clock
        self._recorder = controllers.recorder(SCHEDULER)
        self._pods = controllers.informer(POD)
        self._nodes = controllers.informer(NODE)
        self._pods.add_index("node", node_of)
        # One worker: each decision must see the Pods bound by the one before.
        controllers.add(Controller("scheduler", POD, self.reconcile, maps=[(NODE, self._pending)], workers=1))

    def _pending(self, _: Object) -> list[Key]:
        return [key_of(pod) for pod in self._pods.by_index("node", "")]

    async def reconcile(self, key: Key) -> Result:
        pod = self._pods.get(*key)
        if pod is None or not _needs_node(pod):
            return DONE
        node, problem = choose(pod, self._nodes.list(), self._used())
        if node is None:
            await self._refuse(pod, problem)
            return Result(_RETRY)
        metadata = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._client.create(POD, binding, name=metadata["name"], subresource="binding")
        except errors.NotFound:
            return DONE
        self._pods.observe(await self._client.get(POD, metadata["name"], metadata["namespace"]))
        text = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node}"
        self._recorder.event(pod, "Normal", "Scheduled", text)
        return DONE

    def _used(self) -> dict[str, Amounts]:
        used: dict[str, Amounts] = {}
        for node in self._nodes.list():
            amounts = used.setdefault(node["metadata"]["name"], {})
            for pod in self._pods.by_index("node", node["metadata"]["name"]):
                for name, value in requests_of(pod).items():
                    amounts[name] = amounts.get(name, Decimal(0)) + value
        return used

    async def _refuse(self, pod: Object, message: str) -> None:
        conditions = (pod.get("status") or {}).get("conditions")
        current = get_condition(conditions, "PodScheduled")
        if current is not None and current.get("message") == message:
            return
        now = timestamp(self._clock.time())
        changed = set_condition(conditions, "PodScheduled", "False", "Unschedulable", message, None, now)
        metadata = pod["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {"conditions": changed}}
        patched = await self._client.patch(POD, metadata["name"], body, metadata["namespace"], subresource="status")
        self._pods.observe(patched)
        self._recorder.event(pod, "Warning", "FailedScheduling", message)


def node_of(pod: Object) -> list[str]:
    """Index function: the Node of an unfinished Pod, empty while it has none."""
    return [] if is_finished(pod) else [(pod.get("spec") or {}).get("nodeName", "")]


def _needs_node(pod: Object) -> bool:
    spec = pod.get("spec") or {}
    return (
        not spec.get("nodeName")
        and not is_finished(pod)
        and "deletionTimestamp" not in pod["metadata"]
        and not spec.get("schedulingGates")
        and spec.get("schedulerName", SCHEDULER) == SCHEDULER
    )
