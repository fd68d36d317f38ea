"""What a tool is to the agent, whoever offers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Context:
    """Whose conversation a call belongs to, and which step of which run it is."""

    user: str
    session: str
    run: str = ""
    step: int = 0
    permit: str = ""
    """Shown to the gateway; empty where it wants none."""
    answer: dict[str, Any] | None = None
    """What somebody said when the call paused before (``agents.journal.Pause``)."""
    task: str = ""
    """The task that an earlier attempt at this call made at another agent."""
    note: Callable[[str], Awaitable[None]] | None = None
    """Keeps the task that the call has made at another agent: an attempt after a restart gets it as ``task``."""
    goes_on: Callable[[], bool] = lambda: False
    """Whether the run goes on elsewhere: what is under way is then left alone when the call is cancelled."""

    @property
    def key(self) -> str:
        """The same for every attempt at this call: what a server may tell repetitions by."""
        return f"{self.run}/{self.step}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A tool's result as text for the model. ``media``: images, ``{mediaType, data}`` (base64); ``task``: the A2A task
    that another agent made of the call."""

    text: str
    failed: bool = False
    media: tuple[dict[str, Any], ...] = ()
    task: str = ""


class Tool(Protocol):
    """Something the model can call. ``schema`` is a JSON Schema of its arguments."""

    name: str
    description: str
    schema: dict[str, Any]

    @property
    def upstream(self) -> str:
        """What its server calls it."""
        ...

    @property
    def server(self) -> str:
        """``namespace/name`` of the MCP server behind the gateway that it is of; empty for any other tool."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether calling it twice does no harm, as it says itself."""
        ...

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        """Raises QuarterdeckError; the model is told what it says."""
        ...
