"""Circuit breakers, one for each (server, tool) that fails.

``closed``: calls go through and failures in a row are counted. ``open``: none goes through for some seconds.
``half-open``: then exactly one may try (the probe); its answer closes the breaker, its failure opens it again.

:func:`admit` and :func:`report` are the machine, without clock or memory; :class:`Breakers` keeps the states in the
tables that all workers share. Only what fails has a record: while nothing does, a call reads one word.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic, time
from typing import Literal

from msgspec import Struct

from quarterdeck import processes
from quarterdeck.snapshot.policies import Breaker

from .memory import ACTIVE, BREAKER_WORDS, Memory

Phase = Literal["closed", "open", "half-open"]
Health = Literal["answered", "failed", "unknown"]
"""What a call says of the server. ``unknown``: it was cancelled, or denied, or never got there."""

PROBING = 1.0
"""Seconds after which to ask again while a probe is under way."""

_TEXT_AT = 10
_TEXT_BYTES = (BREAKER_WORDS - _TEXT_AT) * 8
_KEYS = 4096


class State(Struct):
    """One breaker. Times are of the monotonic clock, ``since`` of the calendar."""

    failures: int = 0
    open_until: float = 0.0
    """0: closed."""
    prober: int = 0
    """Process that tries; 0: nobody does."""
    probe_until: float = 0.0
    """When a probe whose process is gone, or lost it, counts for nothing any more."""
    opened: int = 0
    """How often it has opened without closing in between."""
    since: float = 0.0

    def phase(self, now: float) -> Phase:
        if not self.open_until:
            return "closed"
        return "open" if now < self.open_until else "half-open"


class View(Struct):
    """A breaker as operators see it: ``GET /breakers``."""

    server: str
    tool: str
    state: Phase
    failures: int
    opened: int
    since: float
    """Seconds since 1970 when it opened; of a closed one, of its last failure."""
    retry_in: float
    """Seconds until a call may try again; 0: the next may, or one is trying."""


def admit(state: State, now: float, pid: int, lease: float, alive: Callable[[int], bool]) -> float:
    """Seconds to wait; 0: go; negative: go, as the probe, which is expected back within ``lease`` seconds."""
    if not state.open_until:
        return 0.0
    if now < state.open_until:
        return state.open_until - now
    if state.prober and now < state.probe_until and (state.prober == pid or alive(state.prober)):
        return PROBING
    state.prober, state.probe_until = pid, now + lease
    return -1.0


def report(state: State, health: Health, rule: Breaker, now: float, *, probe: bool) -> bool:
    """How a call went. Returns whether there is still something to remember.

    A call that began before the breaker opened says nothing about it any more: only the probe closes it.
    """
    if probe:
        state.prober = 0
    elif state.open_until:
        return True
    if health == "answered":
        return False
    if health == "failed":
        state.failures += 1
        if probe or state.failures >= rule.failures:
            state.open_until = now + rule.open_for
            state.opened += 1
    return True


class Breakers:
    """All breakers of a gateway. ``on_open(server, tool)`` is called when this process opens one."""

    def __init__(
        self,
        memory: Memory,
        *,
        clock: Callable[[], float] = monotonic,
        calendar: Callable[[], float] = time,
        alive: Callable[[int], bool] = processes.alive,
        on_open: Callable[[str, str], None] | None = None,
    ) -> None:
        self._memory = memory
        self._table = memory.breakers
        self._words = memory.words
        self.clock = clock
        self._calendar = calendar
        self._alive = alive
        self._on_open = on_open
        self._pid = os.getpid()
        self._keys: dict[tuple[str, str], int] = {}

    @property
    def active(self) -> int:
        """How many breakers count failures or are open. 0: there is no need to ask."""
        return self._words[ACTIVE]

    def admit(self, server: str, tool: str, lease: float) -> float:
        """As :func:`admit`; a probe must be followed by :meth:`report` with ``probe=True``."""
        at = self._table.find(self._key(server, tool))
        if at < 0:
            return 0.0
        self._memory.enter()
        try:
            state = self._load(at)
            verdict = admit(state, self.clock(), self._pid, lease, self._alive)
            if verdict < 0:
                self._store(at, state)
            return verdict
        finally:
            self._memory.leave()

    def adopt(self, server: str, tool: str) -> bool:
        """Whether a call that another process has admitted and passed on is the probe; this process is its now."""
        at = self._table.find(self._key(server, tool))
        if at < 0:
            return False
        self._memory.enter()
        try:
            state = self._load(at)
            if not state.prober:
                return False
            state.prober = self._pid
            self._store(at, state)
            return True
        finally:
            self._memory.leave()

    def report(self, server: str, tool: str, health: Health, rule: Breaker, *, probe: bool = False) -> None:
        """As :func:`report`."""
        key = self._key(server, tool)
        if health != "failed" and self._table.find(key) < 0:
            return
        opened = False
        self._memory.enter()
        try:
            at = self._table.find(key)
            if at < 0:
                at = self._make(key, server, tool)
            if at < 0:
                return
            state = self._load(at)
            before = state.opened
            if report(state, health, rule, self.clock(), probe=probe):
                opened = state.opened > before
                if health == "failed" and (opened or not state.open_until):
                    state.since = self._calendar()
                self._store(at, state)
            else:
                self._drop(at)
        finally:
            self._memory.leave()
        if opened and self._on_open is not None:
            self._on_open(server, tool)

    def views(self) -> list[View]:
        """All that are not simply closed, by server and tool."""
        now = self.clock()
        found: list[View] = []
        for at in self._table.records():
            state = self._load(at)
            server, tool = self._names(at)
            wait = max(0.0, state.open_until - now)
            phase = state.phase(now)
            found.append(View(server, tool, phase, state.failures, state.opened, state.since, wait))
        return sorted(found, key=lambda view: (view.server, view.tool))

    def failures(self, server: str, tool: str) -> int:
        """Failures in a row."""
        at = self._table.find(self._key(server, tool))
        return self._load(at).failures if at >= 0 else 0

    def reset(self, server: str, tool: str = "") -> int:
        """Close the breakers of a server, or of one tool; how many there were."""
        self._memory.enter()
        try:
            found = [at for at in self._table.records() if self._is(at, server, tool)]
            for at in found:
                self._drop(at)
            return len(found)
        finally:
            self._memory.leave()

    def _is(self, at: int, server: str, tool: str) -> bool:
        return self._words[at] == self._key(server, tool) if tool else self._names(at)[0] == server

    def _key(self, server: str, tool: str) -> int:
        key = self._keys.get((server, tool))
        if key is None:
            if len(self._keys) >= _KEYS:
                self._keys.clear()
            key = self._keys[server, tool] = self._memory.key(f"{server}\0{tool}")
        return key

    def _make(self, key: int, server: str, tool: str) -> int:
        """Where a new record is; one that is closed makes room. -1 when all that could are open."""
        free = [at for at in self._table.places(key) if not self._words[at]]
        closed = [at for at in self._table.places(key) if not self._memory.reals[at + 2]]
        at = min(free or closed, key=lambda place: self._words[place + 1], default=-1)
        if at < 0:
            return -1
        if not self._words[at]:
            self._words[ACTIVE] += 1
        self._store(at, State())
        text = f"{server}\0{tool}".encode("utf-8", "replace")[:_TEXT_BYTES]
        start = (at + _TEXT_AT) * 8
        self._memory.text[start : start + _TEXT_BYTES] = text.ljust(_TEXT_BYTES, b"\0")
        self._words[at] = key
        return at

    def _drop(self, at: int) -> None:
        self._words[at] = 0
        self._words[ACTIVE] -= 1

    def _load(self, at: int) -> State:
        words, reals = self._words, self._memory.reals
        return State(words[at + 1], reals[at + 2], words[at + 3], reals[at + 4], words[at + 5], reals[at + 6])

    def _store(self, at: int, state: State) -> None:
        words, reals = self._words, self._memory.reals
        words[at + 1], reals[at + 2], words[at + 3] = state.failures, state.open_until, state.prober
        reals[at + 4], words[at + 5], reals[at + 6] = state.probe_until, state.opened, state.since

    def _names(self, at: int) -> tuple[str, str]:
        start = (at + _TEXT_AT) * 8
        text = bytes(self._memory.text[start : start + _TEXT_BYTES]).decode("utf-8", "replace")
        server, _, tool = text.partition("\0")
        return server, tool.rstrip("\0")
