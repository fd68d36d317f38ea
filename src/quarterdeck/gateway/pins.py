"""Tool pinning: a tool whose definition is not the approved one is neither listed nor called.

Lists that pass are held to the approvals item by item. For calls the definitions must have been seen lately; where they
were not, ``mcp.pinned`` asks the server first.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from time import monotonic

import msgspec
from msgspec import Raw

from quarterdeck.snapshot import McpServer, Snapshot
from quarterdeck.snapshot.pins import digest

from .mcp.route import McpRoute
from .policy.authorizer import Decision

_log = logging.getLogger("quarterdeck.gateway")

FRESH = 60.0
"""Seconds for which what a server listed is believed when its tools are called."""
RENEW = FRESH / 2
_KNOWN = 4096
_SAID = 256


class Pins:
    """One server's. ``enforce`` False only tells of what differs."""

    def __init__(
        self, server: McpServer, approved: Mapping[str, str], *, enforce: bool, clock: Callable[[], float] = monotonic
    ) -> None:
        """``approved``: digests by the names of tools."""
        self.server = server
        self.approved = approved
        self.enforce = enforce
        self._clock = clock
        self._label = f"{server.namespace}/{server.name}"
        self._digests: dict[bytes, tuple[str, str]] = {}
        self._listed: dict[str, str] = {}
        """What is wrong with each listed tool; empty where nothing is."""
        self._seen_at = float("-inf")
        self._said: set[tuple[str, str]] = set()

    def shows(self, item: bytes | Raw) -> bool:
        """Whether a tool, as ``tools/list`` of the server has it, may be listed. Raises msgspec.DecodeError."""
        name, found = self._digest(bytes(item))
        problem = self._problem(name, found)
        # of two tools under one name the bad one counts
        self._listed[name] = problem or self._listed.get(name, "")
        if problem:
            self._say(name, found, problem)
        return not problem or not self.enforce

    def seen(self, items: Iterable[bytes | Raw]) -> None:
        """All that the server lists, asked by ourselves just now. Raises msgspec.DecodeError."""
        self._listed = {}
        for item in items:
            self.shows(item)
        self._seen_at = self._clock()

    def forget(self) -> None:
        """What runs behind the server may be another now."""
        self._seen_at = float("-inf")

    @property
    def age(self) -> float:
        """Seconds since all definitions were seen."""
        return self._clock() - self._seen_at

    def decide(self, tool: str) -> Decision | None:
        """Why a tool may not be called, by what was seen last; None when it may."""
        if not self.enforce:
            return None
        problem = self._listed.get(tool)
        if problem is None:
            problem = "is not listed by its server" if tool in self.approved else "was never approved"
        if not problem:
            return None
        rule = f"pin/{self._label}/{tool}"
        return Decision("deny", rule, f'tool "{tool}" of {self._label} {problem} (rule {rule}); {self._remedy}')

    @property
    def quarantined(self) -> int:
        """How many of the listed tools differ."""
        return sum(1 for problem in self._listed.values() if problem)

    @property
    def _remedy(self) -> str:
        return f"see: qd tools diff {self.server.name} -n {self.server.namespace}"

    def _problem(self, name: str, found: str) -> str:
        wanted = self.approved.get(name)
        if wanted is None:
            return "was never approved"
        return "" if wanted == found else "has changed since it was approved"

    def _digest(self, item: bytes) -> tuple[str, str]:
        key = hashlib.sha256(item).digest()
        known = self._digests.get(key)
        if known is None:
            try:
                tool = msgspec.json.decode(item, type=dict[str, object])
                known = str(tool.get("name", "")), digest(tool)
            except (UnicodeDecodeError, RecursionError) as error:
                raise msgspec.DecodeError(str(error)) from error
            if len(self._digests) >= _KNOWN:
                self._digests.clear()
            self._digests[key] = known
        return known

    def _say(self, name: str, found: str, problem: str) -> None:
        if (name, found) not in self._said and len(self._said) < _SAID:
            self._said.add((name, found))
            effect = "it is neither listed nor called" if self.enforce else "it is served all the same (pin: warn)"
            _log.warning("tool %s of %s %s: %s; %s", name, self._label, problem, effect, self._remedy)


class PinBook:
    """The pins of all servers; what was seen of them outlives snapshots."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._pins: dict[tuple[str, str, str], Pins] = {}

    def apply(self, snapshot: Snapshot, routes: Iterable[McpRoute]) -> None:
        """Hold the servers of a table to the approvals of its snapshot."""
        approved = {
            (pins.kind, pins.namespace, pins.name): {pin.name: pin.digest for pin in pins.tools}
            for pins in snapshot.pins
        }
        current: dict[tuple[str, str, str], Pins] = {}
        for route in routes:
            known = approved.get(route.target, {})
            mode = route.server.pin or ("enforce" if known else "off")
            if mode != "off":
                route.pins = current[route.target] = self._of(route, known, enforce=mode == "enforce")
        self._pins = current

    def quarantined(self) -> list[tuple[dict[str, str], float]]:
        """For the metric."""
        return [
            ({"server": f"{namespace}/{name}"}, float(pins.quarantined))
            for (_, namespace, name), pins in self._pins.items()
        ]

    def _of(self, route: McpRoute, approved: Mapping[str, str], *, enforce: bool) -> Pins:
        before = self._pins.get(route.target)
        if before is None or (before.approved, before.enforce) != (approved, enforce):
            return Pins(route.server, approved, enforce=enforce, clock=self._clock)
        if before.server != route.server:
            before.forget()
            before.server = route.server
        return before
