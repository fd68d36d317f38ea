"""Deployment rollouts as arithmetic: which ReplicaSet gets how many replicas next. Pure; upstream's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Any

from quarterdeck.kube.resource import Object

from .pods import created, stable_hash

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"
_NOT_COPIED = frozenset({
    "kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MAX,
    "deprecated.deployment.rollback.to", "quarterdeck.dev/applied-hash",
})  # fmt: skip


def int_or_percent(value: int | str | None, total: int, *, up: bool) -> int:
    """An IntOrString against ``total``."""
    if isinstance(value, str) and value.endswith("%"):
        exact = int(value[:-1]) * total / 100
        return ceil(exact) if up else floor(exact)
    return int(value or 0)


def fenceposts(deployment: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as numbers of Pods; never both 0, or nothing could move."""
    spec = deployment["spec"]
    if is_recreate(deployment):
        return 0, 0
    total = desired(deployment)
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    surge = int_or_percent(rolling.get("maxSurge", "25%"), total, up=True)
    unavailable = int_or_percent(rolling.get("maxUnavailable", "25%"), total, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, total)


def is_recreate(deployment: Object) -> bool:
    return (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"


def desired(deployment: Object) -> int:
    return deployment["spec"].get("replicas", 1)


def replicas(rs: Object) -> int:
    return rs["spec"].get("replicas", 1)


def available(rs: Object) -> int:
    return (rs.get("status") or {}).get("availableReplicas", 0)


def template_of(obj: Object) -> Object:
    """The pod template without the hash label and without empty fields, for comparison."""
    template = deepcopy(obj["spec"].get("template") or {})
    ((template.get("metadata") or {}).get("labels") or {}).pop(HASH_LABEL, None)
    return _compact(template)


def _compact(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: c for k, v in value.items() if (c := _compact(v)) not in (None, {}, [])}
    return [_compact(v) for v in value] if isinstance(value, list) else value


def find_new(deployment: Object, sets: Sequence[Object]) -> Object | None:
    """The ReplicaSet of the current template; the oldest if several."""
    template = template_of(deployment)
    for rs in sorted(sets, key=lambda rs: (created(rs), rs["metadata"]["name"])):
        if template_of(rs) == template:
            return rs
    return None


def revision(obj: Object) -> int:
    text = (obj["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def new_replica_set(deployment: Object, reference: Object) -> Object:
    """The ReplicaSet for the current template, with 0 replicas."""
    spec, metadata = deployment["spec"], deployment["metadata"]
    digest = stable_hash(template_of(deployment), (deployment.get("status") or {}).get("collisionCount"))
    template = deepcopy(spec["template"])
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest}
    template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
    selector = deepcopy(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}
    rs_spec: Object = {"replicas": 0, "selector": selector, "template": template}
    if spec.get("minReadySeconds"):
        rs_spec["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{metadata['name']}-{digest}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [reference],
        },
        "spec": rs_spec,
    }


def rs_annotations(deployment: Object, rs: Object, new_revision: int) -> dict[str, str]:
    """The annotations the new ReplicaSet should have: the Deployment's, its own, and its revision."""
    own: dict[str, str] = rs["metadata"].get("annotations") or {}
    copied: Mapping[str, str] = deployment["metadata"].get("annotations") or {}
    merged = {**own, **{key: value for key, value in copied.items() if key not in _NOT_COPIED}}
    old = revision(rs)
    if old < new_revision:
        if old:
            history = merged.get(REVISION_HISTORY)
            merged[REVISION_HISTORY] = f"{history},{old}" if history else str(old)
        merged[REVISION] = str(new_revision)
    return merged


def size_annotations(deployment: Object) -> dict[str, str]:
    surge, _ = fenceposts(deployment)
    return {DESIRED: str(desired(deployment)), MAX: str(desired(deployment) + surge)}


@dataclass(slots=True)
class Scaling:
    """New sizes by ReplicaSet name; ``sizes`` holds only those that change."""

    sizes: dict[str, int] = field(default_factory=dict)

    def of(self, rs: Object) -> int:
        return self.sizes.get(rs["metadata"]["name"], replicas(rs))

    def set(self, rs: Object, count: int) -> None:
        if count == replicas(rs):
            self.sizes.pop(rs["metadata"]["name"], None)
        else:
            self.sizes[rs["metadata"]["name"]] = count


def is_scaling_event(deployment: Object, sets: Sequence[Object]) -> bool:
    """Whether ``spec.replicas`` changed since a live ReplicaSet was sized."""
    for rs in sets:
        sized_for = (rs["metadata"].get("annotations") or {}).get(DESIRED)
        if replicas(rs) > 0 and sized_for is not None and sized_for != str(desired(deployment)):
            return True
    return False


def roll(deployment: Object, new: Object, old: Sequence[Object]) -> Scaling:
    """One step of a RollingUpdate: grow the new set within maxSurge, else shrink old ones within maxUnavailable."""
    surge, unavailable = fenceposts(deployment)
    want = desired(deployment)
    scaling = Scaling()
    total = replicas(new) + sum(map(replicas, old))
    if replicas(new) > want:
        scaling.set(new, want)
    elif replicas(new) < want and total < want + surge:
        scaling.set(new, replicas(new) + min(want + surge - total, want - replicas(new)))
    if scaling.sizes:
        return scaling
    _shrink_old(scaling, want - unavailable, new, old, total)
    return scaling


def _shrink_old(scaling: Scaling, min_available: int, new: Object, old: Sequence[Object], total: int) -> None:
    new_unavailable = replicas(new) - available(new)
    budget = total - min_available - new_unavailable
    if budget <= 0:
        return
    ordered = sorted(old, key=lambda rs: (created(rs), rs["metadata"]["name"]))
    for rs in ordered:  # Pods that do not work go first: losing them costs nothing
        unhealthy = replicas(rs) - available(rs)
        gone = max(0, min(budget, unhealthy))
        if gone:
            scaling.set(rs, replicas(rs) - gone)
            budget -= gone
    spare = available(new) + sum(map(available, old)) - min_available
    for rs in ordered:
        gone = max(0, min(spare, scaling.of(rs)))
        if gone:
            scaling.set(rs, scaling.of(rs) - gone)
            spare -= gone


def recreate(deployment: Object, new: Object | None, old: Sequence[Object], old_pods_left: bool) -> Scaling:
    """Recreate: old sets to 0, and only when their Pods are gone the new one to full size."""
    scaling = Scaling()
    for rs in old:
        scaling.set(rs, 0)
    if not scaling.sizes and not old_pods_left and new is not None:
        scaling.set(new, desired(deployment))
    return scaling


def resize(deployment: Object, new: Object | None, old: Sequence[Object]) -> Scaling:
    """After a change of ``spec.replicas`` (or while paused): spread it over the live sets in proportion."""
    scaling = Scaling()
    want = desired(deployment)
    live = [rs for rs in (*old, *([new] if new is not None else [])) if replicas(rs) > 0]
    if len(live) <= 1:
        latest = new if new is not None and not live else (live[0] if live else None)
        if latest is not None:
            scaling.set(latest, want)
        return scaling
    if new is not None and replicas(new) == want and available(new) == want:
        for rs in old:  # saturated: the old ones are only leftovers
            scaling.set(rs, 0)
        return scaling
    if is_recreate(deployment):
        return scaling
    if want == 0:
        for rs in live:
            scaling.set(rs, 0)
        return scaling
    surge, _ = fenceposts(deployment)
    allowed = want + surge
    _spread(scaling, deployment, live, allowed - sum(map(replicas, live)))
    return scaling


def _spread(scaling: Scaling, deployment: Object, live: list[Object], change: int) -> None:
    """Largest sets first; of equals the newer when growing, the older when shrinking; the rest to the first."""
    sign = -1 if change > 0 else 1
    ordered = sorted(live, key=lambda rs: (-replicas(rs), sign * created(rs), rs["metadata"]["name"]))
    surge, _ = fenceposts(deployment)
    left = change
    for rs in ordered:
        annotations = rs["metadata"].get("annotations") or {}
        was = int(annotations.get(MAX, "0")) or sum(map(replicas, live))
        exact = replicas(rs) * (desired(deployment) + surge) / was - replicas(rs)
        share = floor(exact + 0.5) if exact >= 0 else -floor(-exact + 0.5)
        share = min(share, left) if change > 0 else max(share, left)
        if (change > 0) != (share > 0):
            share = 0
        scaling.set(rs, max(0, replicas(rs) + share))
        left -= share
    if left:
        scaling.set(ordered[0], max(0, scaling.of(ordered[0]) + left))


def surplus_history(deployment: Object, old: Sequence[Object]) -> list[Object]:
    """Old, empty ReplicaSets beyond ``revisionHistoryLimit``, oldest revision first."""
    limit = deployment["spec"].get("revisionHistoryLimit", 10)
    idle = [rs for rs in old if "deletionTimestamp" not in rs["metadata"]]
    idle.sort(key=lambda rs: (revision(rs), created(rs)))
    surplus = idle[: max(0, len(idle) - limit)]
    return [
        rs
        for rs in surplus
        if replicas(rs) == 0
        and (rs.get("status") or {}).get("replicas", 0) == 0
        and rs["metadata"].get("generation", 0) <= (rs.get("status") or {}).get("observedGeneration", 0)
    ]
