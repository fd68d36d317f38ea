"""Names that other objects hold: nothing of others is taken over; who waits for a name is told when it is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

from quarterdeck.errors import Conflict, NameConflict
from quarterdeck.kube import resource as k
from quarterdeck.kube.apply import apply_if_changed
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.informer import ChangeKind
from quarterdeck.kube.owner import belongs_to, controller_of, owner_references
from quarterdeck.kube.resource import Key, Object, Resource, key_of

CONTROLLERS = {"Agent": "agent", "MCPServer": "mcpserver", "ModelConfig": "modelconfig", "Gateway": "gateway"}
"""Kinds that own objects, with the name of their controller."""
Slot = tuple[str, str, str]
"""plural, namespace, name"""
_MANAGER = "quarterdeck"


Matters = Callable[[Object, Object], bool]


def _changes_hands(old: Object, new: Object) -> bool:
    return owner_references(old) != owner_references(new)


def _respecified(old: Object, new: Object) -> bool:
    return old["metadata"].get("generation") != new["metadata"].get("generation")


_MATTERS: dict[Resource, Matters] = {k.AGENT: _respecified, k.RESOURCE_QUOTA: lambda old, new: old != new}
"""Which changes of an object, beyond its coming and going, wake who waits for it; else that it changes hands."""


class Holders:
    """Who waits for which object to go or change, and which names are being created at this moment."""

    def __init__(self, controllers: ControllerSet) -> None:
        self._set = controllers
        self._waiting: dict[Slot, set[tuple[str, Key]]] = {}
        self._followed: set[Resource] = set()
        self._creating: WeakValueDictionary[Slot, asyncio.Lock] = WeakValueDictionary()

    def refuse(self, owner: Object, res: Resource, live: Object) -> None:
        """Raises NameConflict when ``live`` is not ``owner``'s; the owner is reconciled again when that changes."""
        if belongs_to(live, owner):
            return
        metadata = live["metadata"]
        where = f"{res.kind} {metadata['namespace']}/{metadata['name']}"
        self.wait(owner, res, metadata["namespace"], metadata["name"])
        holder = controller_of(live)
        if holder is None:
            raise NameConflict(f"{where} exists and belongs to nobody; {_remedy(owner, where)}")
        if (holder["kind"], holder["name"]) == (owner["kind"], owner["metadata"]["name"]):
            raise NameConflict(
                f"{where} is left of an earlier {owner['kind']} {owner['metadata']['name']} and about to be deleted; "
                "it is created anew then"
            )
        raise NameConflict(f"{where} belongs to {holder['kind']} {holder['name']}; {_remedy(owner, where)}")

    def wait(self, owner: Object, res: Resource, namespace: str, name: str = "") -> None:
        """Reconcile ``owner`` when the object (any of the namespace without ``name``) changes in what matters."""
        if res not in self._followed:
            self._followed.add(res)
            self._follow(res, _MATTERS.get(res, _changes_hands))
        waiter = (CONTROLLERS[owner["kind"]], key_of(owner))
        self._waiting.setdefault((res.plural, namespace, name), set()).add(waiter)

    async def create(self, owner: Object, res: Resource, desired: Object) -> Object | None:
        """Apply an object that the cache does not show. Raises NameConflict when it is there and not ``owner``'s.

        The cache may lag: nothing is forced, so no value of another writer is replaced, and what was added to an object
        of somebody else is taken out again. Two of our owners wait for each other: to the API server we are one writer.
        """
        namespace, name = desired["metadata"]["namespace"], desired["metadata"]["name"]
        client, informer = self._set.client, self._set.informer(res)
        async with self._lock((res.plural, namespace, name)):
            live = informer.get(namespace, name)
            if live is not None:
                self.refuse(owner, res, live)
            try:
                written = await apply_if_changed(client, res, desired, live, force=False)
            except Conflict:
                for there in (await client.list(res, namespace, field_selector=f"metadata.name={name}")).items:
                    self.refuse(owner, res, there)
                raise  # nobody else's is there: somebody wrote at the same time, and the next look decides anew
            if written is not None and _was_there(written):
                bare = {key: desired[key] for key in ("apiVersion", "kind")} | {
                    "metadata": {"name": name, "namespace": namespace}
                }
                self.refuse(owner, res, await client.apply(res, bare))
            if written is not None:
                informer.observe(written)
            return written

    def _lock(self, slot: Slot) -> asyncio.Lock:
        lock = self._creating.get(slot)
        if lock is None:
            lock = self._creating[slot] = asyncio.Lock()
        return lock

    def _follow(self, res: Resource, matters: Matters) -> None:
        def changed(kind: ChangeKind, old: Object | None, new: Object | None) -> None:
            del kind
            obj = new or old
            if obj is not None and (old is None or new is None or matters(old, new)):
                namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
                self._wake((res.plural, namespace, name))
                self._wake((res.plural, namespace, ""))

        self._set.informer(res).on_change(changed)

    def _wake(self, slot: Slot) -> None:
        for controller, key in self._waiting.pop(slot, ()):
            self._set.enqueue(controller, key)


def _was_there(written: Object) -> bool:
    """Whether others wrote more than a status into an object that we took for new.

    Times say nothing: the servers of one control plane do not agree on them. What nobody has written into is taken.
    """
    return any(
        (entry.get("manager"), entry.get("operation")) != (_MANAGER, "Apply") and not entry.get("subresource")
        for entry in written["metadata"].get("managedFields") or ()
    )


def _remedy(owner: Object, where: str) -> str:
    return (
        f"{owner['kind']} {owner['metadata']['name']} does not take it over: delete {where}, or rename one of the two"
    )
