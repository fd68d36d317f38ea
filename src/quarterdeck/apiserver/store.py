"""The store: every object as raw JSON bytes with a small index, and the recent changes that feed watches.

Reads are synchronous and come from memory. A write gets its resourceVersion when it is staged, becomes durable in the
writer thread and visible (memory, watches) only after that, in version order. Callers that read, modify and write
hold :meth:`Store.lock` of the object.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any, cast

import msgspec

from quarterdeck.apiserver.database import ADDED, DELETED, MODIFIED, Change, Cipher, Database, DirectoryLock
from quarterdeck.errors import Expired, ServiceUnavailable, StorageError
from quarterdeck.kube.resource import Object, Resource

Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is ""."""

FieldsOf = Callable[[Object], dict[str, str]]
EVENT_TYPES = ("ADDED", "MODIFIED", "DELETED")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_NO_LABELS: dict[str, str] = {}


@dataclass(slots=True, eq=False)
class Entry:
    """One object as stored. ``raw`` is its JSON in the storage version, without trailing newline."""

    namespace: str
    name: str
    uid: str
    rv: int
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    raw: bytes
    converted: dict[str, bytes] | None = None  # by apiVersion: what a conversion webhook made of it

    def load(self) -> Object:
        """A fresh copy as JSON data."""
        return cast(Object, _decode(self.raw))


@dataclass(slots=True, eq=False)
class Event:
    """One change. ``entry`` is the object after it (for a delete: its last state), ``old`` the one before."""

    rv: int
    type: int
    at: float
    entry: Entry
    old: Entry | None
    wire: dict[Any, bytes] = field(default_factory=dict[Any, bytes])  # encoded once, shared by watchers


class Bucket:
    """All objects of one stored kind."""

    def __init__(self, kind: str, fields_of: FieldsOf | None = None) -> None:
        self.kind = kind
        self.fields_of = fields_of
        self.entries: dict[Key, Entry] = {}
        self.keys: list[Key] = []
        self.events: deque[Event] = deque()
        self.listeners: set[Callable[[Event], None]] = set()

    def put(self, entry: Entry) -> None:
        key = (entry.namespace, entry.name)
        if key not in self.entries:
            insort(self.keys, key)
        self.entries[key] = entry

    def drop(self, key: Key) -> None:
        if self.entries.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def range(self, namespace: str | None, after: Key | None = None) -> Iterator[Entry]:
        """Entries in key order, of one namespace or of all, behind ``after``."""
        keys = self.keys
        start = 0 if namespace is None else bisect_left(keys, (namespace, ""))
        end = len(keys) if namespace is None else bisect_left(keys, (namespace + "\0", ""))
        if after is not None:
            start = max(start, bisect_left(keys, (after[0], after[1] + "\0")))
        entries = self.entries
        return (entries[key] for key in keys[start:end])


@dataclass(frozen=True, slots=True)
class Retention:
    """How much history is kept for watches and continue tokens; whichever bound is hit first."""

    seconds: float = 900.0
    count: int = 20_000
    bytes: int = 32 * 1024 * 1024


