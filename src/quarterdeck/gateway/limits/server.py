"""What bounds the calls to one MCP server: circuit breakers of its tools, rates, times, sizes, retries."""

from __future__ import annotations

import asyncio
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.snapshot.policies import Breaker

from ..call import Call, Outcome
from .bounds import Bounds
from .breaker import Health
from .rates import Rates

if TYPE_CHECKING:
    from .service import Limits

_LEASE = 3600.0
"""Seconds after which a probe that never ended counts for nothing; that of a process that died does so at once."""

_PEERS = "peers"
"""Name of the listener by which another process of the gateway passes on what it has admitted already."""


class Stop(NamedTuple):
    """Why a call goes no further. ``unavailable``: the breaker is open; else a rate limit is used up."""

    unavailable: bool
    text: str
    retry_after: int | None
    rule: str


class ServerLimits:
    """Limits of one server as one group of servers uses it; the guard of the calls to it."""

    def __init__(self, label: str, rule: Breaker, limits: Limits, rates: Rates | None, bounds: Bounds | None) -> None:
        self.label = label
        self.bounds = bounds
        self._rule = rule
        self._limits = limits
        self._breakers = limits.breakers
        self._rates = rates

    def admit(self, call: Call) -> Stop | None:
        """Whether a ``tools/call`` may go on."""
        if self._rule.failures:
            if self._breakers.active:
                wait = self._waiting(call)
                if wait > 0.0:
                    return self._unavailable(call.tool, wait)
                if wait < 0.0:
                    self._probes(call)
            call.guard = self
        if self._rates is not None and call.exchange.listener != _PEERS:
            exceeded = self._rates.take(call)
            if exceeded is not None:
                self._limits.limited.labels(exceeded.rule).value += 1
                return Stop(False, exceeded.text, exceeded.retry_after, exceeded.rule)
        return None

    def over(self, call: Call, outcome: Outcome, status: int) -> None:
        health = call.health or _health(outcome, status)
        if health == "answered" and not self._breakers.active:
            return
        self._breakers.report(self.label, call.tool, health, self._rule, probe=call.probe)
        call.probe = False

    def _waiting(self, call: Call) -> float:
        if call.exchange.listener == _PEERS:
            return -1.0 if self._breakers.adopt(self.label, call.tool) else 0.0
        return self._breakers.admit(self.label, call.tool, _LEASE)

    def _probes(self, call: Call) -> None:
        """However the call ends, the next may be the probe then."""
        call.probe = True
        call.exchange.on_end(lambda: self._later(call))

    def _later(self, call: Call) -> None:
        """In this loop iteration the call may still be recorded."""
        asyncio.get_running_loop().call_soon(self._abandoned, call)

    def _abandoned(self, call: Call) -> None:
        if call.probe:
            call.probe = False
            self._breakers.report(self.label, call.tool, "unknown", self._rule, probe=True)

    def _unavailable(self, tool: str, wait: float) -> Stop:
        self._limits.refused.labels(self.label, tool).value += 1
        after = max(1, ceil(wait))
        text = (
            f'tool unavailable: "{tool}" of MCP server {self.label} has failed repeatedly and is not called for now; '
            f"it is tried again in {after} s. Go on without it, or use another tool."
        )
        return Stop(True, text, after, f"breaker/{self.label}/{tool}")


def _health(outcome: Outcome, status: int) -> Health:
    """What an end that nobody judged says of the server."""
    if outcome in ("ok", "tool_error"):
        return "answered"
    if outcome == "error":
        if status < 400:
            return "answered"
        if status in (502, 504):
            return "failed"
    return "unknown"


def unavailable(raw_id: bytes, stop: Stop, server: str, tool: str, *, modern: bool) -> bytes:
    """The answer to a call of a tool whose breaker is open: a result that says so.

    A tool's failure is a result with ``isError`` (MCP 2025-11-25, server/tools, error handling): hosts give it to
    their model, while a JSON-RPC error is raised as an exception by the SDKs' clients.
    """
    result: dict[str, Any] = {"resultType": "complete"} if modern else {}
    result["content"] = [{"type": "text", "text": stop.text}]
    result["isError"] = True
    result["_meta"] = {"quarterdeck.dev/unavailable": {"server": server, "tool": tool, "retryAfter": stop.retry_after}}
    return jsonrpc.result_response(raw_id, result)


def limited(raw_id: bytes, stop: Stop) -> bytes:
    """The answer to a call over a rate limit."""
    data = {"reason": "rate_limited", "rule": stop.rule, "retryAfter": stop.retry_after}
    return jsonrpc.error_response(raw_id, protocol.RATE_LIMITED, stop.text, data)
