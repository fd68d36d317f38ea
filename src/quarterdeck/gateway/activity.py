"""What this gateway counts for the control plane, and the loop that tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from secrets import token_hex

import msgspec

from quarterdeck.errors import QuarterdeckError
from quarterdeck.snapshot import Snapshot
from quarterdeck.snapshot.activity import Counted, Report, Used

INTERVAL = 1.0
"""Seconds between looks for something to tell."""
QUIET = 10
"""Looks after which a report goes out though nothing changed: it says that we are there, and that nobody calls."""
_EPOCHS = 1024
_KINDS = {"mcp": "MCPServer", "a2a": "Agent"}

Epoch = tuple[str, str, str, str]
"""kind, namespace, name, epoch"""


class Ledger:
    """Counters since this process began."""

    def __init__(self) -> None:
        self.boot = token_hex(8)
        self.calls: dict[tuple[str, str], int] = {}
        """Calls that ended, by protocol and backend, and for agents the calls they made, too."""
        self._counts: dict[Epoch, list[int]] = {}

    def count(self, epoch: Epoch, failed: bool) -> None:
        """One request of a backend in an epoch is over."""
        counts = self._counts.get(epoch)
        if counts is None:
            if len(self._counts) >= _EPOCHS:
                del self._counts[next(iter(self._counts))]  # the oldest: canaries end
            counts = self._counts[epoch] = [0, 0]
        counts[0] += 1
        counts[1] += failed

    def used(self, kind: str, server: str, agent: str) -> None:
        """A call has ended; ``agent`` made it, if one did: it is at work, too."""
        key = (kind, server)
        self.calls[key] = self.calls.get(key, 0) + 1
        if agent:
            key = ("a2a", agent)
            self.calls[key] = self.calls.get(key, 0) + 1

    def report(self, snapshot: Snapshot, in_flight: Iterable[tuple[str, str]]) -> Report | None:
        """All there is to tell about what ``snapshot`` serves; None when it asks for nothing.

        ``in_flight``: protocol and backend of each call that is under way.
        """
        epochs = {
            (agent.namespace, agent.name, backend.epoch)
            for agent in snapshot.agents
            for backend in (agent.split.backends if agent.split is not None else ())
            if backend.epoch
        }
        counted = [Counted(*key, *counts) for key, counts in self._counts.items() if key[1:] in epochs]
        sleepers = [("a2a", a.namespace, a.name) for a in snapshot.agents if a.wake]
        sleepers += [("mcp", s.namespace, s.name) for s in snapshot.mcp if s.wake]
        if not epochs and not sleepers:
            return None
        open_now: dict[tuple[str, str], int] = {}
        for key in in_flight:
            open_now[key] = open_now.get(key, 0) + 1
        used = [
            Used(_KINDS[kind], namespace, name, self.calls.get(key, 0), open_now.get(key, 0))
            for kind, namespace, name in sleepers
            for key in ((kind, f"{namespace}/{name}"),)
        ]
        return Report(self.boot, tuple(counted), tuple(used))


async def tell(
    report: Callable[[], Report | None],
    post: Callable[[bytes], Awaitable[None]],
    log: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Until cancelled: send reports that say something new, or after a while that nothing is new.

    ``post`` raises QuarterdeckError when the control plane did not take it; the next look tries again, as all numbers
    are totals.
    """
    told: Report | None = None
    looks = failures = 0
    while True:
        await sleep(INTERVAL)
        looks += 1
        current = report()
        if current is None or (current == told and looks < QUIET):
            continue
        try:
            await post(msgspec.json.encode(current))
        except QuarterdeckError as error:
            failures += 1
            if failures in (3, 300):  # one that does not lead, or a restart, is nothing to speak of
                log(f"the control plane takes no report of the traffic: {error}")
            continue
        told, looks, failures = current, 0, 0
