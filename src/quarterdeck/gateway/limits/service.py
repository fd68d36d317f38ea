"""All limits of one gateway process. It outlives snapshots: what was counted is found again under the same name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.snapshot.policies import Breaker, Policies, RateLimit
from quarterdeck.telemetry import names
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.http import Header

from ..call import Call
from ..http.retry import Budgets
from ..policy.refusal import Refusal
from .bounds import Bounds
from .breaker import Breakers
from .bucket import Buckets
from .memory import Memory, private
from .rates import Exceeded, Meters, Rate, Rates
from .retry import Hints
from .rooms import Rooms
from .server import ServerLimits

if TYPE_CHECKING:
    from ..mcp.groups import McpGroup
    from ..mcp.route import McpRoute

_log = logging.getLogger("quarterdeck.gateway")
_JSON: Header = (b"content-type", b"application/json")
_JSONRPC = frozenset({"mcp", "a2a"})
_DEFAULT = Breaker()


class Limits:
    """``replicas`` share what the configuration grants; set it before a new configuration is compiled."""

    def __init__(
        self,
        memory: Memory | None = None,
        *,
        registry: Registry | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.replicas = 1
        self._memory = memory or private()
        self._clock = clock
        self._buckets = Buckets(self._memory)
        self.rooms = Rooms(self._memory)
        self.breakers = Breakers(self._memory, clock=clock, on_open=self._opened)
        self._budgets = Budgets()
        self._hints: dict[str, Hints] = {}
        registry = registry or Registry()
        self._retries = registry.counter(names.RETRIES, "Calls of MCP servers made once more.", ("server",))
        self._opens = registry.counter(names.BREAKER_OPENED, "Circuit breakers that opened.", ("server", "tool"))
        self.refused = registry.counter(names.BREAKER_REFUSED, "Calls of open breakers.", ("server", "tool"))
        self.limited = registry.counter(names.RATE_LIMITED, "Requests over a limit.", ("limit",))
        registry.gauge(
            names.BREAKER_STATE,
            "Circuit breakers that are not simply closed.",
            lambda: [({"server": v.server, "tool": v.tool, "state": v.state}, 1.0) for v in self.breakers.views()],
        )

    def admission(self, policies: Policies, where: str) -> Gate | None:
        """What checks a request of a route: rate, concurrency. Raises ConfigError when a limit cannot be kept.

        ``where`` names the route, the same in every configuration.
        """
        return Gate(self, policies, where) if policies.rate_limits or policies.concurrency else None

    def fill(self, group: McpGroup) -> None:
        """Give each member of a group its limits, by the policies of its target and route; all have breakers.

        Raises ConfigError when a limit cannot be kept.
        """
        for member in group.members:
            member.limits = self.server(member.route, group.policies, member.policies, f"{group.key}/{member.name}")
        group.limited = True

    def server(self, route: McpRoute, outer: Policies, target: Policies | None, where: str) -> ServerLimits:
        """Limits of the calls to one server, by the rules of its target, merged with the route's (``outer``).

        ``where`` is the same in every configuration.
        """
        policies = target or outer
        rates = self.rates(policies.rate_limits, where, tools=True, done=outer.rate_limits)
        bounds = None
        if Bounds.wanted(policies):
            hints = self._hints.setdefault(route.label, Hints())
            bounds = Bounds(policies, hints, self._budgets.get(where), self._retries.labels(route.label))
        return ServerLimits(route.label, policies.breaker or _DEFAULT, self, rates, bounds)

    def rates(
        self, limits: tuple[RateLimit, ...], where: str, *, tools: bool, done: tuple[RateLimit, ...] = ()
    ) -> Rates | None:
        """The limits that count tool calls, or those that count requests; None when there are none.

        ``done``: those that the route has counted, whose requests are not counted again for a target.
        """
        chosen: list[Rate] = []
        for rate, limit in zip(self._compiled(limits, where), limits, strict=True):
            if rate.kind == "requests" and (rate.counts_tools == tools or (tools and limit not in done)):
                chosen.append(rate)
        return Rates(chosen, self._buckets, self._clock) if chosen else None

    def meters(self, limits: tuple[RateLimit, ...], where: str) -> Meters | None:
        """The limits that count tokens of models; None when there are none."""
        found = [rate for rate in self._compiled(limits, where) if rate.kind == "tokens"]
        return Meters(found, self._buckets, self._clock) if found else None

    def _compiled(self, limits: tuple[RateLimit, ...], where: str) -> list[Rate]:
        return [
            Rate(limit, f"{where}/limits/{number}", self._memory, self.replicas) for number, limit in enumerate(limits)
        ]

    def room(self, where: str) -> int:
        """The key of a route's room."""
        return self._memory.key(f"room\0{where}")

    def _opened(self, server: str, tool: str) -> None:
        self._opens.labels(server, tool).value += 1
        _log.warning("circuit breaker of %s/%s is open: the tool failed repeatedly", server, tool)


class Gate:
    """The checks of one route, called once for every request."""

    __slots__ = ("_limits", "_meters", "_most", "_rates", "_room", "_where")

    def __init__(self, limits: Limits, policies: Policies, where: str) -> None:
        self._limits = limits
        self._where = where
        self._rates = limits.rates(policies.rate_limits, where, tools=False)
        self._meters = limits.meters(policies.rate_limits, where)
        self._most = max(1, policies.concurrency // limits.replicas) if policies.concurrency else 0
        self._room = limits.room(where)

    def __call__(self, call: Call) -> Refusal | None:
        rates = self._rates
        if rates is not None:
            exceeded = rates.take(call)
            if exceeded is not None:
                return self._exceeded(call, exceeded)
            if call.kind == "http":
                told = rates.headers(call)
                call.exchange.edit_head(lambda _, headers: [*headers, *told])
        if self._meters is not None and call.kind == "llm":
            exceeded = self._meters.check(call)
            if exceeded is not None:
                return self._exceeded(call, exceeded)
            call.exchange.admission.meter = partial(self._meters.spend, call)
        if self._most:
            return self._enter(call)
        return None

    def _enter(self, call: Call) -> Refusal | None:
        rooms = self._limits.rooms
        if rooms.enter(self._room, self._most):
            call.exchange.on_end(lambda: rooms.leave(self._room))
            return None
        rule = f"{self._where}/concurrency"
        self._limits.limited.labels(rule).value += 1
        text = f"too many requests at a time: {self._where} takes {self._most}; try again in 1 s"
        return _refusal(call, 503, text, 1, rule, ((b"retry-after", b"1"),))

    def _exceeded(self, call: Call, exceeded: Exceeded) -> Refusal:
        self._limits.limited.labels(exceeded.rule).value += 1
        return _refusal(call, 429, exceeded.text, exceeded.retry_after, exceeded.rule, exceeded.headers())


def _refusal(call: Call, status: int, text: str, after: int | None, rule: str, headers: tuple[Header, ...]) -> Refusal:
    """As plain HTTP, or to callers who speak JSON-RPC as an error of theirs: MCP clients do not survive a bare 429."""
    ident = jsonrpc.id_of(call.exchange.body) if call.kind in _JSONRPC and call.exchange.method == "POST" else b""
    if not ident:
        return Refusal(status, text, headers, rule)
    body = jsonrpc.error_response(ident, protocol.RATE_LIMITED, text, told(rule, after))
    return Refusal(200, text, (_JSON, *headers), rule, body)


def told(rule: str, after: int | None) -> dict[str, Any]:
    """``data`` of the JSON-RPC error."""
    return {"reason": "rate_limited", "rule": rule, "retryAfter": after}
