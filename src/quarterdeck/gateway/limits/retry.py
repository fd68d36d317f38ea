"""Which MCP calls may be sent once more, and when: those whose repetition changes nothing, within a budget.

Lists and gets are; a tool is when its server says so in its annotations (``readOnlyHint``, ``idempotentHint``). Those
are learned from the lists that pass by: a tool that nobody has listed here is never repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import msgspec
from msgspec import Struct

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import lists, protocol
from quarterdeck.snapshot.policies import Retry

from ..call import Call
from ..http.retry import Budget, wait

SAFE = frozenset(
    {
        *lists.LIST_KEYS, protocol.PROMPTS_GET, protocol.RESOURCES_READ, protocol.PING, protocol.DISCOVER,
        "completion/complete", "tasks/get", "tasks/list",
    }
)  # fmt: skip
"""Methods that only read."""
_PASSING = frozenset({502, 503, 504})
"""Statuses worth another attempt where the rule names none."""
_TOOLS = 10_000


class _Annotations(Struct, rename="camel"):
    read_only_hint: bool = False
    idempotent_hint: bool = False


class _Tool(Struct):
    name: str = ""
    annotations: _Annotations | None = None


class Hints:
    """Which tools of a server may be called again, from its own lists."""

    def __init__(self) -> None:
        self._repeatable: dict[str, bool] = {}

    def learn(self, item: bytes | msgspec.Raw) -> None:
        """One tool of a list, as the server sent it. What cannot be read is not repeatable."""
        try:
            tool = _tools.decode(item)
        except MALFORMED:
            return
        hints = tool.annotations
        if tool.name in self._repeatable or len(self._repeatable) < _TOOLS:
            self._repeatable[tool.name] = hints is not None and (hints.read_only_hint or hints.idempotent_hint)

    def repeatable(self, tool: str) -> bool:
        return self._repeatable.get(tool, False)


_tools = msgspec.json.Decoder(_Tool)


class Attempts:
    """The attempts of one call after the first: ``send()`` begins another, or ``gone()``: the client left meanwhile."""

    __slots__ = ("_budget", "_call", "_counted", "_gone", "_made", "_policy", "_send", "end")

    def __init__(
        self,
        policy: Retry | None,
        budget: Budget,
        call: Call,
        send: Callable[[], None],
        gone: Callable[[], None],
        counted: Callable[[], None],
        end: float = 0.0,
    ) -> None:
        """``policy`` None: there is only the first. ``end``: when all must be over (monotonic); 0: never."""
        self._policy = policy
        self._budget = budget
        self._call = call
        self._send = send
        self._gone = gone
        self._counted = counted
        self.end = end
        self._made = 0

    def again(self, status: int, error: UpstreamError | TimedOut | None) -> bool:
        """Whether another attempt will be made: then nothing is answered yet. ``status``: 0 when none came."""
        policy, exchange = self._policy, self._call.exchange
        if policy is None or self._made >= policy.attempts or exchange.started or exchange.disconnected:
            return False
        if status >= 400:
            if status not in (policy.codes or _PASSING):
                return False
        elif error is None:
            return False
        pause = wait(policy.backoff, self._made + 1)
        if (self.end and monotonic() + pause >= self.end) or not self._budget.take():
            return False
        self._made += 1
        self._counted()
        asyncio.get_running_loop().call_later(pause, self._go)
        return True

    def _go(self) -> None:
        if self._call.exchange.disconnected:
            self._gone()
        else:
            self._send()
