"""Another controller of the same kinds: while kagent's or kmcp's runs, ours keep their hands off and say so.

Two controllers that both own an Agent would undo each other's writes for ever. The gate is level-triggered: it looks
at the Deployments that are there, each time an object is reconciled, and every object is looked at again when one of
those changes. The only thing written meanwhile is the condition ``Paused``, beside what the other one writes.

Whoever may create Deployments in one namespace must not be able to stop us in the others: such a Deployment counts for
the objects of its own namespace, and for those of another only if its ServiceAccount may write them. That takes the
right to ask; with Roles only (``watchNamespaces``) it counts for its own namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice

from quarterdeck.kube import resource as k
from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.conditions import get_condition, remove_condition, set_condition
from quarterdeck.kube.controller import Controller, ControllerSet, Result
from quarterdeck.kube.resource import Key, Object, Resource, key_of

from .write_access import SECONDS, Account, WriteAccess, account_of

PAUSED, REASON = "Paused", "OtherControllerRunning"
_INDEX = "rival"
_MANAGES = {
    "kagent": frozenset(("Agent", "ModelConfig", "ModelProviderConfig", "RemoteMCPServer")),
    "kmcp": frozenset(("MCPServer",)),
}
_ACCOUNTS = 4
"""ServiceAccounts of one namespace that are asked about, oldest Deployment first: a tenant can have any number made."""
_NAME, _COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"


def product_of(deployment: Object) -> str:
    """``kagent`` or ``kmcp`` when the Deployment is the controller of that, by its image or its labels; else empty."""
    pod = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    for container in pod.get("containers") or ():
        repository = str(container.get("image") or "").partition("@")[0]
        *_, product, name = ("", *repository.split("/"))
        if name.partition(":")[0] == "controller" and product in _MANAGES:
            return product
    metadata = deployment["metadata"]
    labels = metadata.get("labels") or {}
    product = str(labels.get(_NAME) or "")
    controls = labels.get(_COMPONENT) == "controller" or "control-plane" in labels
    if product in _MANAGES and (controls or metadata["name"].endswith(("-controller", "-controller-manager"))):
        return product
    return ""


def is_running(deployment: Object) -> bool:
    """Whether it has Pods or is about to: an unset number of replicas is one."""
    wanted = (deployment.get("spec") or {}).get("replicas", 1)
    return wanted > 0 or ((deployment.get("status") or {}).get("replicas") or 0) > 0


@dataclass(slots=True)
class Gate:
    """Between the queues of one ControllerSet and its reconcilers."""

    set: ControllerSet
    _access: WriteAccess = field(init=False)

    def __post_init__(self) -> None:
        self._access = WriteAccess(self.set.client, self.set.clock.monotonic)
        self.set.informer(k.DEPLOYMENT).add_index(_INDEX, lambda obj: {product} if (product := product_of(obj)) else ())

    def guard(self, controller: Controller) -> Controller:
        """The controller, held back while a rival of its kind runs."""
        products = {product for product, kinds in _MANAGES.items() if controller.primary.kind in kinds}
        reconcile = controller.reconcile

        async def guarded(key: Key) -> Result | None:
            others = self.running(controller.primary.kind)
            found = await self.rival(others, controller.primary, key.namespace or "")
            result = await reconcile(key) if await self._say(controller.primary, key, found) else None
            asks = others and not self.set.namespaces
            if not asks or self.set.informer(controller.primary).get(key.namespace, key.name) is None:
                return result
            return _within(SECONDS, result)  # nobody tells when a ServiceAccount gains or loses rights

        def everything(deployment: Object) -> Iterable[Key]:
            if product_of(deployment) not in products:
                return []
            return [key_of(obj) for obj in self.set.informer(controller.primary).list()]

        return replace(controller, reconcile=guarded, maps=(*controller.maps, (k.DEPLOYMENT, everything)))

    def running(self, kind: str) -> list[Object]:
        """Deployments that run another controller of ``kind``, oldest first."""
        informer = self.set.informer(k.DEPLOYMENT)
        products = (product for product, kinds in _MANAGES.items() if kind in kinds)
        running = [d for product in products for d in informer.by_index(_INDEX, product) if is_running(d)]
        return sorted(running, key=_age)

    async def rival(self, running: list[Object], res: Resource, namespace: str) -> Object | None:
        """The one of them that looks after objects of ``namespace``."""
        for deployment in running:
            if deployment["metadata"]["namespace"] == namespace:
                return deployment
        if self.set.namespaces:
            return None
        for account, deployment in _accounts(running):
            if await self._access.allowed(account, res, namespace):
                return deployment
        return None

    async def _say(self, res: Resource, key: Key, rival: Object | None) -> bool:
        """Have the condition as it should be; whether the object may be reconciled now."""
        informer = self.set.informer(res)
        obj = informer.get(key.namespace, key.name)
        if obj is None:
            return rival is None
        conditions = list((obj.get("status") or {}).get("conditions") or ())
        old = get_condition(conditions, PAUSED)
        if rival is None and old is None:
            return True
        wanted = remove_condition(conditions, PAUSED)
        if rival is not None:
            message = explanation(rival, res.kind)
            if old is not None and old.get("message") == message:
                return False
            now, generation = timestamp(self.set.clock.time()), obj["metadata"].get("generation", 1)
            wanted = set_condition(conditions, PAUSED, "True", REASON, message, generation, now)
        # The whole list, and only onto the version that was looked at: the other one's conditions are in it, and in
        # its definitions the list has no keys to merge by.
        metadata = obj["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {"conditions": wanted}}
        informer.observe(
            await self.set.client.patch(
                res, key.name, body, key.namespace, subresource="status", field_manager="quarterdeck"
            )
        )
        if rival is not None and old is None:
            told = {"apiVersion": res.api_version, "kind": res.kind} | obj
            self.set.recorder("quarterdeck").event(told, "Warning", REASON, explanation(rival, res.kind))
        return rival is None


def _age(deployment: Object) -> tuple[str, str, str]:
    metadata = deployment["metadata"]
    return metadata.get("creationTimestamp") or "", metadata["namespace"], metadata["name"]


def _accounts(running: Iterable[Object]) -> Iterable[tuple[Account, Object]]:
    """Each ServiceAccount with the first Deployment that runs as it, a few of each namespace."""
    found: dict[str, dict[Account, Object]] = {}
    for deployment in running:
        account = account_of(deployment)
        found.setdefault(account.namespace, {}).setdefault(account, deployment)
    return [pair for accounts in found.values() for pair in islice(accounts.items(), _ACCOUNTS)]


def _within(seconds: float, result: Result | None) -> Result:
    """The result, with another look no later than that."""
    asked = result.requeue_after if result is not None else None
    return Result(seconds if asked is None else min(asked, seconds))


def explanation(rival: Object, kind: str) -> str:
    """What the condition says, with the next step."""
    name, namespace = rival["metadata"]["name"], rival["metadata"]["namespace"]
    product = product_of(rival)
    return (
        f"Deployment {namespace}/{name} runs {product}'s controller, which manages {kind}s too; nothing is done here "
        f"until it is gone: `qd migrate kagent` prepares its removal, "
        f"`kubectl scale deploy {name} -n {namespace} --replicas=0` stops it"
    )
