"""The journal of a run: what the agent host, the gateway and people write about it, in one order."""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import Struct

State = Literal["pending", "running", "waiting", "completed", "failed", "canceled"]
"""pending: nobody works on it now and anybody may; waiting: for somebody's answer."""
FINAL: Final = frozenset({"completed", "failed", "canceled"})
OPEN: Final = frozenset({"pending", "running"})

Kind = Literal[
    "created", "leased", "model.intent", "model.result", "tool.intent", "tool.started", "tool.result", "waiting",
    "answer", "cancel", "checkpoint", "compaction", "note", "final",
]  # fmt: skip
WRITTEN_BY_HOST: Final = frozenset(
    {
        "model.intent",
        "model.result",
        "tool.intent",
        "tool.result",
        "waiting",
        "checkpoint",
        "compaction",
        "note",
        "final",
    }
)
"""What an agent may append. ``tool.started`` is the gateway's; ``answer`` and ``cancel`` are people's."""


class Event(Struct, frozen=True):
    """One entry. ``step`` is 0 for what concerns the whole run; ``at`` is in seconds since the epoch.

    ``data`` by kind:

    - created: ``{message, source, task, session, origin?: {run, step, how, traceparent}}``
    - leased: ``{replica}``
    - model.intent: ``{}``; model.result: ``{message, usage, calls: [{id, name, arguments, problem?}], model, took,
      first?, cost?}``: seconds of the call and to its first text, cost by the agent's prices
    - tool.intent: ``{id, name, tool, server, arguments, hash, repeatable, guarded, attempt}``
    - tool.started: ``{gateway, attempt}``; tool.result: ``{id, name, failed, message, took, task?, how?}``:
      ``task`` is the A2A task of another agent that was asked
    - waiting: ``{reason, question, parts}``; answer: ``{by, …}``; cancel: ``{by}``
    - compaction: ``{through: {run, messages}, summary, messages, tokens, why, usage, model?, took?, cost?}``: of the
      conversation, all before that run and so many of its messages are represented by the summary from now on
    - final: ``{state, reason, text, usage}``
    """

    seq: int
    kind: str
    step: int
    at: float
    fence: int
    data: dict[str, Any]
