"""What a tool is to the agent, whoever offers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Context:
    """Whose conversation a call belongs to."""

    user: str
    session: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A tool's result as text for the model."""

    text: str
    failed: bool = False


class Tool(Protocol):
    """Something the model can call. ``schema`` is a JSON Schema of its arguments."""

    name: str
    description: str
    schema: dict[str, Any]

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        """Raises QuarterdeckError; the model is told what it says."""
        ...
