"""A live copy of one kind, shared by all its readers in the process.

Missed changes cannot happen: after a gap the new list is compared with the cache and the differences, deletions
included, are delivered. Memory is bounded by what readers need: of ``metadata.managedFields``, often half of an object,
only what one asked for is kept; of Secrets and ConfigMaps (:attr:`Informer.lean`) the data only where a reader refers
to the object, and whoever reads another gets NotLoaded, loads it and reads again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient, ObjectList, WatchEvent
from quarterdeck.kube.clock import Clock, SystemClock, timestamp
from quarterdeck.kube.reflector import Reflector, Scope, WatchStats
from quarterdeck.kube.resource import NAMESPACE, Key, Object, Resource, key_of
from quarterdeck.kube.supervise import Supervisor

log = logging.getLogger(__name__)

ChangeKind = Literal["added", "modified", "deleted"]
Callback = Callable[[ChangeKind, Object | None, Object | None], None]
IndexFunction = Callable[[Object], Iterable[str]]
T = TypeVar("T")

_TOMBSTONES = 1024
_ODD = "%s %s/%s hit a bug in one of its readers, the others go on"
"""One object must not keep all others of its kind from everybody."""
_DATA = ("data", "binaryData", "stringData")


class NotLoaded(errors.QuarterdeckError):
    """The object is there, but its data is not kept in memory: :meth:`load` it, then read again."""

    reason = "NotLoaded"

    def __init__(self, informer: Informer, key: Key) -> None:
        super().__init__(f"data of {informer.res.kind} {key} is not loaded")
        self.informer = informer
        self.key = key

    async def load(self) -> None:
        """Raises ApiError or UpstreamError when it cannot be read."""
        await self.informer.load(self.key)


class Informer:
    """Objects given out are the cached ones, shared by all readers: never change them, copy first.

    ``namespaces``: follow these only, each by itself (what a Role permits), instead of one ``namespace`` or all.
    """

    def __init__(
        self,
        client: KubeClient,
        res: Resource,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        *,
        namespaces: Sequence[str] = (),
        metadata_only: bool = False,
        clock: Clock | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.client = client
        self.res = res
        self.synced = asyncio.Event()
        """Set when every scope has been listed."""
        self.answered = asyncio.Event()
        """The same, or the server does not serve the kind: there are none."""
        self.stats = WatchStats()
        self.keep_managed_fields: Callable[[list[Object]], list[Object]] | None = None
        """Picks the entries of ``managedFields`` that readers need; none when unset."""
        self.trim: Callable[[Object], Object] | None = None
        """What of an object is kept; everything when unset."""
        self.lean = False
        """Keep data only of objects for which one of ``referrers`` gives a key. Set before the start."""
        self.referrers: list[Callable[[Object], Iterable[Key]]] = []
        self._scopes = _scopes(res, namespace, tuple(namespaces), label_selector, field_selector, metadata_only)
        self._clock = clock or SystemClock()
        self._supervisor = supervisor or Supervisor(self._clock)
        self._objects: dict[Key, Object] = {}
        self._bare: set[Key] = set()
        self._indexes: dict[str, tuple[IndexFunction, dict[str, dict[Key, Object]]]] = {}
        self._callbacks: list[Callback] = []
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._listed: dict[Scope, str] = {}
        self._absent: set[Scope] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def relists(self) -> int:
        """Lists so far, the first included."""
        return self.stats.lists

    def start(self) -> None:
        if not self._tasks:
            for scope in self._scopes:
                reflector = Reflector(self.client, self.res, scope, self, self._clock, self.stats)
                name = f"informer {self.res.plural}"
                self._tasks.append(asyncio.create_task(self._supervisor.keep(name, reflector.run), name=name))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def get(self, namespace: str | None, name: str) -> Object | None:
        """Raises NotLoaded."""
        key = Key(namespace or "", name)
        if key in self._bare:
            raise NotLoaded(self, key)
        return self._objects.get(key)

    def list(self, namespace: str | None = None) -> list[Object]:
        """All, or those of a namespace; of a lean informer some come without data."""
        if namespace is None:
            return list(self._objects.values())
        return [obj for key, obj in self._objects.items() if key.namespace == namespace]

    @property
    def count(self) -> int:
        return len(self._objects)

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

    async def load(self, key: Key) -> None:
        """Get the data of an object that is cached without."""
        try:
            whole = await self.client.get(self.res, key.name, key.namespace)
        except errors.NotFound:
            self._remove(key)
            return
        current = self._objects.get(key)
        if current is None or _newer(current, whole):
            return  # gone, or the watch was faster: the reader looks again
        self._bare.discard(key)
        self._store(key, current, self._kept(whole))

    # -- what the reflectors bring

    def replaced(self, listed: ObjectList, scope: Scope) -> None:
        fresh = {key_of(obj) for obj in listed.items}
        rewound = _before(listed.resource_version, self._listed.get(scope, ""))
        for key in [key for key in self._objects if key not in fresh and _within(key, scope)]:
            if rewound or not _before(listed.resource_version, _version(self._objects[key])):
                self._remove(key)  # else written after the list was taken: an answer of our own, taken over meanwhile
        for obj in listed.items:
            current = self._objects.get(key_of(obj))
            if current is not None and current["metadata"].get("uid") != obj["metadata"].get("uid"):
                self._remove(key_of(obj))  # deleted and created again behind our back: tell both
            self._put(obj, rewound=rewound)
        self._listed[scope] = listed.resource_version
        self._absent.discard(scope)
        if len(self._listed) == len(self._scopes):
            self.synced.set()
        if len(self._listed.keys() | self._absent) == len(self._scopes):
            self.answered.set()

    def changed(self, event: WatchEvent) -> None:
        if event.type == "DELETED":
            self._remove(key_of(event.object), event.object)
        elif event.type != "BOOKMARK":
            self._put(event.object)

    def not_served(self, scope: Scope) -> None:
        self._absent.add(scope)
        if len(self._listed.keys() | self._absent) == len(self._scopes):
            self.answered.set()

    # -- the cache

    def _put(self, obj: Object, *, rewound: bool = False) -> None:
        """``rewound``: the server's store was restored from a backup, what it says is true though it is older."""
        key = key_of(obj)
        old = self._objects.get(key)
        if old is not None:
            same = old["metadata"].get("resourceVersion") == obj["metadata"].get("resourceVersion")
            if same and old["metadata"].get("deletionTimestamp") == obj["metadata"].get("deletionTimestamp"):
                return
            if not same and not rewound and not _newer(obj, old):
                return
        if self.lean and not any(self._ask(fn, obj) for fn in self.referrers):
            obj = {name: value for name, value in obj.items() if name not in _DATA}
            self._bare.add(key)
        else:
            self._bare.discard(key)
        obj = self._kept(obj)
        self._store(key, old, obj)
        self._deliver("added" if old is None else "modified", old, obj)

    def _kept(self, obj: Object) -> Object:
        managed = obj["metadata"].pop("managedFields", None)
        if managed and self.keep_managed_fields is not None and (kept := self.keep_managed_fields(managed)):
            obj["metadata"]["managedFields"] = kept
        return obj if self.trim is None else self.trim(obj)

    def _store(self, key: Key, old: Object | None, obj: Object) -> None:
        self._objects[key] = obj
        self._index(key, old, obj)

    def _remove(self, key: Key, last: Object | None = None) -> None:
        old = self._objects.pop(key, None)
        self._bare.discard(key)
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
                for entry in self._ask(fn, old):
                    bucket = table.get(entry)
                    if bucket is not None:
                        bucket.pop(key, None)
                        if not bucket:
                            del table[entry]
            if new is not None:
                for entry in self._ask(fn, new):
                    table.setdefault(entry, {})[key] = new

    def _deliver(self, kind: ChangeKind, old: Object | None, new: Object | None) -> None:
        for callback in self._callbacks:
            try:
                callback(kind, old, new)
            except Exception:
                self.stats.bugs += 1
                log.exception(_ODD, self.res.kind, *_name(new or old))

    def _ask(self, fn: Callable[[Object], Iterable[T]], obj: Object) -> list[T]:
        """What a reader says of an object; nothing when the object is too odd for it."""
        try:
            return list(fn(obj))
        except Exception:
            self.stats.bugs += 1
            log.exception(_ODD, self.res.kind, *_name(obj))
            return []


