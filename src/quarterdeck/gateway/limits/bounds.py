"""Times, sizes and further attempts of the calls to one MCP server, as the policies of its target say."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from quarterdeck.mcptypes import lists, protocol
from quarterdeck.snapshot.policies import Policies
from quarterdeck.telemetry.metrics import Counter

from ..http.retry import Budget
from .retry import SAFE, Attempts, Hints

if TYPE_CHECKING:
    from ..mcp.call import McpCall
    from ..mcp.relay import McpRelay


_LISTENING = frozenset({"GET", "subscriptions/listen"})
"""Streams that a client opens to be told of things: they last as long as it wants."""


class Bounds:
    """Made only where there is something to keep: most servers have none."""

    def __init__(self, policies: Policies, hints: Hints, budget: Budget, retries: Counter) -> None:
        retry = policies.retry
        each = [policies.backend_timeout, retry.per_try_timeout if retry is not None else 0.0]
        self._timeout = policies.timeout
        self._each = min((seconds for seconds in each if seconds), default=0.0)
        self._most = policies.max_response
        self._retry = retry if retry is not None and retry.attempts > 0 else None
        self._budget = budget
        self._retries = retries
        self.hints = hints if self._retry is not None else None
        """What is known of the server's tools; None where nobody needs to know."""

    @staticmethod
    def wanted(policies: Policies) -> bool:
        """Whether the policies bound anything here."""
        return bool(policies.timeout or policies.backend_timeout or policies.max_response or policies.retry)

    def learn(self, item: bytes | msgspec.Raw) -> None:
        """A tool of the server's list."""
        if self.hints is not None:
            self.hints.learn(item)

    def apply(
        self, relay: McpRelay, call: McpCall, again: Callable[[McpCall], None], gone: Callable[[McpCall], None]
    ) -> None:
        """Bound an attempt. ``again(call)`` makes another; ``gone(call)``: the client left before it could be made."""
        if call.method in _LISTENING:
            return
        attempts = call.attempts
        if attempts is None:
            attempts = call.attempts = self._attempts(call, again, gone)
        ends = [attempts.end] if attempts.end else []
        ends += [monotonic() + self._each] if self._each else []
        if ends:
            relay.end_by(min(ends))
        relay.attempts = attempts
        relay.most = self._most
        if self.hints is not None and call.method == protocol.TOOLS_LIST:
            relay.transform = _learning(self.hints, relay.transform)

    def _attempts(self, call: McpCall, again: Callable[[McpCall], None], gone: Callable[[McpCall], None]) -> Attempts:
        self._budget.request()
        safe = call.method in SAFE or (
            call.method == protocol.TOOLS_CALL and self.hints is not None and self.hints.repeatable(call.tool)
        )

        def count() -> None:
            self._retries.value += 1

        return Attempts(
            self._retry if safe else None,
            self._budget,
            call,
            send=lambda: again(call),
            gone=lambda: gone(call),
            counted=count,
            end=monotonic() + self._timeout if self._timeout else 0.0,
        )


def _learning(hints: Hints, inner: Callable[[bytes], bytes] | None) -> Callable[[bytes], bytes]:
    """A transformation of list answers that remembers what they say of the tools, besides what ``inner`` does."""

    def transform(body: bytes) -> bytes:
        result = lists.members(body).get("result")
        if result is not None:
            for item in lists.items(lists.members(result).get("tools", msgspec.Raw(b"[]"))):
                hints.learn(item)
        return inner(body) if inner is not None else body

    return transform
