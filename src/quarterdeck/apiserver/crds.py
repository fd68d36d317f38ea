"""CustomResourceDefinitions at work: accepted names on write, kinds served live, objects cleaned up on deletion."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import Any, cast

from quarterdeck.apiserver.builtin import BuiltinSchema
from quarterdeck.apiserver.crd import (
    CLEANUP_FINALIZER,
    accept,
    default_crd,
    is_established,
    kinds_from,
    prepare_create,
    validate_crd,
)  # fmt: skip
from quarterdeck.apiserver.crd.conversion import InProcess
from quarterdeck.apiserver.deletion import Deletion
from quarterdeck.apiserver.kinds import Kind, KindRegistry
from quarterdeck.apiserver.objects import rfc3339
from quarterdeck.apiserver.options import DeleteOptions, WriteOptions
from quarterdeck.apiserver.selectors import Selection
from quarterdeck.apiserver.store import Event, Store, storage_key
from quarterdeck.apiserver.webhooks import webhook_of
from quarterdeck.errors import ApiError, Cause
from quarterdeck.kube.resource import CRD, Object

_KEY = storage_key(CRD)


class CustomResources:
    """Keeps the registry equal to the stored definitions. A hook of :class:`Writes` and a listener of the store."""

    def __init__(
        self, store: Store, registry: KindRegistry, converters: InProcess | None = None, now: Callable[[], float] = time
    ) -> None:
        self._store = store
        self._registry = registry
        self._converters = converters
        self._now = now
        self._kinds: dict[str, tuple[int, list[Kind]]] = {}
        self._ending: asyncio.Queue[str] = asyncio.Queue()

    def prepare(self, kind: Kind, obj: Object, old: Object | None) -> None:
        """Defaults, accepted names and conditions, in place."""
        if kind.resource != CRD:
            return
        default_crd(obj)
        spec = obj.get("spec")
        if not isinstance(spec, dict) or not isinstance(cast(Object, spec).get("versions"), list):
            return  # validation says what is missing
        now = rfc3339(self._now())
        if old is None:
            prepare_create(obj, now)
        elif not obj["metadata"].get("deletionTimestamp"):
            obj["status"] = {**(old.get("status") or {}), **(obj.get("status") or {})}
        if all(isinstance(v, dict) and "name" in v for v in spec["versions"]) and spec.get("names", {}).get("kind"):
            obj["status"] = accept(obj, self._store.list(CRD), now)

    def load(self) -> None:
        """Serve what is stored and follow changes."""
        self._refresh()
        self._store.bucket(_KEY).listeners.add(self._changed)
        for entry in self._store.bucket(_KEY).range(None):
            if entry.load()["metadata"].get("deletionTimestamp"):
                self._ending.put_nowait(entry.name)

    def close(self) -> None:
        self._store.bucket(_KEY).listeners.discard(self._changed)

    def _changed(self, event: Event) -> None:
        self._refresh()
        if b'"deletionTimestamp"' in event.entry.raw:
            self._ending.put_nowait(event.entry.name)

    def _refresh(self) -> None:
        kinds: dict[str, tuple[int, list[Kind]]] = {}
        for entry in self._store.bucket(_KEY).range(None):
            known = self._kinds.get(entry.name)
            if known is None or known[0] != entry.rv:
                crd = entry.load()
                made = self._kinds_of(crd) if is_established(crd) else []
                known = (entry.rv, made)
                self._follow(made)
            kinds[entry.name] = known
        self._kinds = kinds
        self._registry.replace_crds([kind for _, made in kinds.values() for kind in made])

    def _kinds_of(self, crd: Object) -> list[Kind]:
        return kinds_from(crd, self._converters, webhook_of(crd, self._store))

    def _follow(self, made: list[Kind]) -> None:
        """Objects already there show the new schema's defaults, and no fields it does not know, as upstream does."""
        for kind in made:
            if kind.resource.api_version == kind.stored_api_version:
                self._store.read_again(kind.key, lambda obj, kind=kind: _as_read(kind, obj))
        for kind in made[:1]:
            if kind.selectable:
                self._store.register_fields(kind.key, kind.fields_of)

    async def clean_up(self, deletion: Deletion) -> None:
        """For ever: delete the objects of definitions that end, then let these go."""
        while True:
            name = await self._ending.get()
            entry = self._store.entry(_KEY, "", name)
            if entry is None:
                continue
            crd = entry.load()
            if CLEANUP_FINALIZER not in (crd["metadata"].get("finalizers") or ()):
                continue
            made = self._kinds_of(crd)
            # in the stored version nothing has to be converted, which may be impossible by now
            kind = next((k for k in made if k.resource.api_version == k.stored_api_version), next(iter(made), None))
            try:
                if kind is not None:
                    await deletion.delete_collection(kind, None, Selection(), DeleteOptions())
                    if self._store.bucket(kind.key).entries:
                        self._retry_when_empty(kind.key, name)
                        continue
                crd_kind = self._registry.get(CRD.group, CRD.version, CRD.plural)
                if crd_kind is not None:
                    await deletion.writes.modify(crd_kind, "", name, _without_cleanup, WriteOptions("kube-apiserver"))
            except ApiError:
                continue  # a later write to the definition, or the next start, tries again

    def _retry_when_empty(self, key: str, name: str) -> None:
        bucket = self._store.bucket(key)

        def gone(event: Event) -> None:
            del event
            if not bucket.entries:
                bucket.listeners.discard(gone)
                self._ending.put_nowait(name)

        bucket.listeners.add(gone)


class DefinitionSchema(BuiltinSchema):
    """The schema of definitions. Upstream asks core kinds for qualified finalizer names, and this group not."""

    def __init__(self) -> None:
        super().__init__(CRD, validate_crd)

    def validate(self, obj: Object, old: Object | None, subresource: str = "") -> list[Cause]:
        found = super().validate(obj, old, subresource)
        return [c for c in found if c.field != "metadata.finalizers" or CLEANUP_FINALIZER not in c.message]


def _as_read(kind: Kind, obj: Object) -> None:
    if obj.get("apiVersion") == kind.resource.api_version:
        kind.schema.prune(obj)
        kind.schema.default(obj)


def _without_cleanup(live: Object) -> Object:
    metadata: dict[str, Any] = live["metadata"]
    metadata["finalizers"] = [f for f in metadata.get("finalizers") or () if f != CLEANUP_FINALIZER]
    return live
