"""How a run stops before its end."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


class Pause(Exception):
    """A tool call cannot go on without somebody: the run waits, and the call is made again with the answer.

    ``reason``: approval, unknown_outcome, ask_user or auth. ``question`` is kept in the journal; ``parts`` are the A2A
    parts that tell the user.
    """

    def __init__(self, reason: str, question: Json, parts: list[Json]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.question = question
        self.parts = parts


class Paused(Exception):
    """The pause is in the journal, and the run is no longer ours."""


class Fenced(Exception):
    """Another replica has the run: nothing of it may be done here any more."""


class Unwritten(Exception):
    """The journal could not be written for too long: the run stays as it is there."""


class RunFailed(Exception):
    """The run ends as failed. ``reason`` is one word for programs, the text is for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class BudgetExceeded(RunFailed):
    """What the run may use is used up."""

    def __init__(self, text: str) -> None:
        super().__init__("budget_exceeded", text)
