"""A live copy of one kind: list, then watch, for as long as it runs.

Missed changes cannot happen: after a gap (410, or a lost connection that cannot resume) the new list is compared with
the cache and the differences, deletions included, are delivered. ``metadata.managedFields`` is often half of an object:
only what a reader asked for is kept of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Literal

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Clock, SystemClock, sleep, timestamp
from quarterdeck.kube.resource import Key, Object, Resource, key_of

log = logging.getLogger(__name__)

ChangeKind = Literal["added", "modified", "deleted"]
Callback = Callable[[ChangeKind, Object | None, Object | None], None]
IndexFunction = Callable[[Object], Iterable[str]]

_TOMBSTONES = 1024
_BACKOFF = (0.2, 30.0)


class Informer:
    """Objects given out are the cached ones, shared by all readers: never change them, copy first."""

    def __init__(
        self,
        client: KubeClient,
        res: Resource,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        *,
        metadata_only: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.client = client
        self.res = res
        self.namespace = namespace
        self.label_selector = label_selector
        self.field_selector = field_selector
        self.metadata_only = metadata_only
        self.synced = asyncio.Event()
        self.relists = 0
        self.keep_managed_fields: Callable[[list[Object]], list[Object]] | None = None
        """Picks the entries of ``managedFields`` that readers need; none when unset."""
        self._clock = clock or SystemClock()
        self._objects: dict[Key, Object] = {}
        self._indexes: dict[str, tuple[IndexFunction, dict[str, dict[Key, Object]]]] = {}
        self._callbacks: list[Callback] = []
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._version = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"informer {self.res.plural}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def get(self, namespace: str | None, name: str) -> Object | None:
        return self._objects.get(Key(namespace or "", name))

    def list(self, namespace: str | None = None) -> list[Object]:
        if namespace is None:
            return list(self._objects.values())
        return [obj for key, obj in self._objects.items() if key.namespace == namespace]

    def add_index(self, name: str, fn: IndexFunction) -> None:
        """``fn`` gives the index keys of an object. Adding the same name again keeps the first function."""
        if name in self._indexes:
            return
        self._indexes[name] = (fn, {})
        for key, obj in self._objects.items():
            self._index(key, None, obj, only=name)

    def by_index(self, name: str, key: str) -> list[Object]:
        return list(self._indexes[name][1].get(key, {}).values())

    def on_change(self, callback: Callback) -> None:
        """Called in the event loop for each change after this, and once with ``added`` for each object known now."""
        self._callbacks.append(callback)
        for obj in list(self._objects.values()):
            callback("added", None, obj)

    def observe(self, obj: Object) -> None:
        """Take over the answer of a write, so that the writer's next read sees it (the watch brings it again)."""
        metadata = obj["metadata"]
        if metadata.get("uid") in self._deleted or not _newer(obj, self._objects.get(key_of(obj))):
            return
        self._put(obj)

    def observe_deletion(self, obj: Object) -> None:
        """Show a deleted object as terminating until the watch tells more."""
        current = self._objects.get(key_of(obj))
        if current is None or current["metadata"].get("uid") != obj["metadata"].get("uid"):
            return
        from_now = {"deletionTimestamp": timestamp(self._clock.time())}
        self._put(current | {"metadata": from_now | current["metadata"]})

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                if not self._version:
                    await self._relist()
                    failures = 0
                await self._watch()
                failures = 0
            except errors.Expired:
                self._version = ""
                continue
            except errors.QuarterdeckError as error:
                level = logging.INFO if isinstance(error, errors.NotFound) and failures else logging.WARNING
                log.log(level if failures < 3 else logging.DEBUG, "cannot follow %s: %s", self.res.plural, error)
                if isinstance(error, errors.ApiError):
                    self._version = ""
                first, limit = _BACKOFF
                await sleep(self._clock, min(first * 2 ** min(failures, 16), limit) * random.uniform(0.8, 1.2))  # noqa: S311
                failures += 1

    async def _relist(self) -> None:
        listed = await self.client.list(
            self.res,
            self.namespace,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
            metadata_only=self.metadata_only,
        )
        self.relists += 1
        fresh = {key_of(obj) for obj in listed.items}
        for key in [key for key in self._objects if key not in fresh]:
            self._remove(key)
        for obj in listed.items:
            current = self._objects.get(key_of(obj))
            if current is not None and current["metadata"].get("uid") != obj["metadata"].get("uid"):
                self._remove(key_of(obj))  # deleted and created again behind our back: tell both
            self._put(obj)
        self._version = listed.resource_version
        self.synced.set()

    async def _watch(self) -> None:
        stream = self.client.watch(
            self.res,
            self.namespace,
            resource_version=self._version,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
            metadata_only=self.metadata_only,
        )
        async for event in stream:
            obj = event.object
            if event.type == "DELETED":
                self._remove(key_of(obj), obj)
            elif event.type != "BOOKMARK":
                self._put(obj)
            self._version = obj["metadata"]["resourceVersion"]

    def _put(self, obj: Object) -> None:
        key = key_of(obj)
        managed = obj["metadata"].pop("managedFields", None)
        if managed and self.keep_managed_fields is not None and (kept := self.keep_managed_fields(managed)):
            obj["metadata"]["managedFields"] = kept
        old = self._objects.get(key)
        if old is not None:
            same = old["metadata"].get("resourceVersion") == obj["metadata"].get("resourceVersion")
            if same and old["metadata"].get("deletionTimestamp") == obj["metadata"].get("deletionTimestamp"):
                return
            if not same and not _newer(obj, old):
                return
        self._objects[key] = obj
        self._index(key, old, obj)
        self._deliver("added" if old is None else "modified", old, obj)

    def _remove(self, key: Key, last: Object | None = None) -> None:
        old = self._objects.pop(key, None)
        gone = last or old
        if gone is not None:
            self._deleted[gone["metadata"].get("uid", "")] = None
            if len(self._deleted) > _TOMBSTONES:
                self._deleted.popitem(last=False)
        if old is not None:
            self._index(key, old, None)
            self._deliver("deleted", last or old, None)

    def _index(self, key: Key, old: Object | None, new: Object | None, only: str = "") -> None:
        for name, (fn, table) in self._indexes.items():
            if only and name != only:
                continue
            if old is not None:
                for entry in fn(old):
                    bucket = table.get(entry)
                    if bucket is not None:
                        bucket.pop(key, None)
                        if not bucket:
                            del table[entry]
            if new is not None:
                for entry in fn(new):
                    table.setdefault(entry, {})[key] = new

    def _deliver(self, kind: ChangeKind, old: Object | None, new: Object | None) -> None:
        for callback in self._callbacks:
            callback(kind, old, new)


def _newer(obj: Object, than: Object | None) -> bool:
    """resourceVersions of one kind compare as integers (guaranteed since 1.35; other forms count as newer)."""
    if than is None or than["metadata"].get("uid") != obj["metadata"].get("uid"):
        return True
    new, old = str(obj["metadata"].get("resourceVersion")), str(than["metadata"].get("resourceVersion"))
    return int(new) > int(old) if new.isdigit() and old.isdigit() else new != old
