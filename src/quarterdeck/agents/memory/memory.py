"""An agent's long-term memory: recall before each run, two tools, and facts saved every few messages.

What is remembered is put before the user's message as a message of its own, as data between marks, bounded in number
and length. When the embedding model cannot be asked, memory goes on by words alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from quarterdeck.errors import QuarterdeckError, UpstreamError
from quarterdeck.mcpclient import HeaderSource
from quarterdeck.wire.client import Pool

from ..config import AgentConfig, MemoryConfig
from ..context.conversation import Conversation
from ..model import ChatModel, Message, Reply
from ..parts import Asked
from ..state import ControlPlaneState
from ..tool import Tool
from . import facts
from .client import Found, MemoryClient, Remembered
from .embeddings import Embeddings
from .recalled import block
from .tools import tools

log = logging.getLogger("quarterdeck.agents")
LIMIT, LEAST = 5, 0.3
"""kagent's: memories that are recalled, and the least score of one."""
EVERY = 5
"""User messages between saves, as in kagent."""
NOBODY = "anonymous"
"""The user of all whom the gateway does not know: they must not learn of each other."""
_SESSIONS = 10_000
Ask = Callable[[list[Message], list[dict[str, Any]]], Awaitable[Reply]]
"""The agent's own model."""
Read = Callable[[str, str], Awaitable[Conversation]]
"""User and session → what was said so far."""


class Memory:
    """A plug-in (:mod:`..parts`). ``lead``: its text comes right before what the user says."""

    name = "memory"
    lead = True

    def __init__(
        self, config: MemoryConfig, client: MemoryClient, embeddings: Embeddings | None, ask: Ask, read: Read
    ) -> None:
        self._config = config
        self._client = client
        self._embeddings = embeddings
        self._ask = ask
        self._read = read
        self._since: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def tools(self) -> Sequence[Tool]:
        return tools(self._save, self._search)

    async def before(self, asked: Asked) -> str:
        """What fits the user's message. A memory that cannot be reached costs what it holds, not the turn."""
        if not asked.text.strip() or asked.user == NOBODY:
            return ""
        try:
            return block(await self._search(asked.user, asked.text))
        except UpstreamError as error:
            log.warning("memory cannot be recalled: %s", error)
            return ""

    def ended(self, asked: Asked) -> None:
        """A run was completed: every few of them what was learned is saved, in the background."""
        if asked.user == NOBODY:
            return
        key = asked.user, asked.session
        count = self._since.pop(key, 0 if asked.first else EVERY) + 1
        self._since[key] = count
        while len(self._since) > _SESSIONS:
            self._since.popitem(last=False)
        if count >= EVERY:
            self._since[key] = 0
            self._in_background(self._learn(asked.user, asked.session), "memory-save")

    async def idle(self) -> None:
        """Until nothing is under way in the background."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """Let go of what is under way: facts that were not saved are saved after the next message."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- inside
    async def _save(self, user: str, text: str) -> str:
        (vector,), note = await self._vectors([text])
        await self._keep(user, [(text, vector)])
        return f"For now it is found by its words only: {note}." if note else ""

    async def _search(self, user: str, text: str) -> Sequence[Remembered]:
        (vector,), _ = await self._vectors([text])
        model = self._embeddings.model if self._embeddings else ""
        found = await self._client.search(user, text, vector, model=model, limit=LIMIT, least=LEAST)
        if vector and found.stale:
            self._in_background(self._embed_anew(user, found), "memory-embed")
        return found.memories

    async def _keep(self, user: str, items: Sequence[tuple[str, Sequence[float] | None]], **more: Any) -> int:
        model = self._embeddings.model if self._embeddings else ""
        return await self._client.save(user, items, model=model, ttl_days=self._config.ttl_days, **more)

    async def _vectors(self, texts: Sequence[str]) -> tuple[Sequence[list[float] | None], str]:
        """Vectors, or None for each text and why."""
        if self._embeddings is None:
            return [None] * len(texts), "the agent has no embedding model"
        try:
            return await self._embeddings.of(texts), ""
        except UpstreamError as error:
            log.warning("memory goes by words alone: %s", error)
            return [None] * len(texts), "the embedding model cannot be asked"

    async def _embed_anew(self, user: str, found: Found) -> None:
        vectors, why = await self._vectors([text for _, text in found.stale])
        if self._embeddings is not None and not why:
            new = {ident: vector for (ident, _), vector in zip(found.stale, vectors, strict=True) if vector}
            await self._client.embed(user, self._embeddings.model, new)

    async def _learn(self, user: str, session: str) -> None:
        """Save the facts of what was said since the last time, if that is enough."""
        runs = (await self._read(user, session)).runs
        done = await self._client.progress(user, session)
        if len(runs) - done < EVERY:
            self._since[user, session] = len(runs) - done
            return
        asked = facts.prompt([message for run in runs[done:] for message in run.messages])
        answer = (await self._ask([{"role": "user", "content": asked}], [])).text if asked else "[]"
        learned = facts.read(answer)
        if learned is None:
            log.warning("session %s: nothing is saved, the model's answer is no JSON list of facts", session)
        vectors, _ = await self._vectors(learned) if learned else ([], "")
        items = list(zip(learned or [], vectors, strict=True))
        saved = await self._keep(user, items, session=session, turns=len(runs))
        log.info("session %s: %d facts are remembered", session, saved)

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        async def guarded() -> None:
            try:
                await work
            except QuarterdeckError as error:
                log.warning("%s: %s", name, error)

        task = asyncio.create_task(guarded(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def of(
    config: AgentConfig, pool: Pool, url: str, headers: HeaderSource, model: ChatModel, state: ControlPlaneState
) -> list[Memory]:
    """The memory of an agent that has one. ``url`` is ``KAGENT_URL``."""
    if config.memory is None:
        return []
    embedding = config.memory.embedding
    embeddings = Embeddings(pool, embedding, headers) if embedding is not None else None

    async def read(user: str, session: str) -> Conversation:
        return await state.conversation(user, session, before="")

    return [Memory(config.memory, MemoryClient(pool, url, headers), embeddings, model.reply, read)]


__all__ = ["EVERY", "Memory", "of"]
