"""Calls for something that is scaled to zero: held, while the control plane is asked to start a Pod."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from time import monotonic

from quarterdeck.errors import QuarterdeckError

LIMIT = 1000
"""Calls held at one time; further ones are refused at once."""
SHARE = 4
"""What the calls for one thing may take of that at most: 1/SHARE. One that never starts must leave room for others."""
AGAIN = 2.0
"""Seconds between two requests to wake the same thing: it may have been put to sleep in the meantime."""
RETRY_AFTER = 5
"""Seconds a refused client is told to wait."""

Sleeper = tuple[str, str, str]
"""kind (Agent, MCPServer), namespace, name"""


@dataclass(slots=True)
class _Waking:
    held: int = 0
    problem: str = ""
    asking: asyncio.Task[None] | None = field(default=None)


class Waker:
    """Holds calls until what they are for has an endpoint.

    ``ask`` tells the control plane, and raises QuarterdeckError when it will not; ``awake`` looks into the present
    snapshot; call :meth:`changed` when there is a new one.
    """

    def __init__(
        self,
        ask: Callable[[Sleeper], Awaitable[None]],
        hold: Callable[[Sleeper], float],
        awake: Callable[[Sleeper], bool],
        *,
        limit: int = LIMIT,
    ) -> None:
        self._ask = ask
        self._hold = hold
        self._awake = awake
        self._limit = limit
        self._changed = asyncio.Event()
        self._waking: dict[Sleeper, _Waking] = {}
        self.held = 0

    def changed(self) -> None:
        """A new snapshot is in use."""
        before, self._changed = self._changed, asyncio.Event()
        before.set()

    def waiting(self) -> list[tuple[str, str]]:
        """Protocol and backend of each call that is held: it counts as one in flight."""
        protocols = {"Agent": "a2a", "MCPServer": "mcp"}
        found = [(sleeper, waking.held) for sleeper, waking in self._waking.items() if sleeper[0] in protocols]
        return [(protocols[kind], f"{ns}/{name}") for (kind, ns, name), held in found for _ in range(held)]

    async def ready(self, sleeper: Sleeper, most: float = inf) -> str:
        """Wait until it has an endpoint; empty then, else why it has none. At once when it is not to be woken.

        ``most``: seconds to wait though its own limit may be longer.
        """
        if self._awake(sleeper):
            return ""
        seconds = min(self._hold(sleeper), most)
        if not seconds:
            return f"{_title(sleeper)} has no ready endpoint"
        if self.held >= self._limit:
            return f"{_title(sleeper)} is being started, and this gateway holds {self.held} calls already"
        waking = self._waking.get(sleeper)
        if waking is not None and waking.held >= max(1, self._limit // SHARE):
            return f"{_title(sleeper)} is being started, and this gateway holds {waking.held} calls for it already"
        waking = self._waking.setdefault(sleeper, _Waking())
        waking.held += 1
        self.held += 1
        if waking.asking is None:
            waking.asking = asyncio.get_running_loop().create_task(self._keep_asking(sleeper, waking))
        try:
            return await self._wait(sleeper, waking, seconds)
        finally:
            self.held -= 1
            waking.held -= 1
            if not waking.held:
                waking.asking.cancel()
                self._waking.pop(sleeper, None)

    async def _wait(self, sleeper: Sleeper, waking: _Waking, seconds: float) -> str:
        deadline = monotonic() + seconds
        while not self._awake(sleeper):
            left = deadline - monotonic()
            if left <= 0:
                why = f" ({waking.problem})" if waking.problem else ""
                return f"{_title(sleeper)} was scaled to zero and did not start within {seconds:g} s{why}"
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return ""

    async def _keep_asking(self, sleeper: Sleeper, waking: _Waking) -> None:
        while True:
            try:
                await self._ask(sleeper)
                waking.problem = ""
            except QuarterdeckError as error:
                waking.problem = str(error)
            await asyncio.sleep(AGAIN)


def _title(sleeper: Sleeper) -> str:
    kind, namespace, name = sleeper
    return f"{'agent' if kind == 'Agent' else 'MCP server'} {namespace}/{name}"
