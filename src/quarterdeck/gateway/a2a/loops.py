"""Agents that ask each other in a circle: found by the trace, which each of them continues."""

from __future__ import annotations

from collections import Counter

from ..call import Call

MOST = 32
"""Calls of agents to one agent that may be under way at a time within one trace, in one process of the gateway."""


class Loops:
    """What agents are asked by agents, by trace. Each round of a circle adds a call that waits for the next one."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._under_way: Counter[tuple[str, str]] = Counter()

    def enter(self, call: Call) -> bool:
        """Whether the call, whose agent and trace are known, may go on; it is counted until its response ends."""
        if not call.principal.agent:
            return True
        key = (call.trace_id, call.server)
        if self._under_way[key] >= self._most:
            return False
        self._under_way[key] += 1
        call.exchange.on_end(lambda: self._leave(key))
        return True

    def _leave(self, key: tuple[str, str]) -> None:
        self._under_way[key] -= 1
        if not self._under_way[key]:
            del self._under_way[key]
