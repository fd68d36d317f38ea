"""A task that is being worked on, or followed, by this replica."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from quarterdeck.snapshot.runs import Event

from .a2a import types
from .a2a.types import Json
from .journal.journal import Journal
from .journal.told import tell
from .observe.run import NOBODY, Seen

_QUEUE = 10_000


@dataclass(eq=False, slots=True)
class Active:
    """``journal`` is there while the run is ours; ``seq`` is the last event that the task knows of."""

    task: Json
    user: str
    run: str = ""
    journal: Journal | None = None
    seq: int = 0
    log: list[tuple[int, Json]] = field(default_factory=list[tuple[int, Json]])
    """Updates since this replica knows of the task, with the event they tell of."""
    watchers: set[asyncio.Queue[tuple[int, Json] | None]] = field(
        default_factory=set[asyncio.Queue["tuple[int, Json] | None"]]
    )
    worker: asyncio.Task[None] | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    canceling: bool = False
    seen: Seen = NOBODY

    def apply(self, event: Event) -> None:
        """Let the task and its watchers know of an event, once."""
        if event.seq <= self.seq:
            return
        self.seq = event.seq
        for update in tell(self.task, event):
            self.log.append((self.seq, update))
            self._send(update)

    def publish(self, event: Json) -> None:
        """To every watcher, but to none that comes later."""
        self._send(event)

    def set_status(self, state: str, message: Json | None = None, metadata: Json | None = None) -> None:
        self.task["status"] = types.status(state, message)
        update = {"taskId": self.task["id"], "contextId": self.task["contextId"], "status": self.task["status"]}
        if metadata:
            update["metadata"] = metadata
        self.publish({"statusUpdate": update})

    def cancel(self) -> None:
        """End the run. Who says so again does not cut off the writing of its end."""
        if not self.canceling and self.worker is not None:
            self.canceling = True
            self.worker.cancel()

    def end(self) -> None:
        """Nothing comes any more."""
        self._put(None)
        self.finished.set()

    def _send(self, update: Json) -> None:
        self._put((self.seq, update))

    def _put(self, entry: tuple[int, Json] | None) -> None:
        """One watcher that has fallen too far behind is let go: it ends when it has read what it has."""
        for queue in list(self.watchers):
            try:
                queue.put_nowait(entry)
            except asyncio.QueueFull:
                self.watchers.discard(queue)

    async def follow(self, after: int | None = None) -> AsyncGenerator[tuple[int, Json]]:
        """The task as it is (``after``: only what came after that event), then each update until it ends or waits."""
        queue: asyncio.Queue[tuple[int, Json] | None] = asyncio.Queue(_QUEUE)
        if after is None:
            first = [(self.seq, {"task": json.loads(json.dumps(self.task))})]
        else:
            first = [entry for entry in self.log if entry[0] > after]
        self.watchers.add(queue)
        try:
            for entry in first:
                yield entry
            if self.finished.is_set() and queue.empty():  # it may have ended while the first was sent
                return
            while (update := await queue.get()) is not None:
                yield update
                if queue not in self.watchers and queue.empty():
                    return
        finally:
            self.watchers.discard(queue)


async def watch(active: Active) -> AsyncGenerator[Json]:
    """The task as it is, then each update until it is finished, or waits."""
    async for _, update in active.follow():
        yield update
