"""What a provider's own format consists of. Each module beside this one is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from quarterdeck.snapshot import Model

from .answer import Chunks, Completion
from .chat import Chat

Framing = Literal["sse", "ndjson", "eventstream"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A request: ``path`` below the model's base URL, with its query, and the body as JSON data."""

    path: str
    body: dict[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


class Translator(Protocol):
    """Turns the events of one streamed answer into chunks."""

    def event(self, name: str, document: Any) -> None:
        """``name`` of the event where the framing has one. Raises UpstreamError for what is no event."""
        ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """``request`` takes OpenAI's request as JSON data; ``answer`` gives OpenAI's answer as JSON data."""

    request: Callable[[Model, dict[str, Any]], Sent]
    answer: Callable[[Model, Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Format:
    """How a provider is spoken to. All raise Unfit for what it cannot do, UpstreamError for what it may not say."""

    request: Callable[[Model, Chat], Sent]
    answer: Callable[[Any], Completion]
    translator: Callable[[Chunks], Translator]
    framing: Framing = "sse"
    embeddings: Embeddings | None = None


def merged(body: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """``body`` with the ModelConfig's own fields, member by member; what the request says itself wins."""
    out = dict(extra)
    for key, value in body.items():
        other = out.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            out[key] = merged(value, other)
        else:
            out[key] = value
    return out