class Store:
    """Objects of all kinds in one data directory. Open with :meth:`open`, from the event loop that uses it."""

    def __init__(
        self,
        directory: Path,
        *,
        cipher: Cipher | None = None,
        encrypted: frozenset[str] = frozenset(),
        retention: Retention | None = None,
        now: Callable[[], float] = time,
    ) -> None:
        self.directory = directory
        self.retention = retention or Retention()
        self.compacted = 0
        self.history_from = 0  # before this version old states are unknown (they are not read back at start)
        self._now = now
        self._cipher = cipher
        self._encrypted = encrypted
        self._fields_of: dict[str, FieldsOf] = {}
        self._buckets: dict[str, Bucket] = {}
        self._ring: deque[tuple[Event, Bucket]] = deque()
        self._ring_bytes = 0
        self._next = 1
        self._locks: dict[tuple[str, Key], tuple[asyncio.Lock, list[None]]] = {}
        self._lock_file: DirectoryLock | None = None
        self._database: Database | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.visible = 0  # the version readers see
        self.writes = 0

    # -- life
    def open(self) -> None:
        """Lock the directory and load it. Raises StorageError when it is in use, unreadable or newer."""
        self._lock_file = DirectoryLock(self.directory)
        try:
            self._database = Database(self.directory / "state.db", cipher=self._cipher, encrypted=self._encrypted)
            self._load(self._database)
        except StorageError:
            self._lock_file.release()
            raise
        self._loop = asyncio.get_running_loop()
        self._database.start()

    def close(self) -> None:
        """Finish queued writes, release the directory."""
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._lock_file is not None:
            self._lock_file.release()
            self._lock_file = None

    def _load(self, database: Database) -> None:
        for kind, namespace, name, rv, data in database.objects():
            self.bucket(kind).put(self._entry(kind, namespace, name, rv, data))
        self.visible = self.history_from = database.last_version()
        self.compacted = database.compacted_version()
        self._next = self.visible + 1
        for change in database.changes():
            bucket = self.bucket(change.kind)
            key = (change.namespace, change.name)
            old = None if change.old is None else self._entry(change.kind, *key, change.rv, change.old)
            entry = self._entry(change.kind, *key, change.rv, change.data)
            self._remember(bucket, Event(change.rv, change.type, change.at, entry, old))

    def register_fields(self, kind: str, fields_of: FieldsOf) -> None:
        """Declare what field selectors of a stored kind see; objects already there are indexed again."""
        self._fields_of[kind] = fields_of
        bucket = self._buckets.get(kind)
        if bucket is not None:
            bucket.fields_of = fields_of
            for entry in bucket.entries.values():
                entry.fields = fields_of(entry.load())

    def read_again(self, kind: str, change: Callable[[Object], None]) -> None:
        """Show every object of a kind as ``change`` leaves it; what is on disk stays until the next write."""
        for entry in self.bucket(kind).entries.values():
            obj = entry.load()
            change(obj)
            entry.raw, entry.converted = _dump(obj), None

    # -- reading
    def bucket(self, kind: str) -> Bucket:
        found = self._buckets.get(kind)
        if found is None:
            found = self._buckets[kind] = Bucket(kind, self._fields_of.get(kind))
        return found

    def kinds(self) -> list[str]:
        """Stored kinds that have at least one object."""
        return [kind for kind, bucket in self._buckets.items() if bucket.entries]

    def entry(self, kind: str, namespace: str, name: str) -> Entry | None:
        bucket = self._buckets.get(kind)
        return None if bucket is None else bucket.entries.get((namespace, name))

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object in its storage version, or None (ObjectReader)."""
        entry = self.entry(storage_key(resource), namespace or "", name)
        return None if entry is None else entry.load()

    def list(self, resource: Resource, namespace: str | None = None) -> list[Object]:
        """All objects of a kind in their storage version (ObjectReader)."""
        return [entry.load() for entry in self.bucket(storage_key(resource)).range(namespace)]

    def at_version(self, bucket: Bucket, version: int) -> dict[Key, Entry | None]:
        """Differences from now back to ``version``: key → the entry then. Raises Expired when it is forgotten."""
        if version < max(self.compacted, self.history_from):
            raise Expired(f"The resourceVersion for the provided list is too old: {version}.")
        changed: dict[Key, Entry | None] = {}
        for event in reversed(bucket.events):
            if event.rv <= version:
                break
            changed[event.entry.namespace, event.entry.name] = event.old
        return changed

    def since(self, bucket: Bucket, version: int) -> list[Event]:
        """Events after ``version``, oldest first. Raises Expired when some are forgotten."""
        if version < self.compacted:
            raise Expired(f"too old resource version: {version} ({self.compacted + 1})")
        found: list[Event] = []
        for event in reversed(bucket.events):
            if event.rv <= version:
                break
            found.append(event)
        found.reverse()
        return found

    # -- writing
    @asynccontextmanager
    async def lock(self, kind: str, key: Key) -> AsyncGenerator[None]:
        """Exclusive read-modify-write on one object."""
        held = self._locks.setdefault((kind, key), (asyncio.Lock(), []))
        held[1].append(None)
        try:
            async with held[0]:
                yield
        finally:
            held[1].pop()
            if not held[1]:
                self._locks.pop((kind, key), None)

    async def put(self, kind: str, key: Key, obj: Object) -> Entry:
        """Create or replace; sets ``metadata.resourceVersion`` in ``obj``. The caller holds the lock."""
        bucket = self.bucket(kind)
        old = bucket.entries.get(key)
        rv = self._stage()
        obj["metadata"]["resourceVersion"] = str(rv)
        metadata: Object = obj["metadata"]
        fields = bucket.fields_of(obj) if bucket.fields_of else _NO_LABELS
        labels = metadata.get("labels") or _NO_LABELS
        entry = Entry(key[0], key[1], str(metadata.get("uid", "")), rv, labels, fields, _dump(obj))
        await self._commit(bucket, Event(rv, ADDED if old is None else MODIFIED, self._now(), entry, old))
        return entry

    async def remove(self, kind: str, key: Key, last: Object | None = None) -> Entry:
        """Delete; the event carries ``last`` (or the stored state) with the version of the deletion."""
        bucket = self.bucket(kind)
        old = bucket.entries[key]
        obj = old.load() if last is None else last
        rv = self._stage()
        obj["metadata"]["resourceVersion"] = str(rv)
        entry = Entry(key[0], key[1], old.uid, rv, old.labels, old.fields, _dump(obj))
        await self._commit(bucket, Event(rv, DELETED, self._now(), entry, old))
        return entry

    def _stage(self) -> int:
        rv = self._next
        self._next += 1
        return rv

    async def _commit(self, bucket: Bucket, event: Event) -> None:
        if self._database is None or self._loop is None:
            raise ServiceUnavailable("the API server is shutting down; try again when it runs")
        loop = self._loop
        done: asyncio.Future[None] = loop.create_future()

        def finish(error: StorageError | None) -> None:
            if error is None:
                self._publish(bucket, event)  # also when the caller is gone: the write is durable
            if not done.done():
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(ServiceUnavailable(str(error), reason_code="ServiceUnavailable"))

        entry, old = event.entry, event.old
        before = old.raw if old else None
        change = Change(event.rv, event.type, bucket.kind, entry.namespace, entry.name, event.at, entry.raw, before)

        def committed(error: StorageError | None) -> None:
            loop.call_soon_threadsafe(finish, error)

        self._database.submit(change, committed)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait([done])  # the write is under way: keep the object locked until it is visible
            raise

    def _publish(self, bucket: Bucket, event: Event) -> None:
        key = (event.entry.namespace, event.entry.name)
        if event.type == DELETED:
            bucket.drop(key)
        else:
            bucket.put(event.entry)
        self.visible = event.rv
        self.writes += 1
        self._remember(bucket, event)
        self._compact()
        for listener in tuple(bucket.listeners):
            listener(event)

    def _remember(self, bucket: Bucket, event: Event) -> None:
        bucket.events.append(event)
        self._ring.append((event, bucket))
        self._ring_bytes += len(event.entry.raw)

    def _compact(self) -> None:
        keep, ring = self.retention, self._ring
        oldest = self._now() - keep.seconds
        version = 0
        while len(ring) > 1 and (len(ring) > keep.count or self._ring_bytes > keep.bytes or ring[0][0].at < oldest):
            event, bucket = ring.popleft()
            bucket.events.popleft()
            self._ring_bytes -= len(event.entry.raw)
            version = event.rv
        if version and self._database is not None:
            self.compacted = version
            self._database.compact(version)

    def _entry(self, kind: str, namespace: str, name: str, rv: int, data: bytes) -> Entry:
        obj = cast(Object, _decode(data))
        metadata: Object = obj["metadata"]
        fields_of = self._fields_of.get(kind)
        return Entry(
            namespace, name, str(metadata.get("uid", "")), rv, metadata.get("labels") or _NO_LABELS,
            fields_of(obj) if fields_of else _NO_LABELS, data,
        )  # fmt: skip


def _dump(obj: Object) -> bytes:
    """JSON with the type in front, so that readers see the version without parsing."""
    return _encode({"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": obj["metadata"], **obj})


def storage_key(resource: Resource) -> str:
    """Where a kind is stored: all versions of a kind, and both event groups, share one place."""
    if resource.plural == "events" and resource.group in ("", "events.k8s.io"):
        return "events"
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural
