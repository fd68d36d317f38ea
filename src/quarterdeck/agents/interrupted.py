"""The runs this replica holds are kept fresh, and those that nobody holds any more are taken over.

Whether a lease has lapsed is the control plane's to say (``server/runs_store.py``): our own earlier process' at once,
another Pod's after :data:`~quarterdeck.server.runs_store.LEASE` seconds without a sign of life.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol
from uuid import uuid4

from quarterdeck.errors import QuarterdeckError

from .journal.client import Claimed, JournalClient
from .journal.pause import Fenced

log = logging.getLogger("quarterdeck.agents")
BEAT = 2.5
"""Seconds between signs of life."""
WAIT = 10.0
"""Seconds the control plane lets us wait for a run to take over."""
_BREATH = 0.1
MOST = 20
"""Runs taken over while so many are worked on."""


TOGETHER = 500
"""Runs of one sign of life: the control plane takes a thousand at once."""


def replica_name() -> str:
    """A name for this process that no other process ever has; before the slash, the Pod's."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}/{uuid4().hex[:12]}"


class Lose(Protocol):
    """Told that a run is not ours any more, or that it shall end."""

    def __call__(self, run: str, *, canceled: bool) -> None: ...


class Leases:
    """``held`` gives the runs worked on here with their fences, ``take`` begins to work on one."""

    def __init__(
        self,
        client: JournalClient | None,
        replica: str,
        held: Callable[[], dict[str, int]],
        take: Callable[[Claimed], Awaitable[None]],
        lose: Lose,
    ) -> None:
        self._client = client
        self._replica = replica
        self._held = held
        self._take = take
        self._lose = lose
        self.resting = False
        """Whether nothing more is taken over: this replica ends."""

    async def run(self) -> None:
        """Until cancelled; a control plane that is away for a while only delays it."""
        if self._client is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever(self.beat, BEAT))
            group.create_task(self._forever(lambda: self.claim(WAIT), 0.0))

    async def beat(self) -> None:
        """One sign of life for what is held. Raises UpstreamError."""
        held = list(self._held().items())
        for start in range(0, len(held), TOGETHER):
            await self._beat(dict(held[start : start + TOGETHER]))

    async def _beat(self, held: dict[str, int]) -> None:
        if self._client is None:
            return
        answer = await self._client.claim(self._replica, held)
        for run in answer.lost:
            if run in self._held():
                self._lose(run, canceled=False)
        for run in answer.cancel:
            self._lose(run, canceled=True)

    async def claim(self, wait: float = 0.0) -> int:
        """One look for something to do; how much there was. Raises UpstreamError."""
        assert self._client is not None
        room = MOST - len(self._held())
        if room <= 0 or self.resting:
            await asyncio.sleep(BEAT)
            return 0
        answer = await self._client.claim(self._replica, {}, most=room, wait=wait)
        for claimed in answer.claimed:
            await self._take(claimed)
        if not answer.claimed:
            await asyncio.sleep(_BREATH)  # a control plane that does not wait is not asked without a pause
        return len(answer.claimed)

    async def _forever(self, look: Callable[[], Awaitable[object]], pause: float) -> None:
        failures = 0
        while True:
            try:
                await look()
                failures = 0
            except (QuarterdeckError, Fenced) as error:
                failures += 1
                if failures in (3, 100):  # a restart of the control plane is nothing to speak of
                    log.warning("the control plane does not answer about runs: %s", error)
            await asyncio.sleep(max(pause, BEAT) if failures else pause)
