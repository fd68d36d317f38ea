"""What the gateways report of their traffic: errors of canaries, and when something was used last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from quarterdeck.snapshot.activity import Report

FORGET = 600.0
"""Seconds after which a gateway process that has gone silent is taken for gone."""
FRESH = 30.0
"""Seconds a report speaks for: a gateway with nothing to tell says so more often."""
_PROCESSES = 256
Target = tuple[str, str, str]
"""kind (Agent, MCPServer), namespace, name"""
Epoch = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Counts:
    requests: int = 0
    errors: int = 0


@dataclass(slots=True)
class _Process:
    seen: float
    counts: dict[Epoch, Counts] = field(default_factory=dict[Epoch, Counts])
    calls: dict[Target, int] = field(default_factory=dict[Target, int])
    open: set[Target] = field(default_factory=set[Target])
    """What has calls in flight, or waiting for it, as of the last report."""


class Activity:
    """Totals over all gateway processes. ``changed`` is called with what has new numbers."""

    def __init__(self, monotonic: Callable[[], float], changed: Callable[[Target], None]) -> None:
        self._now = monotonic
        self._changed = changed
        self._processes: dict[tuple[str, str], _Process] = {}
        self._used: dict[Target, float] = {}
        self._since: dict[Target, float] = {}

    def report(self, gateway: str, report: Report) -> None:
        """Take in what one process of a gateway says; its numbers are totals."""
        now = self._now()
        key = (gateway, report.boot)
        process = self._processes.get(key)
        if process is None:
            self._make_room(now)
            process = self._processes[key] = _Process(now)
        process.seen = now
        for item in report.counted:
            target = (item.kind, item.namespace, item.name)
            counts = Counts(item.requests, item.errors)
            if process.counts.get((*target, item.epoch)) != counts:
                process.counts[(*target, item.epoch)] = counts
                self._changed(target)
        was_open, process.open = process.open, set()
        for item in report.used:
            target = (item.kind, item.namespace, item.name)
            if item.open:
                process.open.add(target)
            if item.open or target in was_open or process.calls.get(target, 0) != item.calls:
                self._used[target] = now
            process.calls[target] = item.calls

    def counts(self, target: Target, epoch: str) -> Counts:
        """Requests of one epoch, over all gateway processes there were: one that has ended has served its share."""
        found = [p.counts[(*target, epoch)] for p in self._processes.values() if (*target, epoch) in p.counts]
        return Counts(sum(c.requests for c in found), sum(c.errors for c in found))

    def use(self, target: Target) -> None:
        """It is about to be used: somebody woke it."""
        self._used[target] = self._now()

    def idle(self, target: Target) -> float:
        """Seconds for which nobody has used it, as far as we know; 0 while a gateway that may know better is silent.

        What was never asked for before counts from now on: whoever takes over knows nothing of what was.
        """
        now = self._now()
        since = max(self._used.get(target, 0.0), self._since.setdefault(target, now))
        alive = [process for process in self._processes.values() if now - process.seen < FORGET]
        if not alive or any(now - process.seen > FRESH or target in process.open for process in alive):
            return 0.0
        return now - since

    def forget(self, target: Target) -> None:
        """It has to do with us no more."""
        self._used.pop(target, None)
        self._since.pop(target, None)

    def _make_room(self, now: float) -> None:
        if len(self._processes) >= _PROCESSES:
            oldest = min(self._processes, key=lambda key: self._processes[key].seen)
            del self._processes[oldest]
