"""Where what an agent has besides its tools joins its turns: memory, skills, and whatever comes after them.

A plug-in gives text that is put before the conversation, and tools of its own. The text of a run is asked for once and
kept in its journal, so that a run that goes on elsewhere goes on with the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class Listener(Protocol):
    """A plug-in that is told when a run has been completed."""

    def ended(self, asked: Asked) -> None:
        """Returns at once: what takes time is done in the background."""
        ...


def split(plugins: Sequence[Plugin], parts: Mapping[str, str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Texts for the system message, and messages that come right before what the user says: those of plug-ins with
    ``lead = True``, whose text is data about this message rather than instructions."""
    leading = {plugin.name for plugin in plugins if getattr(plugin, "lead", False)}
    system = [text for name, text in parts.items() if name not in leading]
    return system, [{"role": "user", "content": text} for name, text in parts.items() if name in leading]


def ended(plugins: Sequence[Plugin], asked: Asked) -> None:
    for plugin in plugins:
        if isinstance(plugin, Listener):
            plugin.ended(asked)


async def texts(plugins: Sequence[Plugin], asked: Asked) -> dict[str, str]:
    """What the plug-ins put before a conversation, by their names; those that say nothing are left out."""

    async def one(plugin: Plugin) -> str:
        try:
            return await plugin.before(asked)
        except QuarterdeckError as error:
            return f"The agent's {plugin.name} cannot be used now: {error}"

    found = await asyncio.gather(*(one(plugin) for plugin in plugins))
    return {plugin.name: text for plugin, text in zip(plugins, found, strict=True) if text}
