"""Background loops that outlive their own bugs: an unexpected end is logged, counted and followed by a new start.

A loop that nobody awaits would otherwise end in silence, and what it kept current would stay as it was for ever.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from quarterdeck.kube.clock import Clock, SystemClock, sleep

log = logging.getLogger(__name__)

_BACKOFF = (1.0, 60.0)
_STEADY = 60.0
"""Seconds a loop must have run for its back-off to start anew."""


class Supervisor:
    """Of the loops of one process."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.failures: Counter[str] = Counter()
        """Unexpected ends by loop, for the metric."""
        self._clock = clock or SystemClock()

    async def keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run ``loop`` until it returns or this is cancelled; after an exception again, in 1 s, 2 s, … up to a minute.

        ``name`` is in the log and in the metric: a word for all loops of a kind, not one for each.
        """
        self.failures[name] += 0  # the series is there before the first failure
        delay, limit = _BACKOFF
        while True:
            began = self._clock.monotonic()
            try:
                return await loop()
            except Exception:
                self.failures[name] += 1
                if self._clock.monotonic() - began >= _STEADY:
                    delay = _BACKOFF[0]
                log.exception("%s ended of a bug, again in %.0f s", name, delay)
            await sleep(self._clock, delay)
            delay = min(delay * 2, limit)
