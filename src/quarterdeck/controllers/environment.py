"""Namespaces labelled with an environment: their Pods accept no connections from other environments."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.errors import NotFound
from quarterdeck.kube import resource as k
from quarterdeck.kube.apply import apply_if_changed
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.owner import is_controlled_by
from quarterdeck.kube.resource import Key
from quarterdeck.translate.network import ENVIRONMENT, ENVIRONMENT_POLICY, environment_policy
from quarterdeck.translate.options import NetworkPolicies

from .context import Context


def controller(context: Context, settings: NetworkPolicies) -> Controller:
    return Controller(
        "environment",
        k.NAMESPACE,
        EnvironmentReconciler(context, settings).reconcile,
        owns=(k.NETWORK_POLICY,),
        workers=1,
    )


@dataclass(slots=True)
class EnvironmentReconciler:
    context: Context
    settings: NetworkPolicies

    async def reconcile(self, key: Key) -> Result | None:
        """The key of a Namespace has no namespace itself; one of its policy's owner has, and the same name."""
        namespace = self.context.primary(k.NAMESPACE, Key("", key.name))
        if namespace is None:
            return None
        live = self.context.get(k.NETWORK_POLICY, key.name, ENVIRONMENT_POLICY)
        if live is not None and not is_controlled_by(live, namespace):
            self.context.event(
                namespace, "Warning", "NameConflict",
                f"NetworkPolicy {key.name}/{ENVIRONMENT_POLICY} exists and is not ours: label {ENVIRONMENT} is without "
                "effect; rename that policy",
            )  # fmt: skip
            return None
        desired = environment_policy(namespace, self.settings)
        if desired is not None:
            written = await apply_if_changed(self.context.set.client, k.NETWORK_POLICY, desired, live)
            if written is not None:
                self.context.set.informer(k.NETWORK_POLICY).observe(written)
        elif live is not None:
            try:
                uid = live["metadata"]["uid"]
                await self.context.set.client.delete(k.NETWORK_POLICY, ENVIRONMENT_POLICY, key.name, uid=uid)
            except NotFound:
                return None
        return None
