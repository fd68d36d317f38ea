"""The events of a task as what these protocols tell: text as it comes, tool calls and results, how it ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from quarterdeck.a2atypes import Json

from ..a2a import types

_PARTIAL = "quarterdeck.dev/partial"


@dataclass(frozen=True, slots=True)
class Text:
    """More of what the agent says."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """The agent calls a tool."""

    id: str
    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Result:
    """A tool has answered."""

    id: str
    text: str
    failed: bool


@dataclass(frozen=True, slots=True)
class End:
    """``state`` of the task; ``text`` why it failed or what it waits for; ``usage`` as the model's provider has it."""

    state: str
    text: str
    usage: dict[str, int]
    task: Json


Piece = Text | Call | Result | End


class Reader:
    """Feed it StreamResponses in order."""

    def __init__(self, task: Json) -> None:
        self.task = task
        self._said = ""
        """Of the present answer, since the last tool call."""
        self._spoke = False

    def read(self, event: Json) -> list[Piece]:
        if "task" in event:
            self.task = event["task"]
            return self._whole()
        if "artifactUpdate" in event:
            return self._answer(event["artifactUpdate"]["artifact"])
        update: Json = event["statusUpdate"]
        status: Json = update["status"]
        if update.get("metadata"):
            self.task = self.task | {"metadata": (self.task.get("metadata") or {}) | update["metadata"]}
        state, message = status["state"], status.get("message") or {}
        if state in types.TERMINAL | types.INTERRUPTED:
            return self._ended(status)
        if (message.get("metadata") or {}).get(_PARTIAL):
            return [self._text(types.text_of(message))]
        return [piece for part in message.get("parts") or () if (piece := self._tool(part)) is not None]

    def _whole(self) -> list[Piece]:
        """A task that was over before anybody looked."""
        status: Json = self.task["status"]
        if status["state"] not in types.TERMINAL | types.INTERRUPTED:
            return []
        artifacts: Any = self.task.get("artifacts") or []
        found = [piece for artifact in artifacts for piece in self._answer(artifact)]
        return [*found, *self._ended(status)]

    def _answer(self, artifact: Json) -> list[Piece]:
        """The whole answer, of which a part may have been said already."""
        whole = types.text_of(artifact)
        rest = whole.removeprefix(self._said) if whole.startswith(self._said) else whole
        return [self._text(rest)] if rest else []

    def _text(self, text: str) -> Text:
        self._said += text
        self._spoke = True
        return Text(text)

    def _tool(self, part: Json) -> Piece | None:
        kind = (part.get("metadata") or {}).get("kagent_type")
        data: Any = part.get("data")
        if kind == "function_call":
            self._said = ""
            return Call(str(data["id"]), str(data["name"]), data.get("args") or {})
        if kind == "function_response":
            response: Json = data.get("response") or {}
            return Result(str(data["id"]), str(response.get("result", "")), bool(response.get("isError")))
        return None

    def _ended(self, status: Json) -> list[Piece]:
        """An agent that answers with the status' message only has said that."""
        end = self._end(status)
        said = end.text if end.state == types.COMPLETED and not self._spoke else ""
        return [Text(said), end] if said else [end]

    def _end(self, status: Json) -> End:
        message = status.get("message")
        text = types.text_of(message) if message else ""
        self.task = self.task | {"status": status}
        usage: dict[str, int] = (self.task.get("metadata") or {}).get("usage") or {}
        return End(status["state"], text, usage, self.task)


async def pieces(task: Json, events: AsyncGenerator[tuple[int, Json]]) -> AsyncGenerator[Piece]:
    """Until the task has ended or waits."""
    reader = Reader(task)
    try:
        async for _, event in events:
            for piece in reader.read(event):
                yield piece
                if isinstance(piece, End):
                    return
    finally:
        await events.aclose()
