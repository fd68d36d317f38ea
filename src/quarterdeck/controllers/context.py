"""What every reconciler works with: cached reads, silent applies, status writes, events."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from quarterdeck.errors import (
    ApiError,
    ConfigError,
    Conflict,
    NamespaceTerminating,
    NotFound,
    RefNotFound,
    RefNotPermitted,
)
from quarterdeck.kube import resource as k
from quarterdeck.kube.apply import (
    APPLIED_HASH,
    apply_if_changed,
    apply_status_if_changed,
    restore_template,
    with_applied_hash,
)
from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.conditions import get_condition, set_condition
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.owner import belongs_to
from quarterdeck.kube.resource import Key, Object, Resource
from quarterdeck.kube.template import additions
from quarterdeck.resources.replicas import Replicas
from quarterdeck.translate.objects import digest
from quarterdeck.translate.options import Options
from quarterdeck.translate.resolve import Services, addresses, closed_addresses, service_name
from quarterdeck.translate.snapshot import Values
from quarterdeck.wire.addresses import refused

from .holders import Holders
from .refusals import refusal
from .unsupported import unsupported

log = logging.getLogger(__name__)

_CHILDREN = {
    ("v1", "Secret"): k.SECRET,
    ("v1", "ConfigMap"): k.CONFIG_MAP,
    ("v1", "ServiceAccount"): k.SERVICE_ACCOUNT,
    ("v1", "Service"): k.SERVICE,
    ("apps/v1", "Deployment"): k.DEPLOYMENT,
    ("networking.k8s.io/v1", "NetworkPolicy"): k.NETWORK_POLICY,
    ("discovery.k8s.io/v1", "EndpointSlice"): k.ENDPOINT_SLICE,
}
COMPONENT = "quarterdeck"
_UNSUPPORTED = "UnsupportedFeatures"
_STARTING = {"DeploymentNotFound", "DeploymentNotReady", "NotAvailable", "PodsNotReady", "NotReady"}
_LONGEST = 4096
"""Characters of a condition's message; the schemas allow 32,768, and an API server's answer can be longer."""


SERVICE, LABELS, ADDRESSES, CLOSED = "service", "labels", "addresses", "closed"
"""Indexes of EndpointSlices by ``namespace/Service``, of Pods by ``namespace/label=value``, of what has an address, and
of Pods and Services whose addresses are closed to other namespaces."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition to set. ``early``: every new object is like that for a moment, so at first it is no Event."""

    type: str
    status: bool | None
    reason: str
    message: str
    early: bool = False
    quiet: bool = False
    """Whether somebody else tells the Events."""

    @property
    def text(self) -> Any:
        return "Unknown" if self.status is None else str(self.status)


RESOLVED = Verdict("ResolvedRefs", True, "ResolvedRefs", "All references are resolved")
PROGRAMMED = Verdict("Programmed", True, "Programmed", "All resources created successfully")


