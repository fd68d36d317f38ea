"""A conversation as the control plane keeps it: the messages of each run, and how far it has been compacted. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
MESSAGE = "quarterdeck.dev/message"
COMPACTION = "quarterdeck.dev/compaction"
_LOST = "Error: the agent was interrupted; whether this call was carried out is not known"


@dataclass(frozen=True, slots=True)
class Said:
    """The messages of one run, its user's first."""

    run: str
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Compacted:
    """All runs before ``run``, and its first ``messages`` messages, are represented by ``summary``; empty: left out.

    ``made_in`` is the run in whose journal that is written.
    """

    run: str
    messages: int
    summary: str
    made_in: str

    @staticmethod
    def of(data: Mapping[str, Any], made_in: str) -> Compacted:
        """From the data of a journal's ``compaction`` event."""
        through = data["through"]
        return Compacted(str(through["run"]), int(through["messages"]), str(data["summary"]), made_in)


@dataclass(slots=True)
class Conversation:
    """``runs`` in the order they began; ``compacted`` by the last of them that did."""

    runs: list[Said] = field(default_factory=list[Said])
    compacted: Compacted | None = None


def conversation_of(events: Iterable[Mapping[str, Any]], before: str) -> Conversation:
    """A session's events (kagent's ``{id, data}``, oldest first) as they were said before the run ``before`` began.

    A run that was queued begins when those before it have ended, though its message is older than their answers.
    """
    said: dict[str, list[Message]] = {}
    compacted: list[tuple[str, Mapping[str, Any]]] = []
    for event in events:
        run = run_of(str(event["id"]))
        data = json.loads(event["data"])
        if data.get("kind") == MESSAGE:
            said.setdefault(run, []).append(data["message"])
        elif data.get("kind") == COMPACTION:
            compacted.append((run, data))
    order = list(said)
    order = order[: order.index(before)] if before in said else order
    known = [Compacted.of(data, run) for run, data in compacted if run in order]
    last = next((one for one in reversed(known) if one.run in order), None)
    return Conversation([Said(run, said[run]) for run in order], last)


def run_of(ident: str) -> str:
    """The run that an event is of: its id is ``RUN/NUMBER``, in a forked conversation ``COPY/RUN/NUMBER``."""
    parts = ident.rsplit("/", 2)
    return parts[-2] if len(parts) > 1 else ident


def repaired(messages: Sequence[Message]) -> list[Message]:
    """Messages that models accept: a call whose result was lost gets one that says so, of an answer that was given
    again because it was not valid only the last counts, and one that says nothing is left out."""
    answered = {m.get("tool_call_id") for m in messages if m["role"] == "tool"}
    out: list[Message] = []
    for message in messages:
        if _answer(message) and not message.get("content"):
            continue
        if out and _answer(out[-1]) and message["role"] == "assistant":
            out.pop()
        out.append(message)
        for call in message.get("tool_calls") or []:
            if call["id"] not in answered:
                out.append({"role": "tool", "tool_call_id": call["id"], "content": _LOST})
    return out


def _answer(message: Message) -> bool:
    return message["role"] == "assistant" and not message.get("tool_calls")


@dataclass(frozen=True, slots=True)
class Atom:
    """Messages that are of no use without each other: one, or calls with their results. ``end``: how many messages of
    the run there are with these."""

    run: str
    end: int
    messages: Sequence[Message]


def atoms(said: Said, start: int = 0) -> list[Atom]:
    """The messages of a run after the first ``start``."""
    found: list[Atom] = []
    held: list[Message] = []
    for number, message in enumerate(said.messages[start:], start + 1):
        following = said.messages[number] if number < len(said.messages) else None
        held.append(message)
        if following is None or following["role"] != "tool":
            found.append(Atom(said.run, number, tuple(held)))
            held = []
    return found
