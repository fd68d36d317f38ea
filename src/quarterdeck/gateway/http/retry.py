"""When a request may be sent once more, and how often that may happen."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods whose repetition changes nothing (RFC 9110 §9.2.2)."""
_COST = 5
"""Requests that pay for one retry."""
_MOST = 50.0 * _COST
_PER_SECOND = 5.0 * _COST


class Budget:
    """Retries of one route: a fifth of its requests, and five a second besides, so that a broken backend does not get
    a multiple of the traffic that broke it."""

    __slots__ = ("_balance", "_clock", "_seen")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen = clock()
        self._balance = 10.0 * _COST

    def request(self) -> None:
        """A request came."""
        self._balance = min(_MOST, self._balance + 1)

    def take(self) -> bool:
        """Whether a retry may be sent; it is counted then."""
        now = self._clock()
        self._balance = min(_MOST, self._balance + (now - self._seen) * _PER_SECOND)
        self._seen = now
        if self._balance < _COST:
            return False
        self._balance -= _COST
        return True


class Budgets:
    """Budgets by route: a new snapshot must not refill them."""

    def __init__(self) -> None:
        self._budgets: dict[str, Budget] = {}

    def get(self, route: str) -> Budget:
        return self._budgets.setdefault(route, Budget())


def wait(backoff: float, attempt: int) -> float:
    """Seconds before the retry of that number (from 1): doubling, spread over the upper half, a minute at most."""
    return min(60.0, backoff * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
