"""Keyed work queue: each key waits at most once and is worked on by at most one worker at a time.

Semantics of client-go's rate limiting queue. First come, first served, so that one busy key cannot starve others: a key
added while it is being worked on goes to the end of the line when that work is done.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from quarterdeck.kube.clock import Clock, SystemClock, Timer

K = TypeVar("K", bound=Hashable)


class QueueClosed(Exception):
    """The queue was closed: workers end."""


class WorkQueue(Generic[K]):
    """``base`` and ``limit``: seconds of the first back-off and its bound; each failure doubles it, ±20 % jitter."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        base: float = 0.05,
        limit: float = 300.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock or SystemClock()
        self._base = base
        self._limit = limit
        self._jitter = jitter
        self._ready: OrderedDict[K, None] = OrderedDict()
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, tuple[float, Timer]] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False
        self.retries = 0

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        if self._closed:
            return
        if key in self._active:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = None
            self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Add later; an earlier time already set for the key stays."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + seconds
        known = self._timers.get(key)
        if known is not None:
            if known[0] <= due:
                return
            known[1].cancel()
        self._timers[key] = (due, self._clock.call_later(seconds, lambda: self._fire(key)))

    def add_rate_limited(self, key: K) -> float:
        """Add after the key's back-off; gives the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retries += 1
        delay = min(self._base * 2 ** min(failures, 32), self._limit) * (0.8 + 0.4 * self._jitter())
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its back-off starts anew."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """The next key; call :meth:`done` with it. Raises QueueClosed."""
        while not self._ready:
            if self._closed:
                raise QueueClosed
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        key, _ = self._ready.popitem(last=False)
        self._active.add(key)
        if self._ready:
            self._wake()
        return key

    def done(self, key: K) -> None:
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being worked on (delayed keys may exist)."""
        return not self._ready and not self._active

    def close(self) -> None:
        self._closed = True
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
                return
