"""Garbage collection by ownerReferences, for every served kind, from metadata alone.

background: a dependent all of whose owners are gone is deleted. foreground: an owner with that finalizer waits for its
blocking dependents, which are deleted first. orphan: the dependents forget the owner, then the finalizer goes.
"""

from __future__ import annotations

import logging

from quarterdeck import errors
from quarterdeck.kube.clock import sleep
from quarterdeck.kube.controller import DONE, ControllerSet, Result
from quarterdeck.kube.informer import ChangeKind, Informer
from quarterdeck.kube.owner import owner_references
from quarterdeck.kube.queue import QueueClosed, WorkQueue
from quarterdeck.kube.resource import CRD, Key, Object, Resource, key_of

from .discovery import served_resources

log = logging.getLogger(__name__)

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_REDISCOVER = 30.0
_NEEDED = frozenset({"list", "watch", "delete"})
# Short-lived or high-volume kinds that own nothing and are owned by nothing.
_IGNORED = frozenset({("", "events"), ("events.k8s.io", "events")})
Item = tuple[Resource, Key]


class GarbageCollector:
    def __init__(self, controllers: ControllerSet, *, rediscover: float = _REDISCOVER) -> None:
        self._controllers = controllers
        self._client = controllers.client
        self._clock = controllers.clock
        self._rediscover = rediscover
        self._monitors: dict[tuple[str, str], Informer] = {}
        self._dependents: dict[str, dict[Item, None]] = {}
        self._alive: dict[str, Item] = {}
        self._queue: WorkQueue[Item] = WorkQueue(self._clock)
        controllers.informer(CRD, metadata_only=True).on_change(lambda *_: self._crds_changed())
        self._changed = True
        controllers.add_loop("garbage monitor", self._monitor)
        controllers.add_loop("garbage collector", self._work)

    def _crds_changed(self) -> None:
        self._changed = True

    async def _monitor(self) -> None:
        """Follow every served kind; new ones (CRDs) join, old ones leave."""
        waited = self._rediscover
        while True:
            if self._changed or waited >= self._rediscover:
                self._changed, waited = False, 0.0
                try:
                    await self._sync_monitors()
                except errors.QuarterdeckError as error:
                    log.warning("garbage collector cannot discover the served kinds: %s", error)
            await sleep(self._clock, 1.0)
            waited += 1.0

    async def _sync_monitors(self) -> None:
        served, failed = await served_resources(self._client)
        wanted = {
            (s.resource.group, s.resource.plural): s.resource
            for s in served
            if s.verbs >= _NEEDED and (s.resource.group, s.resource.plural) not in _IGNORED
        }
        for key in [key for key in self._monitors if key not in wanted and not failed]:
            informer = self._monitors.pop(key)
            await informer.stop()
        for key, res in wanted.items():
            if key not in self._monitors:
                informer = self._monitors[key] = Informer(self._client, res, metadata_only=True, clock=self._clock)
                informer.on_change(lambda kind, old, new, res=res: self._observe(res, kind, old, new))
                informer.start()

    def _observe(self, res: Resource, kind: ChangeKind, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is None:
            return
        item = (res, key_of(obj))
        uid = obj["metadata"]["uid"]
        for reference in owner_references(old) if old else ():
            members = self._dependents.get(reference["uid"])
            if members is not None:
                members.pop(item, None)
                if not members:
                    del self._dependents[reference["uid"]]
                owner = self._alive.get(reference["uid"])
                if owner is not None:
                    self._queue.add(owner)
        if kind == "deleted" or new is None:
            self._alive.pop(uid, None)
            for dependent in self._dependents.get(uid, ()):
                self._queue.add(dependent)
            return
        self._alive[uid] = item
        for reference in owner_references(new):
            self._dependents.setdefault(reference["uid"], {})[item] = None
        if owner_references(new) or "deletionTimestamp" in new["metadata"]:
            self._queue.add(item)

    async def _work(self) -> None:
        try:
            while True:
                item = await self._queue.get()
                try:
                    result = await self._collect(item)
                except errors.QuarterdeckError as error:
                    delay = self._queue.add_rate_limited(item)
                    log.debug("garbage collection of %s %s, again in %.1f s: %s", item[0].kind, item[1], delay, error)
                else:
                    self._queue.forget(item)
                    if result.requeue_after is not None:
                        self._queue.add_after(item, result.requeue_after)
                finally:
                    self._queue.done(item)
        except QueueClosed:
            return
        finally:
            self._queue.close()
            for informer in self._monitors.values():
                await informer.stop()

    async def _collect(self, item: Item) -> Result:
        res, key = item
        monitor = self._monitors.get((res.group, res.plural))
        obj = monitor.get(*key) if monitor else None
        if obj is None:
            return DONE
        metadata = obj["metadata"]
        finalizers = metadata.get("finalizers") or ()
        if "deletionTimestamp" in metadata:
            if ORPHAN in finalizers:
                return await self._orphan(res, obj)
            if FOREGROUND in finalizers:
                return await self._foreground(res, obj)
            return DONE
        return await self._attempt(res, obj)

    async def _attempt(self, res: Resource, obj: Object) -> Result:
        """Delete an object whose owners are all gone; drop references to gone owners when another one is left."""
        metadata = obj["metadata"]
        solid: list[Object] = []
        waiting: list[Object] = []
        dangling: list[Object] = []
        for reference in owner_references(obj):
            owner = await self._owner(reference, metadata.get("namespace"))
            if owner is None:
                dangling.append(reference)
            elif self._waits_for_dependents(owner):
                waiting.append(reference)
            else:
                solid.append(reference)
        if not dangling and not waiting:
            return DONE
        if solid:
            left = [r for r in owner_references(obj) if r in solid]
            await self._patch_references(res, obj, left)
            return DONE
        busy = self._dependents.get(metadata["uid"])
        policy = "Foreground" if waiting and busy else "Background"
        try:
            await self._client.delete(
                res, metadata["name"], metadata.get("namespace"), propagation=policy,
                uid=metadata["uid"], resource_version=metadata["resourceVersion"],
            )  # fmt: skip
        except errors.NotFound:
            return DONE
        return DONE

    def _waits_for_dependents(self, owner: Object) -> bool:
        metadata = owner["metadata"]
        return "deletionTimestamp" in metadata and FOREGROUND in (metadata.get("finalizers") or ())

    async def _owner(self, reference: Object, namespace: str | None) -> Object | None:
        """The owner's metadata, or None when no object of that uid is there. What the cache lacks is asked for live."""
        item = self._alive.get(reference["uid"])
        if item is not None:
            cached = self._monitors[(item[0].group, item[0].plural)].get(*item[1])
            if cached is not None:
                return cached
        group, slash, _ = reference["apiVersion"].partition("/")
        group = group if slash else ""
        res = next(
            (i.res for i in self._monitors.values() if i.res.group == group and i.res.kind == reference["kind"]), None
        )
        if res is None:
            raise errors.ServiceUnavailable(
                f"owner kind {reference['kind']} of {reference['apiVersion']} is not served"
            )
        try:
            owner = await self._client.get(res, reference["name"], namespace if res.namespaced else None)
        except errors.NotFound:
            return None
        return owner if owner["metadata"]["uid"] == reference["uid"] else None

    async def _foreground(self, res: Resource, obj: Object) -> Result:
        uid = obj["metadata"]["uid"]
        blocked = False
        for dependent in list(self._dependents.get(uid, ())):
            monitor = self._monitors.get((dependent[0].group, dependent[0].plural))
            child = monitor.get(*dependent[1]) if monitor else None
            if child is None:
                continue
            if any(r["uid"] == uid and r.get("blockOwnerDeletion") for r in owner_references(child)):
                blocked = True
            if "deletionTimestamp" not in child["metadata"]:
                self._queue.add(dependent)
        if not blocked:
            await self._drop_finalizer(res, obj, FOREGROUND)
        return DONE

    async def _orphan(self, res: Resource, obj: Object) -> Result:
        uid = obj["metadata"]["uid"]
        for dependent in list(self._dependents.get(uid, ())):
            monitor = self._monitors.get((dependent[0].group, dependent[0].plural))
            child = monitor.get(*dependent[1]) if monitor else None
            if child is not None:
                left = [r for r in owner_references(child) if r["uid"] != uid]
                await self._patch_references(dependent[0], child, left)
        await self._drop_finalizer(res, obj, ORPHAN)
        return DONE

    async def _patch_references(self, res: Resource, obj: Object, left: list[Object]) -> None:
        metadata = obj["metadata"]
        body = {"metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
                             "ownerReferences": left or None}}  # fmt: skip
        try:
            await self._client.patch(res, metadata["name"], body, metadata.get("namespace"))
        except errors.NotFound:
            return

    async def _drop_finalizer(self, res: Resource, obj: Object, finalizer: str) -> None:
        metadata = obj["metadata"]
        left = [f for f in metadata.get("finalizers") or () if f != finalizer]
        body = {"metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
                             "finalizers": left or None}}  # fmt: skip
        try:
            await self._client.patch(res, metadata["name"], body, metadata.get("namespace"))
        except errors.NotFound:
            return
