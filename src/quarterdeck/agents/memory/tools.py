"""``save_memory`` and ``load_memory``: names, descriptions and arguments are kagent's (0.9, 0.10)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from quarterdeck.errors import UpstreamError

from ..tool import Context, Outcome
from .client import Remembered

SAVE, LOAD = "save_memory", "load_memory"
LONGEST = 8000
"""Characters of a memory that the model saves, and of what it looks for."""
SaveOne = Callable[[str, str], Awaitable[str]]
"""User and text → what could not be done, empty when all could."""
Search = Callable[[str, str], Awaitable[Sequence[Remembered]]]


Work = Callable[[str, str], Awaitable[str]]
"""User and text → the result. Raises UpstreamError."""


class MemoryTool:
    """A tool whose only argument is a text of at most :data:`LONGEST` characters. Calling it twice does no harm."""

    server = ""
    repeatable = True

    def __init__(self, name: str, description: str, argument: str, meaning: str, work: Work, *, trusted: bool) -> None:
        self.name = self.upstream = name
        self.description = description
        member = {argument: {"type": "string", "description": meaning}}
        self.schema: dict[str, Any] = {"type": "object", "properties": member, "required": [argument]}
        self.trusted = trusted
        self._argument = argument
        self._work = work

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        value = arguments.get(self._argument)
        text = value.strip() if isinstance(value, str) else ""
        if not 0 < len(text) <= LONGEST:
            return Outcome(f"Error: {self._argument} must be a text of 1 to {LONGEST} characters", failed=True)
        try:
            return Outcome(await self._work(context.user, text))
        except UpstreamError as error:
            return Outcome(f"Error: {self.name} was not carried out: {error}", failed=True)


def tools(save: SaveOne, search: Search) -> list[MemoryTool]:
    """Both tools. What saving answers is the host's own word; what is found is data, marked as that of any tool."""

    async def saved(user: str, text: str) -> str:
        note = await save(user, text)
        return f"Saved to long-term memory.{f' {note}' if note else ''}"

    async def found(user: str, text: str) -> str:
        memories = [{"text": m.text, "saved": m.saved, "score": round(m.score, 2)} for m in await search(user, text)]
        return json.dumps({"memories": memories}, ensure_ascii=False)

    to_save = (
        "Saves a specific piece of information or text to long-term memory. Use this to remember important facts, "
        "user preferences, or specific details for future reference."
    )
    to_load = (
        "Searches the long-term memory of the current user and returns what fits best, as JSON. Use it when the "
        "user speaks of something from before."
    )
    return [
        MemoryTool(SAVE, to_save, "content", "The text content or fact to save to memory.", saved, trusted=True),
        MemoryTool(LOAD, to_load, "query", "The query to search memory for.", found, trusted=False),
    ]