def _scopes(
    res: Resource, namespace: str | None, namespaces: tuple[str, ...], labels: str, fields: str, metadata_only: bool
) -> tuple[Scope, ...]:
    if not namespaces:
        return (Scope(namespace, labels, fields, metadata_only),)
    if res == NAMESPACE:
        return tuple(Scope(name=name) for name in namespaces)
    if not res.namespaced:
        return (Scope(None, labels, fields, metadata_only),)
    return tuple(Scope(name, labels, fields, metadata_only) for name in namespaces)


def _within(key: Key, scope: Scope) -> bool:
    if scope.name:
        return key.name == scope.name
    return scope.namespace is None or key.namespace == scope.namespace


def _name(obj: Object | None) -> tuple[str, str]:
    key = key_of(obj) if obj is not None else Key("", "")
    return key.namespace, key.name


def _version(obj: Object) -> str:
    return str(obj["metadata"].get("resourceVersion"))


def _before(version: str, other: str) -> bool:
    """resourceVersions of one kind compare as integers (guaranteed since 1.35); other forms are never earlier."""
    return version.isdigit() and other.isdigit() and int(version) < int(other)


def _newer(obj: Object, than: Object | None) -> bool:
    if than is None or than["metadata"].get("uid") != obj["metadata"].get("uid"):
        return True
    new, old = _version(obj), _version(than)
    return new != old and not _before(new, old)
