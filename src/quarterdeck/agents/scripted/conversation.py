"""The messages of a request read as a turn: what the user asks now, and what was called and answered since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ..untrusted import plain
from .answer import ASKING, asked_for
from .results import Done


@dataclass(frozen=True)
class Turn:
    """``text``: the request, completed by an earlier one when the user answers a question of ours.

    ``missing``: what the system messages say of tools that are not available now; ``recalled``: what the agent
    knows from before about the request.
    """

    text: str
    done: list[Done] = field(default_factory=list[Done])
    missing: str = ""
    recalled: str = ""


def text_of(content: Any) -> str:
    """A message's words: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    parts: list[str] = []
    for part in cast(list[Any], content) if isinstance(content, list) else []:
        if isinstance(part, Mapping) and isinstance(part.get("text"), str):
            parts.append(part["text"])
    return "\n".join(parts)


def read(messages: list[Any]) -> Turn:
    """The current turn of a conversation in OpenAI's message form."""
    entries = [cast(dict[str, Any], m) for m in messages if isinstance(m, dict)]
    last = max((i for i, m in enumerate(entries) if m.get("role") == "user"), default=-1)
    if last < 0:
        return Turn("")
    return Turn(_completed(entries, last), _done(entries[last + 1 :]), _missing(entries))


def _missing(entries: list[dict[str, Any]]) -> str:
    """The lines in which the agent's host says that a server could not be asked for its tools."""
    said = (text_of(m.get("content")) for m in entries if m.get("role") == "system")
    return " ".join(line for text in said for line in text.splitlines() if " not available now: " in line)


def _completed(entries: list[dict[str, Any]], last: int) -> str:
    text = text_of(entries[last].get("content"))
    if last < 2 or entries[last - 1].get("role") != "assistant":
        return text
    question = text_of(entries[last - 1].get("content"))
    wanted = asked_for(question) if ASKING in question else None
    earlier = next((text_of(m.get("content")) for m in reversed(entries[:last]) if m.get("role") == "user"), "")
    if wanted is None or not earlier or len(text.split()) > 12 or not text.strip():
        return text
    plain = text.strip().rstrip(".!")
    return f"{earlier.rstrip(' ?.!')}, {wanted}: {plain if plain[:1] in chr(34) + chr(39) + '[{' else _quote(plain)}"


def _quote(text: str) -> str:
    return text if " " not in text or '"' in text else f'"{text}"'


def _done(entries: list[dict[str, Any]]) -> list[Done]:
    """Calls of this turn that have a result, in the order called."""
    results = {str(m.get("tool_call_id")): plain(text_of(m.get("content"))) for m in entries if m.get("role") == "tool"}
    done: list[Done] = []
    for entry in entries:
        calls = entry.get("tool_calls")
        for call in cast(list[Any], calls) if isinstance(calls, list) else []:
            function = call.get("function") if isinstance(call, Mapping) else None
            if not isinstance(function, Mapping) or str(call.get("id")) not in results:
                continue
            done.append(
                Done(str(function.get("name")), _arguments(function.get("arguments")), results[str(call["id"])])
            )
    return done


def _arguments(text: Any) -> dict[str, Any]:
    try:
        parsed = json.loads(text) if isinstance(text, str) and text else text
    except (ValueError, RecursionError):
        parsed = None
    return cast(dict[str, Any], parsed) if isinstance(parsed, dict) else {}
