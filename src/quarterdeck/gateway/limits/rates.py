"""Rate limits of a route or a target, compiled: which bucket a request takes from, and what it is told when empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, inf, isinf
from typing import Any, NamedTuple

from quarterdeck.cel import EvalError
from quarterdeck.errors import ConfigError
from quarterdeck.snapshot.policies import RateLimit
from quarterdeck.wire.http import Header

from ..call import Call
from ..policy import attributes
from ..policy.admission import admission_of
from ..policy.expressions import as_text, compile_expression
from .bucket import Buckets, divided
from .memory import Memory

_KEYS, _KEY_LENGTH = 10_000, 256
"""Keys of one limit whose hash is remembered; the buckets themselves are bounded by the table."""


class Exceeded(NamedTuple):
    """A bucket that had too few tokens. ``wait``: seconds until it has; infinite when it never will."""

    rule: str
    limit: float
    left: float
    wait: float

    @property
    def retry_after(self) -> int | None:
        """Whole seconds after which it is worth trying again."""
        return None if isinf(self.wait) else max(1, ceil(self.wait))

    @property
    def text(self) -> str:
        """What callers are told."""
        after = self.retry_after
        when = f"try again in {after} s" if after is not None else "it is never filled again"
        return f"too many requests: the rate limit {self.rule} is used up; {when}"

    def headers(self) -> tuple[Header, ...]:
        """RFC 9110 §10.2.3, and the three of agentgateway."""
        after = self.retry_after
        told = _told(self.limit, self.left, after or 0)
        return told if after is None else ((b"retry-after", b"%d" % after), *told)


class Rate:
    """One limit. ``key`` is CEL; without one, or where it gives nothing, all requests share a bucket."""

    __slots__ = ("_evaluate", "_fixed", "_keys", "_memory", "_scope", "counts_tools", "kind", "rule", "shape")

    def __init__(self, limit: RateLimit, rule: str, memory: Memory, replicas: int) -> None:
        """Raises ConfigError naming ``rule`` when the limit cannot be kept."""
        if limit.fill_interval <= 0 or limit.max_tokens < 0 or limit.tokens_per_fill < 0:
            raise ConfigError(f"{rule}: the fill interval must be above 0 s and no number of tokens below 0")
        self.rule = rule
        self.kind = limit.kind
        self.shape = divided(limit.max_tokens, limit.tokens_per_fill, limit.fill_interval, replicas)
        self.counts_tools = False
        """Whether it can be told only once the tool is known."""
        self._evaluate: Callable[[Mapping[str, Any]], Any] | None = None
        if limit.key:
            expression = compile_expression(limit.key, f"{rule} key")
            self._evaluate = expression.evaluate
            self.counts_tools = any(path[:1] == ("mcp",) for path in expression.references)
        self._memory = memory
        self._scope = f"{rule}\0{limit.max_tokens}/{limit.tokens_per_fill}/{limit.fill_interval}/{replicas}\0"
        self._fixed = memory.key(self._scope)
        self._keys: dict[str, int] = {}

    def bucket(self, call: Call) -> int:
        """The bucket of a request."""
        if self._evaluate is None:
            return self._fixed
        try:
            text = as_text(self._evaluate(_variables(call, tool=self.counts_tools)))
        except EvalError:
            return self._fixed
        key = self._keys.get(text)
        if key is None:
            key = self._memory.key(self._scope + text)
            if len(text) <= _KEY_LENGTH:
                if len(self._keys) >= _KEYS:
                    del self._keys[next(iter(self._keys))]
                self._keys[text] = key
        return key


class Rates:
    """Several limits at once: a request takes from all of their buckets, or from none."""

    __slots__ = ("_buckets", "_clock", "_rates")

    def __init__(self, rates: list[Rate], buckets: Buckets, clock: Callable[[], float]) -> None:
        self._rates = rates
        self._buckets = buckets
        self._clock = clock

    def take(self, call: Call) -> Exceeded | None:
        """Count one request; the limit that does not allow it, if there is one."""
        now = self._clock()
        for number, rate in enumerate(self._rates):
            bucket = rate.bucket(call)
            left = self._buckets.take(rate.shape, bucket, now)
            if left < 0.0:
                for other in self._rates[:number]:
                    self._buckets.spend(other.shape, other.bucket(call), now, -1.0)
                return Exceeded(rate.rule, rate.shape.max, self._buckets.level(rate.shape, bucket, now)[0], -left)
        return None

    def headers(self, call: Call) -> tuple[Header, ...]:
        """What a response says of the limit that is nearest to being used up."""
        now = self._clock()
        nearest: tuple[float, float, float] = (inf, inf, inf)
        for rate in self._rates:
            left, reset = self._buckets.level(rate.shape, rate.bucket(call), now)
            nearest = min(nearest, (left, rate.shape.max, reset))
        return _told(nearest[1], nearest[0], ceil(nearest[2]))


class Meters:
    """Limits on tokens of models: a request needs one that is left, what it used is taken afterwards."""

    __slots__ = ("_buckets", "_clock", "_rates")

    def __init__(self, rates: list[Rate], buckets: Buckets, clock: Callable[[], float]) -> None:
        self._rates = rates
        self._buckets = buckets
        self._clock = clock

    def check(self, call: Call) -> Exceeded | None:
        """The limit that has no token left, if there is one."""
        now = self._clock()
        for rate in self._rates:
            left, _ = self._buckets.level(rate.shape, bucket := rate.bucket(call), now)
            if left < 1.0:
                wait = -self._buckets.take(rate.shape, bucket, now)
                return Exceeded(rate.rule, rate.shape.max, max(0.0, left), wait)
        return None

    def spend(self, call: Call, tokens: int) -> None:
        """Take what an answer used; a bucket does not fall below empty (as agentgateway's ``amend_tokens``)."""
        now = self._clock()
        for rate in self._rates:
            self._buckets.spend(rate.shape, rate.bucket(call), now, tokens)


def _variables(call: Call, *, tool: bool) -> Mapping[str, Any]:
    """What keys read: the attributes of the request, and of a tool call what it calls."""
    admission = admission_of(call)
    assert admission is not None
    found: Any = attributes.variables(admission)
    if tool:
        found["mcp"] = {"tool": {"name": call.tool, "target": getattr(call, "target", "")}, "methodName": call.method}
    return found


def _told(limit: float, left: float, reset: int) -> tuple[Header, ...]:
    return (
        (b"x-ratelimit-limit", b"%d" % limit),
        (b"x-ratelimit-remaining", b"%d" % max(0.0, left)),
        (b"x-ratelimit-reset", b"%d" % reset),
    )
