"""Where what an agent has besides its tools joins its turns: memory, skills, and whatever comes after them.

A plug-in gives text that is put before the conversation, and tools of its own. The text of a run is asked for once and
kept in its journal, so that a run that goes on elsewhere goes on with the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quarterdeck.errors import QuarterdeckError

from .tool import Tool


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run begins with: the user's ``text`` in a session, and whether something was said there before."""

    user: str
    session: str
    run: str
    text: str
    first: bool


class Plugin(Protocol):
    """``name`` says whose text it is: one word, also the key under which the journal keeps it."""

    name: str

    async def before(self, asked: Asked) -> str:
        """Text for the model, put after the agent's instruction; empty for none.

        Raises QuarterdeckError: the run then goes on without, and the model is told what it says.
        """
        ...

    def tools(self) -> Sequence[Tool]:
        """Tools that every turn has. Their names are theirs: a server's tool of that name gets another."""
        ...


async def texts(plugins: Sequence[Plugin], asked: Asked) -> dict[str, str]:
    """What the plug-ins put before a conversation, by their names; those that say nothing are left out."""

    async def one(plugin: Plugin) -> str:
        try:
            return await plugin.before(asked)
        except QuarterdeckError as error:
            return f"The agent's {plugin.name} cannot be used now: {error}"

    found = await asyncio.gather(*(one(plugin) for plugin in plugins))
    return {plugin.name: text for plugin, text in zip(plugins, found, strict=True) if text}
