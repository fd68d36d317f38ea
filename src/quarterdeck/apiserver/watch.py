"""watch: a stream of changes of one kind, filtered by selectors and shown in the asked representation."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import time

from quarterdeck.apiserver import tables
from quarterdeck.apiserver.codec import encode
from quarterdeck.apiserver.database import ADDED, DELETED, MODIFIED
from quarterdeck.apiserver.kinds import Kind
from quarterdeck.apiserver.lists import check_reached, parse_version
from quarterdeck.apiserver.options import flag, number
from quarterdeck.apiserver.selectors import Selection
from quarterdeck.apiserver.store import EVENT_TYPES, Entry, Event, Store
from quarterdeck.apiserver.versions import ready, served_bytes, to_served
from quarterdeck.errors import ApiError, Cause, Invalid
from quarterdeck.kube.resource import Object
from quarterdeck.wire.http import Disconnected, Exchange

MAX_PENDING = 10_000
"""Events a watcher may lag behind before its stream is ended; the client resumes from its last version."""

_BOOKMARK_SECONDS = 60.0
_DEFAULT_TIMEOUT = 3600.0
_INITIAL_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """The parameters of a watch. ``version`` None: begin with what is there now."""

    version: int | None
    bookmarks: bool
    initial: bool
    initial_end: bool
    timeout: float
    shape: str = "object"
    include: str = "Metadata"


def parse_watch(query: Mapping[str, str], visible: int, shape: str) -> WatchQuery:
    """Raises Invalid, BadRequest, or GatewayTimeout for a version from the future."""
    text, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    send = flag(query, "sendInitialEvents")
    if send is not None and match != "NotOlderThan":
        raise _invalid(f"sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, got {match!r}")
    if send is None and match:
        raise _invalid("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
    version = parse_version(text) if text else 0
    if version:
        check_reached(version, visible)
    bookmarks = bool(flag(query, "allowWatchBookmarks"))
    initial = bool(send) or (send is None and not version)
    start = None if initial else (version or visible)
    return WatchQuery(
        start, bookmarks, initial, bool(send) and bookmarks, float(number(query, "timeoutSeconds") or _DEFAULT_TIMEOUT),
        shape, query.get("includeObject", "Metadata"),
    )  # fmt: skip


def _invalid(message: str) -> Invalid:
    cause = Cause("resourceVersionMatch", f"Forbidden: {message}", "FieldValueForbidden")
    return Invalid(
        f'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: {message}', kind="ListOptions",
        group="meta.k8s.io", causes=(cause,),
    )  # fmt: skip


class Watcher:
    """One running watch: events come in through :meth:`offer`, lines go out through :meth:`run`."""

    def __init__(
        self,
        store: Store,
        kind: Kind,
        namespace: str | None,
        wanted: Selection,
        query: WatchQuery,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self.store = store
        self.kind = kind
        self.namespace = namespace
        self.wanted = wanted
        self.query = query
        self.bucket = store.bucket(kind.key)
        self.max_pending = max_pending
        self.ended = False
        self._exchange: Exchange | None = None
        self._pending: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._header_sent = False

    def offer(self, event: Event) -> None:
        """Called for each change of the kind, in version order."""
        if self.namespace is not None and event.entry.namespace != self.namespace:
            return
        if len(self._pending) >= self.max_pending:
            self._cut_off()
        elif not self.ended:
            self._pending.append(event)
            self._wake.set()

    def stop(self) -> None:
        """End the stream after what is pending."""
        self.ended = True
        self._wake.set()

    def _cut_off(self) -> None:
        """The client does not keep up: what it missed is dropped, it resumes from its last version."""
        self.stop()
        self._pending.clear()
        if self._exchange is not None:
            self._exchange.abort()  # it may be waiting for room to write, so no polite end would reach the client

    async def run(self, exchange: Exchange) -> None:
        """Stream until the time is over, the client goes away, or it is too slow."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.query.timeout
        self._exchange = exchange
        exchange.start(200, [(b"content-type", b"application/json")])
        self.bucket.listeners.add(self.offer)
        exchange.on_disconnect(self.stop)
        try:
            first = await self._first()
            if first:
                await exchange.send(first)
            await self._stream(exchange, deadline)
            exchange.finish()
        except ApiError as error:  # Expired, or a conversion webhook that fails
            await exchange.send(error_line(error))
            exchange.finish()
        except Disconnected:
            return
        finally:
            self.bucket.listeners.discard(self.offer)

    async def _stream(self, exchange: Exchange, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        bookmark_at = loop.time() + _BOOKMARK_SECONDS
        while not self.ended or self._pending:
            limit = min(deadline, bookmark_at) if self.query.bookmarks else deadline
            if not self._pending and not self.ended:
                self._wake.clear()
                timer = loop.call_at(limit, self._wake.set)
                await self._wake.wait()
                timer.cancel()
            lines: list[bytes] = []
            if self.kind.webhook is not None:
                await ready(self.kind, [event.entry for event in self._pending])
            while self._pending:
                line = self._line(self._pending.popleft())
                if line:
                    lines.append(line)
            if lines:
                await exchange.send(b"".join(lines))
            if loop.time() >= deadline:
                return
            if self.query.bookmarks and loop.time() >= bookmark_at:
                bookmark_at = loop.time() + _BOOKMARK_SECONDS
                if not self._pending:
                    await exchange.send(self._bookmark(self.store.visible))

    async def _first(self) -> bytes:
        """What the stream begins with: the present state, or the history since a version."""
        query = self.query
        if not query.initial:
            missed = self.store.since(self.bucket, query.version or 0)
            for event in missed:
                if self.namespace is None or event.entry.namespace == self.namespace:
                    self._pending.append(event)
            return b""
        version = self.store.visible
        entries = [entry for entry in self.bucket.range(self.namespace) if self.wanted.matches(entry)]
        await ready(self.kind, entries)
        lines = [self._encode(ADDED, entry) for entry in entries]
        if query.initial_end:
            lines.append(self._bookmark(version, initial_end=True))
        return b"".join(lines)

    def _line(self, event: Event) -> bytes:
        """One event as this watcher sees it: entering and leaving the selection are ADDED and DELETED."""
        type_ = event.type
        if not self.wanted.everything:
            now = type_ != DELETED and self.wanted.matches(event.entry)
            before = event.old is not None and self.wanted.matches(event.old)
            if not now and not before:
                return b""
            if not now and type_ != DELETED and event.old is not None:
                return self._left(event, event.old)
            type_ = DELETED if not now else (MODIFIED if before else ADDED)
        if self.query.shape == "Table":
            return self._encode(type_, event.entry)
        key = (type_, self.query.shape, self.kind.resource.api_version)
        line = event.wire.get(key)
        if line is None:
            line = event.wire[key] = self._encode(type_, event.entry)
        return line

    def _left(self, event: Event, old: Entry) -> bytes:
        """Out of the selector: as upstream, the object as it last matched, with the version of the change."""
        if self.kind.webhook is not None:
            return self._encode(DELETED, event.entry)
        obj = old.load()
        obj["metadata"]["resourceVersion"] = str(event.rv)
        return self._encode(DELETED, replace(old, rv=event.rv, raw=encode(obj)))

    def _encode(self, type_: int, entry: Entry) -> bytes:
        shape = self.query.shape
        if shape == "Table":
            obj = to_served(self.kind, entry)
            metadata: Object = {"resourceVersion": str(entry.rv)}
            header = not self._header_sent
            self._header_sent = True
            shown = encode(tables.table(self.kind, [obj], metadata, time(), self.query.include, header=header))
        elif shape in tables.SHAPES:
            shown = encode(tables.partial(entry.load()))
        else:
            shown = served_bytes(self.kind, entry)
        return b'{"type":"%b","object":%b}\n' % (EVENT_TYPES[type_].encode(), shown)

    def _bookmark(self, version: int, *, initial_end: bool = False) -> bytes:
        metadata: Object = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {_INITIAL_END: "true"}
        resource = self.kind.resource
        obj: Object = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        if self.query.shape == "Table":
            obj = tables.table(self.kind, [], metadata, time(), self.query.include, header=False)
        elif self.query.shape in tables.SHAPES:
            obj = tables.partial(obj)
        return encode({"type": "BOOKMARK", "object": obj}) + b"\n"


def error_line(error: ApiError) -> bytes:
    """A watch's ERROR event."""
    return encode({"type": "ERROR", "object": error.to_status()}) + b"\n"
