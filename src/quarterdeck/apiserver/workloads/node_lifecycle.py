"""Nodes that stopped reporting: conditions turn Unknown, their Pods not ready, taints follow, and later eviction."""

from __future__ import annotations

from quarterdeck import errors
from quarterdeck.kube.clock import parse_timestamp, timestamp
from quarterdeck.kube.conditions import Condition, condition_is, get_condition
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.resource import LEASE, NODE, POD, Key, Object

from .pods import is_finished
from .scheduler import node_of, tolerates

GRACE = 50.0
_DEFAULT_TOLERATION = 300.0
_LEASES = "kube-node-lease"
_TYPES = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_MESSAGE = "Kubelet stopped posting node status."
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"


def unknown_conditions(conditions: list[Condition], now: str) -> list[Condition]:
    """The node's conditions once nothing was heard from it."""
    result: list[Condition] = []
    for kind in _TYPES:
        old = get_condition(conditions, kind)
        if old is None and kind != "Ready":
            continue
        old = old or {"type": kind, "lastHeartbeatTime": now}
        if old.get("status") == "Unknown":
            result.append(old)
            continue
        result.append(
            old | {"status": "Unknown", "reason": "NodeStatusUnknown", "message": _MESSAGE, "lastTransitionTime": now}
        )
    return result + [c for c in conditions if c["type"] not in _TYPES]


def wanted_taints(node: Object, now: str) -> list[Object]:
    """The node's taints with those that follow from its Ready condition."""
    ready = get_condition((node.get("status") or {}).get("conditions"), "Ready")
    status = ready["status"] if ready else "Unknown"
    key = {"True": "", "False": NOT_READY}.get(status, UNREACHABLE)
    current: list[Object] = (node.get("spec") or {}).get("taints") or []
    ours = (NOT_READY, UNREACHABLE)
    taints = [t for t in current if t["key"] not in ours]
    for effect in ("NoSchedule", "NoExecute") if key else ():
        known = next((t for t in current if t["key"] == key and t["effect"] == effect), None)
        fresh = {"key": key, "effect": effect}
        taints.append(known or (fresh | {"timeAdded": now} if effect == "NoExecute" else fresh))
    return taints


def eviction_delay(pod: Object, taint: Object, now: float) -> float | None:
    """Seconds until the taint evicts the Pod (≤ 0: now), None when it never does."""
    matching = [t for t in pod["spec"].get("tolerations") or () if tolerates([t], taint)]
    since = parse_timestamp(taint["timeAdded"]) if taint.get("timeAdded") else now
    if not matching:
        # Without the DefaultTolerationSeconds admission a Pod has no toleration: use what it would have been given.
        return since + _DEFAULT_TOLERATION - now
    limits = [t["tolerationSeconds"] for t in matching if t.get("tolerationSeconds") is not None]
    return since + max(0, min(limits)) - now if limits else None


class NodeLifecycle:
    """``grace``: seconds without a renewed Lease (or status heartbeat) after which a Node is Unknown."""

    def __init__(self, controllers: ControllerSet, *, grace: float = GRACE) -> None:
        self._client = controllers.client
        self._clock = controllers.clock
        self._grace = grace
        self._recorder = controllers.recorder("node-controller")
        self._nodes = controllers.informer(NODE)
        self._leases = controllers.informer(LEASE, _LEASES)
        self._pods = controllers.informer(POD)
        self._pods.add_index("node", node_of)
        # By our own clock, since the machine's may have jumped: when did we last see a new heartbeat?
        self._heard: dict[str, tuple[str, float]] = {}
        controllers.add(Controller("nodelifecycle", NODE, self.reconcile, workers=1))

    async def reconcile(self, key: Key) -> Result:
        node = self._nodes.get(None, key.name)
        if node is None:
            self._heard.pop(key.name, None)
            await self._collect_pods(key.name)
            return DONE
        silent = self._silence(node)
        if silent >= self._grace:
            node = await self._mark_unknown(node)
        await self._taint(node)
        next_eviction = await self._evict(node)
        wait = max(self._grace - silent, 0) if silent < self._grace else self._grace / 10
        return Result(min(wait + 0.1, next_eviction) if next_eviction is not None else wait + 0.1)

    def _silence(self, node: Object) -> float:
        name = node["metadata"]["name"]
        lease = self._leases.get(_LEASES, name) or {}
        ready = get_condition((node.get("status") or {}).get("conditions"), "Ready") or {}
        beat = f"{(lease.get('spec') or {}).get('renewTime')} {ready.get('lastHeartbeatTime')}"
        known = self._heard.get(name)
        if known is None or known[0] != beat:
            self._heard[name] = (beat, self._clock.monotonic())
            return 0.0
        return self._clock.monotonic() - known[1]

    async def _mark_unknown(self, node: Object) -> Object:
        conditions = (node.get("status") or {}).get("conditions") or []
        now = timestamp(self._clock.time())
        changed = unknown_conditions(conditions, now)
        if changed == conditions:
            return node
        metadata = node["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {"conditions": changed}}
        node = await self._client.patch(NODE, metadata["name"], body, subresource="status")
        self._nodes.observe(node)
        # Our own write is no sign of life.
        self._recorder.event(node, "Normal", "NodeNotReady", f"Node {metadata['name']} status is now: NodeNotReady")
        for pod in self._on(metadata["name"]):
            await self._mark_pod(pod, now)
        return node

    async def _mark_pod(self, pod: Object, now: str) -> None:
        conditions = (pod.get("status") or {}).get("conditions") or []
        if not condition_is(conditions, "Ready"):
            return
        changed = [
            c | {"status": "False", "lastTransitionTime": now} if c["type"] in ("Ready", "ContainersReady") else c
            for c in conditions
        ]
        metadata = pod["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {"conditions": changed}}
        try:
            await self._client.patch(POD, metadata["name"], body, metadata["namespace"], subresource="status")
        except errors.NotFound:
            return

    async def _taint(self, node: Object) -> None:
        taints = wanted_taints(node, timestamp(self._clock.time()))
        if taints == ((node.get("spec") or {}).get("taints") or []):
            return
        metadata = node["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": {"taints": taints or None}}
        self._nodes.observe(await self._client.patch(NODE, metadata["name"], body))

    async def _evict(self, node: Object) -> float | None:
        """Delete the Pods whose time on a tainted node is over; seconds until the next one's is."""
        live = self._nodes.get(None, node["metadata"]["name"]) or node
        taints = [t for t in (live.get("spec") or {}).get("taints") or () if t["effect"] == "NoExecute"]
        upcoming: list[float] = []
        for pod in self._on(node["metadata"]["name"]) if taints else ():
            delays = [d for t in taints if (d := eviction_delay(pod, t, self._clock.time())) is not None]
            if delays and min(delays) <= 0:
                await self._delete(pod)
            elif delays:
                upcoming.append(min(delays))
        return min(upcoming, default=None)

    def _on(self, name: str) -> list[Object]:
        pods = self._pods.by_index("node", name)
        return [p for p in pods if not is_finished(p) and "deletionTimestamp" not in p["metadata"]]

    async def _delete(self, pod: Object, grace: int | None = None) -> None:
        metadata = pod["metadata"]
        try:
            await self._client.delete(
                POD, metadata["name"], metadata["namespace"], uid=metadata["uid"], grace_seconds=grace
            )
        except (errors.NotFound, errors.Conflict):
            return
        self._recorder.event(pod, "Normal", "TaintManagerEviction", "Marking for deletion Pod "
                             f"{metadata['namespace']}/{metadata['name']}")  # fmt: skip

    async def _collect_pods(self, name: str) -> None:
        """Pods of a Node that no longer exists will never be stopped by anyone."""
        for pod in self._pods.by_index("node", name):
            await self._delete(pod, grace=0)
