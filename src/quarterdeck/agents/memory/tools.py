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


class _TextTool:
    """A tool whose only argument is a text."""

    server = ""
    repeatable = True

    def __init__(self, name: str, description: str, argument: str, meaning: str) -> None:
        self.name = self.upstream = name
        self.description = description
        member = {argument: {"type": "string", "description": meaning}}
        self.schema: dict[str, Any] = {"type": "object", "properties": member, "required": [argument]}
        self._argument = argument

    def _text(self, arguments: dict[str, Any]) -> str:
        """Empty for what is no text."""
        value = arguments.get(self._argument)
        return value.strip() if isinstance(value, str) else ""


class SaveMemory(_TextTool):
    """Saving the same twice is saving it once."""

    trusted = True  # its result is the host's own word

    def __init__(self, save: SaveOne) -> None:
        description = (
            "Saves a specific piece of information or text to long-term memory. Use this to remember important facts, "
            "user preferences, or specific details for future reference."
        )
        super().__init__(SAVE, description, "content", "The text content or fact to save to memory.")
        self._save = save

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        content = self._text(arguments)
        if not content or len(content) > LONGEST:
            return Outcome(
                f"Error: content must be a text of 1 to {LONGEST} characters; nothing was saved", failed=True
            )
        try:
            note = await self._save(context.user, content)
        except UpstreamError as error:
            return Outcome(f"Error: nothing was saved: {error}", failed=True)
        return Outcome(f"Saved to long-term memory.{f' {note}' if note else ''}")


class LoadMemory(_TextTool):
    """Its result is what was said and read before: data, marked as such like that of any other tool."""

    def __init__(self, search: Search) -> None:
        description = (
            "Searches the long-term memory of the current user and returns what fits best, as JSON. Use it when the "
            "user speaks of something from before."
        )
        super().__init__(LOAD, description, "query", "The query to search memory for.")
        self._search = search

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        query = self._text(arguments)
        if not query:
            return Outcome("Error: query must be a text that says what to look for", failed=True)
        try:
            found = await self._search(context.user, query[:LONGEST])
        except UpstreamError as error:
            return Outcome(f"Error: memory could not be searched: {error}", failed=True)
        memories = [{"text": one.text, "saved": one.saved, "score": round(one.score, 2)} for one in found]
        return Outcome(json.dumps({"memories": memories}, ensure_ascii=False))
