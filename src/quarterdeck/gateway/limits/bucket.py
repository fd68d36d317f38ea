"""Token buckets: full at first, ``per_fill`` tokens more after each whole interval, never above ``max``.

What agentgateway's ``localRateLimit`` does (crates/agentgateway/src/http/localratelimit.rs). A record is
``key, start, spent, full``: the level is ``max`` + what was filled since ``start`` − ``spent``, where ``spent`` never
falls behind what was filled. ``full`` is when the bucket says no more than a new one would: where a table is full the
one that is nearest to that makes room.
"""

from __future__ import annotations

from math import ceil, inf

from .memory import Memory

_EXACT = 1e-9
"""Fractions of a token, from limits divided over replicas, do not add up exactly."""


class Shape:
    """``max`` tokens, ``per_fill`` more every ``interval`` seconds."""

    __slots__ = ("interval", "max", "per_fill", "per_token")

    def __init__(self, max_tokens: float, per_fill: float, interval: float) -> None:
        self.max = max_tokens
        self.per_fill = per_fill
        self.interval = interval
        self.per_token = interval / per_fill if per_fill else inf
        """Seconds until one token is filled again, on average."""


def divided(max_tokens: int, per_fill: int, interval: float, replicas: int) -> Shape:
    """One replica's share: in the long run that part of the tokens, and one at a time at least."""
    most = max(1.0, max_tokens / replicas) if max_tokens else 0.0
    return Shape(most, min(per_fill, max_tokens) / replicas, interval)


class Buckets:
    """All buckets of a gateway."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._table = memory.buckets
        self._lock = memory.lock
        self._words = memory.words
        self._reals = memory.reals
        self._places: dict[int, int] = {}

    def take(self, shape: Shape, key: int, now: float, tokens: float = 1.0) -> float:
        """Tokens left after these were taken; negative when there were too few: minus the seconds until there are."""
        lock = self._lock
        if lock is not None and not lock.acquire():
            self._memory.repair()
        try:
            reals = self._reals
            at = self._places.get(key, 0)
            if self._words[at] != key:
                at = self._place(key, now)
            filled = (now - reals[at + 1]) // shape.interval * shape.per_fill
            spent = reals[at + 2]
            if spent < filled:
                spent = filled
            left = shape.max + filled - spent - tokens
            if left < -_EXACT:
                return -self._wait(shape, now - reals[at + 1], -left)
            spent += tokens
            reals[at + 2] = spent
            reals[at + 3] = reals[at + 1] + shape.interval + spent * shape.per_token
            return left if left > 0.0 else 0.0
        finally:
            if lock is not None:
                lock.release()

    def level(self, shape: Shape, key: int, now: float) -> tuple[float, float]:
        """Tokens that are there, and seconds until the next are filled."""
        at = self._table.find(key)
        if at < 0:
            return shape.max, shape.interval
        since = now - self._reals[at + 1]
        filled = since // shape.interval * shape.per_fill
        left = shape.max + filled - max(filled, self._reals[at + 2])
        return left, shape.interval - since % shape.interval

    def spend(self, shape: Shape, key: int, now: float, tokens: float) -> None:
        """Take tokens that were used already, or give back (negative) what was not: all there are, and no more."""
        self._memory.enter()
        try:
            at = self._place(key, now)
            filled = (now - self._reals[at + 1]) // shape.interval * shape.per_fill
            spent = max(filled, self._reals[at + 2]) + tokens
            self._reals[at + 2] = spent = min(max(spent, filled), filled + shape.max)
            self._reals[at + 3] = self._reals[at + 1] + shape.interval + spent * shape.per_token
        finally:
            self._memory.leave()

    def _wait(self, shape: Shape, since: float, missing: float) -> float:
        if not shape.per_fill or missing > shape.max + _EXACT:
            return inf
        fills = max(1, ceil((missing - _EXACT) / shape.per_fill))
        return fills * shape.interval - since % shape.interval

    def _place(self, key: int, now: float) -> int:
        """Where the record is; one is made where there was none."""
        at = self._table.find(key)
        if at < 0:
            reals = self._reals
            at = min(self._table.places(key), key=lambda place: reals[place + 3])
            reals[at + 1], reals[at + 2], reals[at + 3] = now, 0.0, now
            self._words[at] = key
        if len(self._places) >= self._table.slots:
            self._places.clear()
        self._places[key] = at
        return at
