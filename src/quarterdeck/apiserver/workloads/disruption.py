"""PodDisruptionBudget.status: how many Pods may be evicted now."""

from __future__ import annotations

from collections.abc import Sequence

from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.conditions import set_condition
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.resource import PDB, POD, Key, Object, key_of

from .control import write_status
from .pods import is_active, is_finished, is_ready, matches
from .rollout import int_or_percent


def status_of(pdb: Object, pods: Sequence[Object], now: str) -> Object:
    """``pods``: those the selector matches. Expected is their number: scale subresources of owners are not asked."""
    spec = pdb["spec"]
    expected = sum(not is_finished(pod) for pod in pods)
    healthy = sum(is_active(pod) and is_ready(pod) for pod in pods)
    if spec.get("maxUnavailable") is not None:
        wanted = max(0, expected - int_or_percent(spec["maxUnavailable"], expected, up=True))
    else:
        wanted = int_or_percent(spec.get("minAvailable", 1), expected, up=True)
    allowed = max(0, healthy - wanted) if expected else 0
    reason = "SufficientPods" if allowed else "InsufficientPods"
    generation = pdb["metadata"].get("generation", 0)
    conditions = (pdb.get("status") or {}).get("conditions")
    return {
        "observedGeneration": generation,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": wanted,
        "expectedPods": expected,
        "conditions": set_condition(
            conditions, "DisruptionAllowed", "True" if allowed else "False", reason, "", generation, now
        ),
    }


class DisruptionBudgets:
    def __init__(self, controllers: ControllerSet) -> None:
        self._clock = controllers.clock
        self._budgets = controllers.informer(PDB)
        self._pods = controllers.informer(POD)
        self._pods.add_index("namespace", lambda pod: [pod["metadata"]["namespace"]])
        controllers.add(Controller("disruption", PDB, self.reconcile, maps=[(POD, self._for_pod)], workers=1))

    def _for_pod(self, pod: Object) -> list[Key]:
        labels = pod["metadata"].get("labels")
        budgets = self._budgets.list(pod["metadata"]["namespace"])
        return [key_of(pdb) for pdb in budgets if matches(pdb["spec"].get("selector"), labels)]

    async def reconcile(self, key: Key) -> Result:
        pdb = self._budgets.get(*key)
        if pdb is None:
            return DONE
        selector = pdb["spec"].get("selector")
        nearby = self._pods.by_index("namespace", key.namespace)
        pods = [pod for pod in nearby if matches(selector, pod["metadata"].get("labels"))]
        await write_status(self._budgets, PDB, pdb, status_of(pdb, pods, timestamp(self._clock.time())))
        return DONE
