"""LangGraph's checkpointer on the journal: the conversation is in the journal already, a checkpoint adds where the
graph stood.

A checkpoint is deferred to the next write: one that is lost with the process costs nothing, since the nodes after the
one before it find their results in the journal (:mod:`.steps`) and come to the same place again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)

from .journal import Journal

_MESSAGES = "messages"


class JournalSaver(BaseCheckpointSaver[int]):
    """Keeps the checkpoints of runs that are worked on here, each in its own journal."""

    def __init__(self) -> None:
        super().__init__()
        self._runs: dict[str, tuple[Journal, list[Any]]] = {}

    @contextmanager
    def of(self, journal: Journal, before: Sequence[Any]) -> Generator[bool]:
        """While a run is worked on; whether there is a checkpoint to go on from.

        ``before`` is the conversation as it was when the run began, its own message included.
        """
        self._runs[journal.run] = journal, list(before)
        try:
            yield journal.story.checkpoint is not None
        finally:
            del self._runs[journal.run]

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        journal, before = self._runs[_thread(config)]
        kept = journal.story.checkpoint
        if kept is None:
            return None
        checkpoint: Any = dict(kept["checkpoint"])
        said = journal.story.messages()[: kept["said"]]
        checkpoint["channel_values"] = {**checkpoint["channel_values"], _MESSAGES: [*before, *said]}
        return CheckpointTuple(_at(config, checkpoint["id"]), checkpoint, kept["metadata"], None, [])

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        del new_versions
        journal, before = self._runs[_thread(config)]
        values: dict[str, Any] = dict(checkpoint["channel_values"])
        messages = values.pop(_MESSAGES, None)
        if messages is not None:  # before that, there is nothing to go on from
            where = {"step": metadata.get("step"), "source": metadata.get("source"), "parents": {}}
            data = {
                "checkpoint": {**checkpoint, "channel_values": values},
                "said": len(messages) - len(before),
                "metadata": where,
            }
            journal.defer("checkpoint", 0, data)
        return _at(config, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """The results of a node's calls are in the journal one by one."""

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Only the last one counts: older places are reached by retrying a step."""
        del filter, before, limit
        found = await self.aget_tuple(config or {"configurable": {}})
        if found is not None:
            yield found


def _thread(config: RunnableConfig) -> str:
    return str(config.get("configurable", {}).get("thread_id", ""))


def _at(config: RunnableConfig, ident: str) -> RunnableConfig:
    return {"configurable": {"thread_id": _thread(config), "checkpoint_ns": "", "checkpoint_id": ident}}
