"""Tasks whose replica died: nobody works on them any more, so they are ended with a message that says so.

A replica that works keeps its tasks fresh with heartbeats. A task left by an earlier process of this very Pod is ended
at once; one of another Pod when no heartbeat was seen for :data:`SILENCE` seconds of our own monotonic clock, so that
neither a jump of the wall clock nor different clocks on two machines end a task that is being worked on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from time import monotonic
from uuid import uuid4

from quarterdeck.errors import QuarterdeckError

from .a2a import types
from .state import ControlPlaneState, UnfinishedTask

log = logging.getLogger("quarterdeck.agents")
REPLICA = "quarterdeck.dev/replica"
"""Task metadata: ``pod/boot`` of the process that works on it."""
BEAT = 10.0
SILENCE = 3 * BEAT
_TEXT = "the agent was interrupted while it worked on this task and the task was given up; send the message again"


def replica_name() -> str:
    """A name for this process that no other process ever has; before the slash, the Pod's."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}/{uuid4().hex[:12]}"


class Heartbeat:
    """Keeps the tasks of this replica fresh and ends those of dead ones. ``active`` names the tasks worked on here."""

    def __init__(
        self,
        state: ControlPlaneState,
        replica: str,
        active: Callable[[], list[str]],
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._state = state
        self._replica = replica
        self._active = active
        self._clock = clock
        self._seen: dict[str, tuple[str, float]] = {}

    async def run(self) -> None:
        """Until cancelled; a control plane that is away for a while only delays it."""
        while True:
            try:
                await self.beat()
            except QuarterdeckError as error:
                log.warning("tasks could not be kept fresh: %s", error)
            await asyncio.sleep(BEAT)

    async def beat(self) -> None:
        """One heartbeat and one look at what others left. Raises UpstreamError."""
        mine = self._active()
        if mine:
            await self._state.touch_tasks(mine)
        unfinished = await self._state.unfinished_tasks()
        seen: dict[str, tuple[str, float]] = {}
        for found in unfinished:
            stamp, since = self._seen.get(found.id, ("", self._clock()))
            seen[found.id] = (found.updated_at, since if stamp == found.updated_at else self._clock())
            if self._dead(found, self._clock() - seen[found.id][1]) and found.id not in self._active():
                await self._end(found)
        self._seen = seen

    def _dead(self, found: UnfinishedTask, silence: float) -> bool:
        owner = str((found.task.get("metadata") or {}).get(REPLICA, ""))
        if owner == self._replica:
            return False
        pod = owner.partition("/")[0]
        return (bool(owner) and pod == self._replica.partition("/")[0]) or silence >= SILENCE

    async def _end(self, found: UnfinishedTask) -> None:
        task = found.task
        message = types.agent_message(found.id, str(task.get("contextId", "")), [types.text_part(_TEXT)])
        task["status"] = types.status(types.FAILED, message)
        if await self._state.replace_task(found):
            log.warning("task %s was left unfinished by a replica that is gone; it is failed now", found.id)
