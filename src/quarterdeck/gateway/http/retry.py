"""When a request may be sent once more, and how often that may happen."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from quarterdeck.cel.errors import EvalError
from quarterdeck.errors import ConfigError
from quarterdeck.snapshot.policies import Retry
from quarterdeck.wire.http import Exchange, Header

if TYPE_CHECKING:
    from ..policy.expressions import Expression

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


class Conditions:
    """What a retry rule says of the requests and answers it is for."""

    def __init__(self, rule: Retry, where: str) -> None:
        """Raises ConfigError, naming ``where``, when an expression cannot be used."""
        self._codes = frozenset(rule.codes)
        self._request = _compiled(rule.precondition, f"{where} retry precondition")
        self._answer = _compiled(rule.condition, f"{where} retry condition")
        if self._answer is not None and self._answer.reads_response_body:
            raise ConfigError(f"{where} retry condition: the body is not there when it is decided")

    def allow(self, exchange: Exchange) -> bool:
        """Whether this request may be sent again at all (``precondition``)."""
        if self._request is None:
            return True
        from ..policy.attributes import variables

        return _holds(self._request, variables(exchange.admission))

    def want(self, exchange: Exchange, status: int, headers: list[Header]) -> bool:
        """Whether an answer asks for another attempt: by its code, or because it meets ``condition``."""
        if status in self._codes:
            return True
        if self._answer is None:
            return False
        from ..policy.transformation import with_response

        return _holds(self._answer, with_response(exchange.admission, status, headers, None))


def _compiled(source: str, where: str) -> Expression | None:
    if not source:
        return None
    from ..policy.expressions import compile_expression  # loaded only where such a rule is used

    return compile_expression(source, where)


def _holds(expression: Expression, values: Mapping[str, Any]) -> bool:
    try:
        return expression.evaluate(values) is True
    except EvalError:
        return False