@dataclass(slots=True)
class Context:
    """Shared by the reconcilers of one ControllerSet."""

    set: ControllerSet
    options: Options
    tools: dict[tuple[str, str, str], tuple[str, ...]] = field(
        default_factory=dict[tuple[str, str, str], tuple[str, ...]]
    )
    """Names of discovered tools by (kind, namespace, name); absent means not known yet."""
    pins: dict[tuple[str, str, str], dict[str, str]] = field(default_factory=dict[tuple[str, str, str], dict[str, str]])
    """Digests of approved tools by (kind, namespace, name) of their server."""
    holders: Holders = field(init=False)
    _settled: dict[tuple[str, str, str], tuple[str, str]] = field(
        default_factory=dict[tuple[str, str, str], tuple[str, str]]
    )

    _templates: dict[tuple[str, str, str], tuple[str, str]] = field(
        default_factory=dict[tuple[str, str, str], tuple[str, str]]
    )
    """(digest of the pod template, applied hash) after a restore: what stays then is the server's own."""
    put_back: dict[str, int] = field(default_factory=dict[str, int])
    """UID of whose Deployment had its number of Pods put back, and to which number."""

    def __post_init__(self) -> None:
        self.holders = Holders(self.set)
        self.set.informer(k.ENDPOINT_SLICE).add_index(SERVICE, _service_of)
        for res in (k.SERVICE, k.ENDPOINT_SLICE):
            self.set.informer(res).add_index(ADDRESSES, addresses)
        self.set.informer(k.POD).add_index(LABELS, _labels_of)
        for res in (k.POD, k.SERVICE):
            self.set.informer(res).add_index(CLOSED, closed_addresses)

    def get(self, res: Resource, namespace: str, name: str) -> Object | None:
        return self.set.informer(res).get(namespace, name)

    def list(self, res: Resource, namespace: str | None = None) -> list[Object]:
        return self.set.informer(res).list(namespace)

    def primary(self, res: Resource, key: Key) -> Object | None:
        """The object to reconcile; None when it is gone or going."""
        obj = self.get(res, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        return {"apiVersion": res.api_version, "kind": res.kind} | obj

    def values(self) -> Values:
        return Values(partial(self.get, k.SECRET), partial(self.get, k.CONFIG_MAP))

    def services(self) -> Services:
        """Services and their endpoints as they are now, looked up one by one."""
        services, slices = self.set.informer(k.SERVICE), self.set.informer(k.ENDPOINT_SLICE)
        return Services(
            partial(self.get, k.SERVICE),
            lambda namespace, name: slices.by_index(SERVICE, f"{namespace}/{name}"),
            lambda address: [*services.by_index(ADDRESSES, address), *slices.by_index(ADDRESSES, address)],
            self.homes,
        )

    def refuse(self, host: str, address: str, port: int) -> str:
        """Why what a URL of a resource led to may not be called (``Pool``'s ``refuse``); empty when it may."""
        del port
        return refused(host, address, self.homes)

    def homes(self, address: str) -> set[str]:
        """Namespaces whose agents, MCP servers and models have the address."""
        found = (self.set.informer(res).by_index(CLOSED, address) for res in (k.POD, k.SERVICE))
        return {obj["metadata"]["namespace"] for objects in found for obj in objects}

    def pods(self, namespace: str, labels: dict[str, str]) -> list[Object]:
        """Pods that carry all these labels; the last one says most, the others are common to many."""
        name, value = next(reversed(labels.items()))
        found = self.set.informer(k.POD).by_index(LABELS, f"{namespace}/{name}={value}")
        return [pod for pod in found if labels.items() <= (pod["metadata"].get("labels") or {}).items()]

    def namespace_labels(self, name: str) -> dict[str, str]:
        obj = self.get(k.NAMESPACE, "", name) or {}
        return (obj.get("metadata") or {}).get("labels") or {}

    async def apply(self, owner: Object, objects: Iterable[Object]) -> None:
        """Make the children of ``owner`` what they should be; nothing is sent when they are.

        Raises NameConflict when a child's name is taken by an object that is not ``owner``'s, NamespaceTerminating, and
        ApiError when the server refuses one.
        """
        namespace = owner["metadata"]["namespace"]
        home = self.get(k.NAMESPACE, "", namespace)
        if home is not None and home["metadata"].get("deletionTimestamp"):
            raise NamespaceTerminating(f"namespace {namespace} is being deleted: nothing is created in it any more")
        children = [(_CHILDREN[desired["apiVersion"], desired["kind"]], desired) for desired in objects]
        for res, desired in children:  # all names or nothing
            live = self.get(res, desired["metadata"]["namespace"], desired["metadata"]["name"])
            if live is not None:
                self.holders.refuse(owner, res, live)
        await self._rehearse(children)
        for res, desired in children:
            await self._apply_one(owner, res, desired)
        if self.options.network_policies is None:  # switched off: the one there was goes
            await self.remove(owner, (k.NETWORK_POLICY,))

    async def _rehearse(self, children: Sequence[tuple[Resource, Object]]) -> None:
        """Ask whether a changed Deployment would be taken before what its running Pods mount is changed.

        Raises the ApiError of the refusal: until the spec is corrected, configuration and Pods stay as they are.
        """
        changed = [(res, desired) for res, desired in children if self._respecified(res, desired)]
        if any(res in (k.SECRET, k.CONFIG_MAP) for res, _ in changed):
            for res, desired in changed:
                if res is k.DEPLOYMENT:
                    await self.set.client.apply(res, with_applied_hash(desired), dry_run=True)

    def _respecified(self, res: Resource, desired: Object) -> bool:
        """Whether the object is there, and was last applied with another content."""
        live = self.get(res, desired["metadata"]["namespace"], desired["metadata"]["name"])
        wanted = with_applied_hash(desired)["metadata"]["annotations"][APPLIED_HASH]
        return live is not None and (live["metadata"].get("annotations") or {}).get(APPLIED_HASH) != wanted

    async def remove(self, owner: Object, kinds: Iterable[Resource]) -> None:
        """Delete the children named like ``owner`` that it has no use for any more."""
        name, namespace = owner["metadata"]["name"], owner["metadata"]["namespace"]
        for res in kinds:
            live = self.get(res, namespace, name)
            if live is not None and belongs_to(live, owner) and "deletionTimestamp" not in live["metadata"]:
                with suppress(NotFound):
                    await self.set.client.delete(res, name, namespace, uid=live["metadata"]["uid"])

    async def _apply_one(self, owner: Object, res: Resource, desired: Object) -> None:
        metadata = desired["metadata"]
        live = self.get(res, metadata["namespace"], metadata["name"])
        slot = (res.plural, metadata["namespace"], metadata["name"])
        wanted = with_applied_hash(desired)["metadata"]["annotations"][APPLIED_HASH]
        if live is not None and self._settled.get(slot) == (live["metadata"].get("resourceVersion"), wanted):
            return
        if live is None:
            written = await self.holders.create(owner, res, desired)
        else:
            written = await self._restore(res, slot, desired, live, wanted)
            written = written or await apply_if_changed(self.set.client, res, desired, live)
        if written is None:
            return
        self.set.informer(res).observe(written)
        # A server may normalise what we sent beyond recognition; asking again would change nothing. An addition that
        # somebody wrote between our look and our write is taken out next.
        if self._restored(res, slot, written, wanted) or res is not k.DEPLOYMENT or not additions(desired, written):
            self._settled[slot] = (written["metadata"].get("resourceVersion", ""), wanted)
        if live is not None and (live["metadata"].get("annotations") or {}).get(APPLIED_HASH) == wanted:
            self._tell_restored(owner, res, live, written)

    async def _restore(
        self, res: Resource, slot: tuple[str, str, str], desired: Object, live: Object | None, wanted: str
    ) -> Object | None:
        """Take what others added out of an owned workload's pod template; None when there is nothing of it."""
        if res is not k.DEPLOYMENT or live is None or not additions(desired, live):
            return None
        if self._restored(res, slot, live, wanted):
            return None
        written = await restore_template(self.set.client, res, desired)
        if written is not None:
            self._templates[slot] = (digest(written["spec"]["template"]), wanted)
        return written

    def _restored(self, res: Resource, slot: tuple[str, str, str], live: Object, wanted: str) -> bool:
        """Whether the template is as our last restore left it."""
        known = self._templates.get(slot) if res is k.DEPLOYMENT else None
        return known is not None and known == (digest(live["spec"]["template"]), wanted)

    def _tell_restored(self, owner: Object, res: Resource, live: Object, written: Object) -> None:
        """An Event when somebody else's change to an owned Deployment was put back."""
        if res is not k.DEPLOYMENT or written["metadata"].get("resourceVersion") == live["metadata"]["resourceVersion"]:
            return
        name, kind = owner["metadata"]["name"], owner["kind"]
        number = (written.get("spec") or {}).get("replicas")
        if number is not None and (live.get("spec") or {}).get("replicas") != number:
            self.put_back[owner["metadata"]["uid"]] = number
            message = f"replicas of Deployment {name} put back; use `kubectl scale {kind.lower()} {name} --replicas=N`"
        else:
            message = (
                f"Deployment {name} was changed and put back to what {kind} {name} says; change the {kind} instead"
            )
        self.event(owner, "Warning", "Restored", message)

    async def set_status(
        self, res: Resource, obj: Object, verdicts: Sequence[Verdict], fields: Object | None = None
    ) -> None:
        """Write conditions and fields of the status; flips are told as Events too. Other fields are kept.

        What the spec asks for in vain is a condition of every kind.
        """
        generation = obj["metadata"].get("generation", 1)
        now = timestamp(self.set.clock.time())
        before: Object = obj.get("status") or {}
        conditions = list(before.get("conditions") or ())
        if notes := unsupported(res.kind, obj.get("spec") or {}):
            verdicts = [*verdicts, Verdict(_UNSUPPORTED, True, _UNSUPPORTED, notes)]
        else:
            conditions = [c for c in conditions if c.get("type") != _UNSUPPORTED]
        told: dict[str, tuple[str, str]] = {}
        for verdict in verdicts:
            old = get_condition(conditions, verdict.type)
            message = verdict.message if len(verdict.message) <= _LONGEST else f"{verdict.message[:_LONGEST]} …"
            conditions = set_condition(conditions, verdict.type, verdict.text, verdict.reason, message, generation, now)
            changed = old is None or (old.get("status"), old.get("reason")) != (verdict.text, verdict.reason)
            expected = verdict.status is True or verdict.early or (verdict.reason in _STARTING and not before)
            news = changed and not verdict.quiet and (old is not None or not expected)
            # One cause in several conditions is one Event, with the most exact reason: the last but for Ready's.
            if news and (verdict.type != "Ready" or verdict.message not in told):
                told[verdict.message] = ("Normal" if verdict.status else "Warning", verdict.reason)
        status = before | {"observedGeneration": generation, "conditions": conditions} | (fields or {})
        status = {key: value for key, value in status.items() if value is not None}
        try:
            written = await apply_status_if_changed(self.set.client, res, obj, status)
        except NotFound:
            return  # deleted meanwhile
        except ApiError as error:
            if not error.passing:  # the object may be too large for a status: Events have to do
                self._tell(obj, told)
            raise
        if written is not None:
            self.set.informer(res).observe(written)
        self._tell(obj, told)

    def _tell(self, obj: Object, told: Mapping[str, tuple[str, str]]) -> None:
        for message, (kind, reason) in told.items():
            self.event(obj, kind, reason, message)

    def rejected(self, error: ConfigError, reason: str) -> list[Verdict]:
        """The conditions of a resource whose spec, or what it refers to, cannot be used.

        ``reason`` is the kind's own word, used where ``Accepted`` has no more exact one.
        """
        general = type(error) in (ConfigError, RefNotFound, RefNotPermitted)
        verdicts = [Verdict("Accepted", False, reason if general else error.reason, str(error))]
        if isinstance(error, RefNotFound | RefNotPermitted):
            verdicts.append(Verdict("ResolvedRefs", False, error.reason, str(error)))
        return verdicts

    def not_programmed(self, obj: Object, error: ConfigError | ApiError) -> Verdict:
        """The condition of an owner whose objects could not all be written; it is woken when the cause goes.

        Raises ``error`` again when it passes by itself: that is no news to anybody.
        """
        if isinstance(error, ApiError) and error.passing:
            raise error
        reason, message = refusal(error, obj["metadata"]["namespace"])
        if reason == "QuotaExceeded":
            self.holders.wait(obj, k.RESOURCE_QUOTA, obj["metadata"]["namespace"])
        return Verdict("Programmed", False, reason, message)

    async def seed(self, res: Resource, obj: Object, replicas: Replicas) -> int | None:
        """Copy ``deployment.replicas`` to ``spec.replicas`` where that is due; gives ``status.seededReplicas``.

        Through the scale subresource, as an autoscaler would, and only onto the version that was looked at: what
        somebody sets at the same time wins.
        """
        if replicas.write:
            metadata = obj["metadata"]
            body = {
                "metadata": {"resourceVersion": metadata["resourceVersion"]},
                "spec": {"replicas": replicas.wanted},
            }
            try:
                await self.set.client.patch(
                    res, metadata["name"], body, metadata["namespace"], subresource="scale", field_manager=COMPONENT
                )
            except Conflict:
                return (obj.get("status") or {}).get("seededReplicas")  # the newer object is looked at next
        return replicas.seed

    def event(self, obj: Object, kind: Any, reason: str, message: str) -> None:
        self.set.recorder(COMPONENT).event(obj, kind, reason, message)

    def hashes(self, namespace: str, names: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Content hashes of the (kind, name) Secrets and ConfigMaps; absent ones hash as such."""
        out: dict[str, str] = {}
        for kind, name in sorted(set(names)):
            obj = self.get(k.SECRET if kind == "Secret" else k.CONFIG_MAP, namespace, name)
            content = [obj.get("data"), obj.get("binaryData")] if obj is not None else None
            out[f"{kind}/{name}"] = digest(content)
        return out

    def autoscaled(self, namespace: str, name: str) -> bool:
        """Whether a HorizontalPodAutoscaler targets the Deployment."""
        for hpa in self.list(k.HPA, namespace):
            target = (hpa.get("spec") or {}).get("scaleTargetRef") or {}
            if target.get("kind") == "Deployment" and target.get("name") == name:
                return True
        return False


def _service_of(endpoint_slice: Object) -> list[str]:
    name = service_name(endpoint_slice)
    return [f"{endpoint_slice['metadata']['namespace']}/{name}"] if name else []


def _labels_of(pod: Object) -> list[str]:
    metadata = pod["metadata"]
    return [f"{metadata['namespace']}/{name}={value}" for name, value in (metadata.get("labels") or {}).items()]
