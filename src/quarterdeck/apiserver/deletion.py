"""delete and deletecollection: preconditions, graceful Pods, finalizers, propagation policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from quarterdeck.apiserver import faults, objects
from quarterdeck.apiserver.admission.attributes import AdmissionAttributes
from quarterdeck.apiserver.kinds import Kind
from quarterdeck.apiserver.namespaces import check_deletable
from quarterdeck.apiserver.options import DeleteOptions
from quarterdeck.apiserver.selectors import Selection
from quarterdeck.apiserver.store import Entry
from quarterdeck.apiserver.versions import ready, to_served, to_stored
from quarterdeck.apiserver.writes import Writes, Written, finished
from quarterdeck.errors import NotFound
from quarterdeck.kube.resource import NAMESPACE, POD, Object

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
_DEFAULT_GRACE = 30


@dataclass(slots=True)
class Deletion:
    """The deleting verbs on one store."""

    writes: Writes

    async def delete(self, kind: Kind, namespace: str, name: str, options: DeleteOptions) -> Written:
        """Delete or begin to. ``deleted`` is False when finalizers or a grace period hold the object."""
        store = self.writes.store
        check_deletable(kind, name)
        async with store.lock(kind.key, (namespace, name)):
            entry = store.entry(kind.key, namespace, name)
            if entry is None:
                raise faults.not_found(kind, name)
            await ready(kind, [entry])
            live = to_served(kind, entry)
            self._preconditions(kind, live, options)
            await self._admit(kind, live, options)
            obj = self._begin(kind, live, options)
            if obj is None:
                return await self._remove(kind, entry, live, options)
            if options.dry_run or obj == live:
                return Written(obj)
            if live["metadata"].get("generation") and not live["metadata"].get("deletionTimestamp"):
                obj["metadata"]["generation"] = int(live["metadata"]["generation"]) + 1
            stored = await to_stored(kind, obj)
            await store.put(kind.key, (namespace, name), stored)
            obj["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"]
            return Written(obj)

    async def delete_collection(
        self, kind: Kind, namespace: str | None, wanted: Selection, options: DeleteOptions
    ) -> list[Object]:
        """Delete all that ``wanted`` selects; returns them as they were."""
        store = self.writes.store
        chosen = [entry for entry in store.bucket(kind.key).range(namespace) if wanted.matches(entry)]
        gone: list[Object] = []
        for entry in chosen:
            current = store.entry(kind.key, entry.namespace, entry.name)
            if current is None:
                continue
            try:
                gone.append((await self.delete(kind, entry.namespace, entry.name, options)).obj)
            except NotFound:
                continue  # somebody else was faster
        return gone

    async def _remove(self, kind: Kind, entry: Entry, live: Object, options: DeleteOptions) -> Written:
        if not options.dry_run:
            await self.writes.store.remove(kind.key, (entry.namespace, entry.name))
        return Written(live, deleted=True)

    async def _admit(self, kind: Kind, live: Object, options: DeleteOptions) -> None:
        """The validating admission steps. Raises Forbidden."""
        admission, metadata = self.writes.admission, cast(Object, live["metadata"])
        if admission is None:
            return
        attributes = AdmissionAttributes(
            user=options.user, operation="DELETE", resource=kind.resource, obj=live, old=live,
            namespace=str(metadata.get("namespace") or ""), name=str(metadata["name"]), dry_run=options.dry_run,
        )  # fmt: skip
        try:
            await admission.validate(attributes)
        finally:
            admission.release(attributes)

    def _preconditions(self, kind: Kind, live: Object, options: DeleteOptions) -> None:
        metadata: Object = live["metadata"]
        name, uid, version = str(metadata["name"]), metadata.get("uid"), metadata.get("resourceVersion")
        if options.uid and options.uid != uid:
            text = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {uid}"
            raise faults.conflict(kind, name, text)
        if options.resource_version and options.resource_version != version:
            text = (
                f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
                f"ResourceVersion in object meta: {version}"
            )
            raise faults.conflict(kind, name, text)

    def _begin(self, kind: Kind, live: Object, options: DeleteOptions) -> Object | None:
        """The object marked as being deleted; None when it goes at once."""
        metadata = cast(dict[str, Any], dict(live["metadata"]))
        obj: Object = {**live, "metadata": metadata}
        grace = _grace(kind, live, options)
        finalizers = _finalizers(metadata.get("finalizers") or [], options.propagation)
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        now = self.writes.now()
        running = metadata.get("deletionTimestamp")
        if not running or grace < int(metadata.get("deletionGracePeriodSeconds") or 0):
            asked = now
            if running:  # the time already given counts
                asked = objects.seconds(running) - int(metadata.get("deletionGracePeriodSeconds") or 0)
            metadata["deletionTimestamp"] = objects.rfc3339(asked + grace)
            metadata["deletionGracePeriodSeconds"] = grace
        if kind.resource == NAMESPACE and (obj.get("spec") or {}).get("finalizers"):
            obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        return None if finished(obj) else obj


def _grace(kind: Kind, live: Object, options: DeleteOptions) -> int:
    """Seconds until a Pod's node must be done with it; all other kinds have none."""
    if kind.resource != POD:
        return 0
    spec: dict[str, Any] = live.get("spec") or {}
    if not spec.get("nodeName") or (live.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if options.grace_seconds is not None:
        return options.grace_seconds
    running = live["metadata"].get("deletionGracePeriodSeconds")
    if running is not None:
        return int(running)
    own = spec.get("terminationGracePeriodSeconds")
    return _DEFAULT_GRACE if own is None else int(own)


def _finalizers(finalizers: list[str], propagation: str) -> list[str]:
    """The garbage collector's finalizers follow the propagation policy; others stay."""
    if not propagation:
        return list(finalizers)
    kept = [name for name in finalizers if name not in (FOREGROUND, ORPHAN)]
    if propagation == "Foreground":
        kept.append(FOREGROUND)
    elif propagation == "Orphan":
        kept.append(ORPHAN)
    return kept
