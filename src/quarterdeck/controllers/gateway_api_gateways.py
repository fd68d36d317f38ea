"""GatewayClass and Gateway: the classes are ours, and each Gateway becomes a Deployment and Service of its name."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field, replace
from functools import partial
from os import urandom

from quarterdeck.errors import AlreadyExists, ApiError, ConfigError, NotFound
from quarterdeck.kube import resource as k
from quarterdeck.kube.apply import apply_status_if_changed
from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object
from quarterdeck.resources.base import parse
from quarterdeck.resources.gateway_api import AGENTGATEWAY_CLASS, CLASS, CONTROLLER, GROUP
from quarterdeck.resources.gateway_api.gateway import GatewaySpec
from quarterdeck.translate.gateway_api.compile import Served
from quarterdeck.translate.gateway_api.features import FEATURES
from quarterdeck.translate.gateway_api.status import (
    GatewayStatus,
    ListenerStatus,
    Verdict,
    accepted,
    conditions_of,
)
from quarterdeck.translate.gateway_api.workload import KEY_FILE, admission, dedicated, key_name, shared

from .context import Context
from .gateway_api import GatewayApi, Replica

_UNHEARD, _UNHEARD_ANEW = 5.0, 30.0
"""Seconds after which a Deployment that is ready counts as an acknowledgement, where no replica was heard yet, and
where some were, of earlier generations: another replica of the control plane may have got the words."""


def controllers(context: Context, api: GatewayApi) -> list[Controller]:
    gateways = Controller(
        "gateway",
        k.GATEWAY,
        GatewayReconciler(context, api).reconcile,
        owns=(k.DEPLOYMENT, k.SERVICE),
        reads=(k.SERVICE_ACCOUNT, k.SECRET, k.ENDPOINT_SLICE, k.NETWORK_POLICY, k.POD, k.NAMESPACE),
        workers=4,
    )
    if "classes" not in api.sources:
        return [gateways]
    context.set.add_loop("gateway classes", partial(_want_classes, context))
    classes = Controller("gatewayclass", k.GATEWAY_CLASS, ClassReconciler(context).reconcile, workers=1)
    return [classes, replace(gateways, reads=(*gateways.reads, k.GATEWAY_CLASS))]


async def _want_classes(context: Context) -> None:
    """Ask for the two classes as soon as the cluster knows the kind."""
    await context.set.informer(k.GATEWAY_CLASS).synced.wait()
    for name in (CLASS, AGENTGATEWAY_CLASS):
        context.set.enqueue("gatewayclass", Key("", name))
    await asyncio.Event().wait()


@dataclass(slots=True)
class ClassReconciler:
    """The two classes exist; those that are ours are accepted."""

    context: Context

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.GATEWAY_CLASS, key)
        if obj is None:
            if key.name in (CLASS, AGENTGATEWAY_CLASS) and self.context.get(k.GATEWAY_CLASS, "", key.name) is None:
                await self._create(key.name)
            return None
        if (obj.get("spec") or {}).get("controllerName") != CONTROLLER:
            return None
        generation = int(obj["metadata"].get("generation") or 1)
        before: Object = obj.get("status") or {}
        verdicts = [
            accepted("Handled by Quarterdeck"),
            Verdict("SupportedVersion", "True", "SupportedVersion", "Gateway API of this cluster is understood"),
        ]
        now = timestamp(self.context.set.clock.time())
        status = {
            "conditions": conditions_of(before.get("conditions") or [], verdicts, generation, now),
            "supportedFeatures": [{"name": name} for name in FEATURES],
        }
        await write_status(self.context, k.GATEWAY_CLASS, obj, status)
        return None

    async def _create(self, name: str) -> None:
        body = {
            "apiVersion": k.GATEWAY_CLASS.api_version,
            "kind": "GatewayClass",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "quarterdeck"}},
            "spec": {
                "controllerName": CONTROLLER,
                "description": "MCP servers, agents and HTTP services by Quarterdeck",
            },
        }
        try:
            await self.context.set.client.create(k.GATEWAY_CLASS, body)
        except AlreadyExists:
            return  # of another controller, or the cache is behind


async def write_status(context: Context, res: k.Resource, obj: Object, status: Object) -> None:
    """The whole status, unless it is so already or the object is gone."""
    try:
        written = await apply_status_if_changed(context.set.client, res, obj, status)
    except NotFound:
        return
    if written is not None:
        context.set.informer(res).observe(written)


@dataclass(slots=True)
class GatewayReconciler:
    """Objects of a Gateway, its addresses and its conditions."""

    context: Context
    api: GatewayApi
    waiting: dict[tuple[Key, int], float] = field(default_factory=dict[tuple[Key, int], float])
    """Since when a generation waits for the words of a replica (monotonic)."""

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.GATEWAY, key)
        if obj is None:
            self.waiting = {slot: since for slot, since in self.waiting.items() if slot[0] != key}
            return None
        said = self.api.result.statuses.gateways.get((key.namespace, key.name))
        if said is None:
            await self._leave(obj)
            return None
        part = self.api.result.gateways.get((key.namespace, key.name))
        trouble = Verdict("Programmed", "False", "Invalid", "The Gateway is not accepted")
        addresses: list[str] = []
        again: Result | None = None
        if part is not None and said.verdicts[0].status == "True":
            spec = parse(GatewaySpec, obj.get("spec") or {}, f"Gateway {key}")
            try:
                await self._apply(obj, spec, part)
            except (ConfigError, ApiError) as error:
                failed = self.context.not_programmed(obj, error)
                trouble = Verdict("Programmed", "False", failed.reason, failed.message)
            else:
                addresses = self._addresses(key)
                trouble, again = self._programmed(obj, addresses, said)
        await self._write(obj, said, trouble, addresses)
        return again

    async def _leave(self, obj: Object) -> None:
        """What was made for a Gateway goes when it is given to another controller; while nobody has its class, or
        before the first compilation, it stays."""
        owner = self.api.owner_of_class(str((obj.get("spec") or {}).get("gatewayClassName")))
        if owner not in ("", CONTROLLER):
            await self.context.remove(obj, (k.DEPLOYMENT, k.SERVICE, k.NETWORK_POLICY))

    async def _apply(self, obj: Object, spec: GatewaySpec, part: Served) -> None:
        """Raises ConfigError (a name is taken) and ApiError."""
        pods = self.api.pods
        if not part.ports:
            return
        if pods.shared:
            await self.context.apply(obj, shared(obj, spec, part.ports, [pods.shared]))
            return
        policed = self.context.options.network_policies is not None
        admitted = admission(obj, spec, part.used) if policed else []
        if not admitted:
            await self.context.remove(obj, (k.NETWORK_POLICY,))
        await self.context.apply(obj, [*dedicated(obj, spec, part.ports, pods, self._key(obj)), *admitted])

    def _key(self, obj: Object) -> str:
        """What its replicas seal sessions with: made once, and kept as it is. Raises NotLoaded."""
        found = self.context.get(k.SECRET, obj["metadata"]["namespace"], key_name(obj))
        known = (found or {}).get("data") or {}
        return str(known.get(KEY_FILE) or "") or base64.b64encode(urandom(32)).decode()

    def _addresses(self, key: Key) -> list[str]:
        """Where clients find it: a load balancer's addresses, else those of its Service."""
        if self.api.pods.shared:
            return [self.api.pods.shared]
        service = self.context.get(k.SERVICE, key.namespace, key.name)
        if service is None:
            return []
        ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        found = [str(entry.get("ip") or entry.get("hostname") or "") for entry in ingress]
        spec = service.get("spec") or {}
        return [a for a in found if a] or [ip for ip in spec.get("clusterIPs") or [] if ip not in ("", "None")]

    def _programmed(self, obj: Object, addresses: list[str], said: GatewayStatus) -> tuple[Verdict, Result | None]:
        """Whether all replicas serve this generation."""
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        if not addresses:
            return Verdict("Programmed", "False", "AddressNotAssigned", "The Service has no address yet"), None
        process = self.api.process_of(namespace, name)
        replicas = self.api.replicas(process)
        generation = int(obj["metadata"].get("generation") or 1)
        refusals = [replica.refused for replica in replicas if replica.refused]
        if refusals:
            return Verdict(
                "Programmed", "False", "Invalid", f"a replica refuses the configuration: {refusals[0]}"
            ), None
        serving = [replica for replica in replicas if replica.serves.get((namespace, name)) == generation]
        problems = [text for replica in serving for text in _problems_of(replica, namespace, name).values()]
        if problems and len(problems) >= len([s for s in said.listeners if s.valid]) * len(serving):
            return Verdict("Programmed", "False", "Invalid", "; ".join(sorted(set(problems)))), None
        if serving and len(serving) == len(replicas):
            text = f"Served at {', '.join(addresses)}" + (f"; {said.notes}" if said.notes else "")
            return Verdict("Programmed", "True", "Programmed", text), None
        before = {c["type"]: c for c in (obj.get("status") or {}).get("conditions") or ()}.get("Programmed", {})
        if before.get("status") == "True" and before.get("observedGeneration") == generation:
            return Verdict("Programmed", "True", str(before["reason"]), str(before.get("message") or "")), None
        patience = _UNHEARD_ANEW if replicas else _UNHEARD
        if self._unheard(Key(namespace, name), generation, process, patience):
            text = f"Served at {', '.join(addresses)}" + (f"; {said.notes}" if said.notes else "")
            return Verdict("Programmed", "True", "Programmed", text), None
        pending = Verdict("Programmed", "False", "Pending", "No gateway serves this configuration yet")
        return pending, Result(_UNHEARD)

    def _unheard(self, key: Key, generation: int, process: str, patience: float) -> bool:
        """Whether Pods that are ready, which none is without a configuration, have long been silent here."""
        deployment = self.context.get(k.DEPLOYMENT, *process.split("/")) or {}
        now = self.context.set.clock.monotonic()
        since = self.waiting.setdefault((key, generation), now)
        return bool((deployment.get("status") or {}).get("readyReplicas")) and now - since >= patience

    async def _write(self, obj: Object, said: GatewayStatus, programmed: Verdict, addresses: list[str]) -> None:
        generation = int(obj["metadata"].get("generation") or 1)
        before: Object = obj.get("status") or {}
        now = timestamp(self.context.set.clock.time())
        old = {entry.get("name"): entry.get("conditions") or [] for entry in before.get("listeners") or ()}
        problems = self._problems(obj)
        listeners = [
            {
                "name": listener.name,
                "supportedKinds": [{"group": GROUP, "kind": kind} for kind in listener.kinds],
                "attachedRoutes": listener.attached,
                "conditions": conditions_of(
                    old.get(listener.name, []),
                    [*listener.verdicts, _of_listener(listener, programmed, problems)],
                    generation,
                    now,
                ),
            }
            for listener in said.listeners
        ]
        status: Object = {
            "conditions": conditions_of(before.get("conditions") or [], [*said.verdicts, programmed], generation, now),
            "listeners": listeners,
        }
        if addresses:
            status["addresses"] = [{"type": _kind_of(address), "value": address} for address in addresses]
        if "attachedListenerSets" in before:
            status["attachedListenerSets"] = before["attachedListenerSets"]
        await write_status(self.context, k.GATEWAY, obj, status)

    def _problems(self, obj: Object) -> dict[str, str]:
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        found: dict[str, str] = {}
        for replica in self.api.replicas(self.api.process_of(namespace, name)):
            found |= _problems_of(replica, namespace, name)
        return found


def _problems_of(replica: Replica, namespace: str, name: str) -> dict[str, str]:
    """By the listener's name within its Gateway."""
    prefix = f"{namespace}/{name}/"
    return {key.removeprefix(prefix): text for key, text in replica.problems.items() if key.startswith(prefix)}


def _of_listener(listener: ListenerStatus, gateway: Verdict, problems: dict[str, str]) -> Verdict:
    if not listener.valid:
        return Verdict("Programmed", "False", "Invalid", "The listener cannot be served")
    if listener.name in problems:
        return Verdict("Programmed", "False", "Invalid", problems[listener.name])
    if gateway.status == "True":
        return Verdict("Programmed", "True", "Programmed", "")
    return Verdict("Programmed", "False", "Pending", gateway.message)


def _kind_of(address: str) -> str:
    return "IPAddress" if address.replace(".", "").isdigit() or ":" in address else "Hostname"
