"""How many requests of a route are under way, over all workers: a column for each, which only it writes."""

from __future__ import annotations

from collections.abc import Callable

from quarterdeck import processes

from .memory import WORKERS, WORKERS_SEEN, Memory


class Rooms:
    """``alive`` tells whether a worker's process runs: what a dead one held is given up when a room seems full."""

    def __init__(self, memory: Memory, alive: Callable[[int], bool] = processes.alive) -> None:
        self._memory = memory
        self._table = memory.rooms
        self._words = memory.words
        self._alive = alive

    def enter(self, key: int, limit: int) -> bool:
        """Whether there was room for one more; then :meth:`leave` follows."""
        self._memory.enter()
        try:
            at = self._place(key)
            if at < 0:
                return False
            if self._inside(at) >= limit and not (self._give_up_dead() and self._inside(at) < limit):
                return False
            self._words[at + 1 + self._memory.worker] += 1
            return True
        finally:
            self._memory.leave()

    def leave(self, key: int) -> None:
        at = self._table.find(key)
        mine = at + 1 + self._memory.worker
        if at >= 0 and self._words[mine]:
            self._words[mine] -= 1

    def inside(self, key: int) -> int:
        """Requests under way."""
        at = self._table.find(key)
        return self._inside(at) if at >= 0 else 0

    def _inside(self, at: int) -> int:
        return sum(self._words[at + 1 : at + 1 + self._words[WORKERS_SEEN]])

    def _place(self, key: int) -> int:
        """Where the record is, made where there was none; -1 when every place has somebody in it."""
        at = self._table.find(key)
        if at >= 0:
            return at
        for place in self._table.places(key):
            if self._words[place] == 0 or not self._inside(place):
                self._words[place] = key
                return place
        return -1

    def _give_up_dead(self) -> bool:
        dead = [worker for worker in range(WORKERS) if (pid := self._memory.pid(worker)) and not self._alive(pid)]
        for worker in dead:
            self._memory.forget(worker)
        return bool(dead)
