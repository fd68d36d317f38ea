"""The journal of one run as the replica that holds it writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import time
from typing import Any, Protocol

from quarterdeck.errors import UpstreamError
from quarterdeck.snapshot.runs import Event

from .client import Draft, Refused, Written
from .fold import Story, add_usage
from .pause import Fenced, RunFailed, Unwritten


class Store(Protocol):
    """Where events go."""

    async def append(self, run: str, fence: int, drafts: Sequence[Draft]) -> Written: ...
    async def events(self, run: str, after: int = 0) -> tuple[object, list[Event]]: ...


class Journal:
    """``story`` is what is written so far; ``told`` is called with each event that we write.

    Writes keep their order. What was deferred is written with the next append, in one transaction: it may be lost with
    the process, so only what can be found out again is deferred.
    """

    def __init__(self, store: Store, run: str, fence: int, events: Sequence[Event] = ()) -> None:
        self.run = run
        self.fence = fence
        self.story = Story(events)
        self.permits: dict[int, str] = {}
        self.lost = False
        self.told: Callable[[Event], None] = lambda event: None
        self.canceled: Callable[[], None] = lambda: None
        self._store = store
        self._deferred: list[Draft] = []
        self._order = asyncio.Lock()

    def defer(self, kind: str, step: int, data: dict[str, Any]) -> None:
        self._deferred.append(Draft(kind, step, data))

    async def flush(self) -> None:
        """Write what was deferred, before something that takes long. Raises as :meth:`append`."""
        if any(draft.kind != "checkpoint" for draft in self._deferred):
            await self.append()

    @property
    def usage(self) -> dict[str, int]:
        """Of all model calls, by what the provider counts; those whose results are not written yet, too."""
        used = dict(self.story.usage)
        for draft in self._deferred:
            if draft.kind == "model.result":
                add_usage(used, draft.data.get("usage"))
        return used

    async def append(self, *drafts: Draft) -> None:
        """Write, after what was deferred. Raises Fenced, Unwritten; RunFailed for what will never be taken."""
        async with self._order:
            batch = [*self._deferred, *drafts]
            if not batch:
                return
            if self.lost:
                raise Fenced(f"run {self.run} is another replica's")
            self._deferred = []
            written, canceled = await self._whole(batch)
            self.permits |= written.permits
            for number, draft in enumerate(batch, written.first):
                guarded = {"guarded": True} if draft.step in written.permits and draft.kind == "tool.intent" else {}
                event = Event(number, draft.kind, draft.step, written.at, self.fence, draft.data | guarded)
                self.story.add(event)
                self.told(event)
        if canceled is not None:
            raise canceled
        if written.cancel:
            self.canceled()

    async def _whole(self, batch: list[Draft]) -> tuple[Written, asyncio.CancelledError | None]:
        """What became of a write, and whether we were cancelled meanwhile: what is on its way is waited for."""
        writing = asyncio.ensure_future(self._store.append(self.run, self.fence, batch))
        canceled: asyncio.CancelledError | None = None
        try:
            while True:
                try:
                    return await asyncio.shield(writing), canceled
                except asyncio.CancelledError as error:
                    if writing.cancelled():
                        raise
                    canceled = error
        except Fenced:
            self.lost = True
            raise
        except Refused as error:  # whoever took the run over would come to the same
            raise RunFailed("not_recorded", f"not_recorded: what happened cannot be written down: {error}") from error
        except UpstreamError as error:
            raise Unwritten(str(error)) from error

    async def started(self, step: int) -> bool:
        """Whether the gateway has let the last call of a step pass; asks the control plane. Raises Unwritten.

        The gateway may have written that before what we have written since, of a call beside it.
        """
        try:
            _, events = await self._store.events(self.run, self.story.step(step).intent)
        except UpstreamError as error:
            raise Unwritten(f"whether step {step} has started cannot be read: {error}") from error
        for event in events:
            if event.kind == "cancel" or (event.kind == "tool.started" and event.step == step):
                self.story.add(event)
        return self.story.step(step).phase == "started"


class Memory:
    """A journal nobody else reads: for a host without a control plane to write to."""

    def __init__(self) -> None:
        self._seq = 1

    async def append(self, run: str, fence: int, drafts: Sequence[Draft]) -> Written:
        del run, fence
        first, self._seq = self._seq, self._seq + len(drafts)
        return Written(first, time(), {}, False)

    async def events(self, run: str, after: int = 0) -> tuple[object, list[Event]]:
        del run, after
        return None, []


__all__ = ["Draft", "Fenced", "Journal", "Memory", "Unwritten"]
