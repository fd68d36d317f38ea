"""List, then watch, for as long as it runs: the loop that keeps a cache current through every kind of failure.

A lost connection resumes at the last version seen, bookmarks included; when the server has forgotten that version (410)
everything is listed anew and compared with what the cache holds. Failures wait longer each time, with jitter.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Protocol

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient, ObjectList, WatchEvent
from quarterdeck.kube.clock import Clock, sleep
from quarterdeck.kube.resource import Resource

log = logging.getLogger(__name__)

_BACKOFF = (0.2, 30.0)
_NOT_SERVED = 5.0
"""Longest wait for a kind whose definition is missing: it is usually about to be installed."""
_SHORT = 1.0
"""Seconds a watch must have lasted, or brought something, to count as one that worked."""
_RESTED = 30.0
"""Seconds between two reads of an object that cannot be watched."""
_NOT_NOW = frozenset({401, 403, 429})
_PATIENCE = 4
"""Failures of a watch in a row after which its version is given up (it may be of a store restored since)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to follow. ``namespace`` None: everywhere; ``name``: one cluster-scoped object, read at intervals."""

    namespace: str | None = None
    label_selector: str = ""
    field_selector: str = ""
    metadata_only: bool = False
    name: str = ""


@dataclass(slots=True)
class WatchStats:
    """Counters since the start, of one kind."""

    lists: int = 0
    watches: int = 0
    failures: int = 0
    bugs: int = 0
    """Objects that a reader of the cache could not cope with."""


class Sink(Protocol):
    """The cache that is kept current."""

    def replaced(self, listed: ObjectList, scope: Scope) -> None: ...

    def changed(self, event: WatchEvent) -> None: ...

    def not_served(self, scope: Scope) -> None:
        """The server does not know the kind (yet)."""
        ...


class Reflector:
    """One list and watch of one scope."""

    def __init__(
        self, client: KubeClient, res: Resource, scope: Scope, sink: Sink, clock: Clock, stats: WatchStats
    ) -> None:
        self._client = client
        self._res = res
        self._scope = scope
        self._sink = sink
        self._clock = clock
        self._stats = stats
        self._version = ""
        self._useful = False

    async def run(self) -> None:
        failures = 0
        while True:
            self._useful = False
            try:
                await (self._read() if self._scope.name else self._follow())
            except errors.Expired as error:
                self._version = ""
                log.debug("%s: %s; listing anew", self._res.plural, error)
            except errors.QuarterdeckError as error:
                failures = self._failed(error, failures)
                await sleep(self._clock, self._delay(error, failures))
                continue
            if self._useful:
                failures = 0
            else:  # ended at once, again and again: a proxy or a server that is going down
                failures += 1
                await sleep(self._clock, self._delay(None, failures))

    async def _follow(self) -> None:
        began = self._clock.monotonic()
        if not self._version:
            await self._list()
        await self._watch()
        self._useful = self._useful or self._clock.monotonic() - began >= _SHORT

    async def _list(self) -> None:
        scope = self._scope
        self._stats.lists += 1
        listed = await self._client.list(
            self._res,
            scope.namespace,
            label_selector=scope.label_selector,
            field_selector=scope.field_selector,
            metadata_only=scope.metadata_only,
        )
        self._sink.replaced(listed, scope)
        self._version = listed.resource_version

    async def _watch(self) -> None:
        scope = self._scope
        self._stats.watches += 1
        stream = self._client.watch(
            self._res,
            scope.namespace,
            resource_version=self._version,
            label_selector=scope.label_selector,
            field_selector=scope.field_selector,
            metadata_only=scope.metadata_only,
        )
        async for event in stream:
            self._sink.changed(event)
            self._version = event.object["metadata"]["resourceVersion"]
            self._useful = True

    async def _read(self) -> None:
        """One object that we may get, but neither list nor watch (a Namespace, with rights in that namespace only)."""
        self._stats.lists += 1
        try:
            items = [await self._client.get(self._res, self._scope.name)]
        except errors.NotFound:
            items = []
        self._sink.replaced(ObjectList(items, ""), self._scope)
        self._useful = True
        await sleep(self._clock, _RESTED * random.uniform(0.8, 1.2))  # noqa: S311

    def _failed(self, error: errors.QuarterdeckError, failures: int) -> int:
        self._stats.failures += 1
        failures = 1 if self._useful else failures + 1
        # A server that is going down or refuses us has not forgotten the version; any other answer is about it.
        passing = isinstance(error, errors.ApiError) and (error.status_code >= 500 or error.status_code in _NOT_NOW)
        if isinstance(error, errors.ApiError) and (not passing or failures >= _PATIENCE):
            self._version = ""
        if _not_served(error):
            self._sink.not_served(self._scope)
        quiet = failures > 3 or (_not_served(error) and failures > 1)
        log.log(logging.DEBUG if quiet else logging.WARNING, "cannot follow %s: %s", self._res.plural, error)
        return failures

    def _delay(self, error: errors.QuarterdeckError | None, failures: int) -> float:
        first, limit = _BACKOFF
        if error is not None and _not_served(error):
            limit = _NOT_SERVED
        return min(first * 2 ** min(failures - 1, 16), limit) * random.uniform(0.8, 1.2)  # noqa: S311


def _not_served(error: errors.QuarterdeckError) -> bool:
    """Whether the kind is unknown there. Of a group's only definition that is missing a real server says so in plain
    text ("404 page not found"), without a Status."""
    return isinstance(error, errors.ApiError) and error.status_code == 404
