"""Answers in OpenAI's shape: complete (``chat.completion``) or piece by piece (``chat.completion.chunk``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import time
from typing import Any, Literal
from uuid import uuid4

import msgspec

from quarterdeck.errors import UpstreamError

from .problem import Problem

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(slots=True)
class Tokens:
    """``prompt`` holds ``cached`` and ``written``, the tokens read from and written to the provider's cache;
    ``completion`` holds ``reasoning``."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    written: int = 0
    reasoning: int = 0

    def document(self) -> dict[str, Any]:
        """OpenAI's ``usage``."""
        details: dict[str, int] = {"cached_tokens": self.cached}
        if self.written:
            details["cache_creation_tokens"] = self.written
        found: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": details,
        }
        if self.reasoning:
            found["completion_tokens_details"] = {"reasoning_tokens": self.reasoning}
        return found


@dataclass(slots=True)
class Called:
    """A tool call. ``arguments`` is JSON; ``extra`` is what the provider wants back with it."""

    id: str
    name: str
    arguments: str
    extra: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        call: dict[str, Any] = {
            "id": self.id or f"call_{uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": self.name, "arguments": _text(self.arguments or "{}")},
        }
        return call | ({"extra_content": self.extra} if self.extra else {})


@dataclass(slots=True)
class Completion:
    """A whole answer."""

    id: str = ""
    model: str = ""
    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: list[Called] = field(default_factory=list[Called])
    finish: Finish = "stop"
    tokens: Tokens = field(default_factory=Tokens)

    def encode(self) -> bytes:
        """Raises TypeError when the provider's texts are none."""
        for text in (self.text, self.refusal, self.reasoning, *(call.name for call in self.calls)):
            _text(text)
        message: dict[str, Any] = {
            "role": "assistant", "content": self.text or None, "refusal": self.refusal or None,
        }  # fmt: skip
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = [call.document() for call in self.calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        document = _frame(self.id, self.model, "chat.completion", int(time())) | {
            "choices": [choice],
            "usage": self.tokens.document(),
        }
        return msgspec.json.encode(document)


class Chunks:
    """Writes a stream. :meth:`take` gives the bytes that are ready; :meth:`end` comes last, :meth:`fail` instead."""

    def __init__(self, *, usage: bool) -> None:
        """``usage``: whether the client wants a chunk with the token counts."""
        self.id = ""
        self.model = ""
        self.tokens = Tokens()
        self.finish: Finish | None = None
        self.error: Problem | None = None
        """What the provider ended its stream with."""
        self._usage = usage
        self._created = int(time())
        self._begun = False
        self._ready: list[bytes] = []
        self._calls = 0
        self._bare: set[int] = set()
        """Calls whose arguments nothing was said of yet."""

    def take(self) -> bytes:
        ready, self._ready = b"".join(self._ready), []
        return ready

    def text(self, piece: str) -> None:
        self._delta({"content": _text(piece)})

    def refuse(self, piece: str) -> None:
        self._delta({"refusal": _text(piece)})

    def reason(self, piece: str) -> None:
        self._delta({"reasoning_content": _text(piece)})

    def call(self, called: Called) -> int:
        """A tool call begins, with as much of its arguments as is known; gives its index."""
        index, self._calls = self._calls, self._calls + 1
        document = called.document()
        document["function"] = {"name": _text(called.name), "arguments": _text(called.arguments)}
        self._delta({"tool_calls": [{"index": index} | document]})
        if not called.arguments:
            self._bare.add(index)
        return index

    def arguments(self, index: int, piece: str) -> None:
        if piece:
            self._bare.discard(index)
        self._delta({"tool_calls": [{"index": index, "function": {"arguments": _text(piece)}}]})

    @property
    def failed(self) -> bool:
        return self.error is not None

    @property
    def called(self) -> bool:
        return self._calls > 0

    def end(self) -> None:
        """Raises UpstreamError when the provider never said that its answer is complete."""
        if self.finish is None:
            raise UpstreamError("ended its answer early")
        if self.finish == "tool_calls":
            for index in sorted(self._bare):  # to a tool without parameters some providers say none; clients read JSON
                self.arguments(index, "{}")
        self._delta({}, self.finish)
        if self._usage:
            self._write(self._head() | {"choices": [], "usage": self.tokens.document()})
        self._ready.append(b"data: [DONE]\n\n")

    def fail(self, error: Problem) -> None:
        """Clients raise it."""
        self.error = error
        self._write({"error": error.document()})

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> None:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant"} | delta
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        self._write(self._head() | {"choices": [choice]})

    def _head(self) -> dict[str, Any]:
        self.id = self.id or f"chatcmpl-{uuid4().hex[:24]}"
        return _frame(self.id, self.model, "chat.completion.chunk", self._created)

    def _write(self, document: dict[str, Any]) -> None:
        self._ready.append(b"data: %b\n\n" % msgspec.json.encode(document))


def _text(value: object) -> str:
    """What providers call a text may be anything. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"a text is a {type(value).__name__}")
    return value


def _frame(ident: str, model: str, kind: str, created: int) -> dict[str, Any]:
    return {"id": ident or f"chatcmpl-{uuid4().hex[:24]}", "object": kind, "created": created, "model": model}
