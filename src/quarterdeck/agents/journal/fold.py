"""What the journal of a run says, and what follows from it for each step. Pure: no clock, no I/O.

A step is one model call or one tool call. Its story is a sequence of these events, each of which may be missing at the
end because a process died there::

    intent → started (by the gateway, where it demands permits) → result
                 ↘ waiting → answer → intent → …
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quarterdeck.snapshot.runs import Event

Json = dict[str, Any]
OnUnknown = Literal["Ask", "Repeat", "Skip", "Fail"]
UNKNOWN = "unknown_outcome"
PARTS = "parts"
"""Member of a note: what plug-ins put before the conversation of the run, by their names."""


@dataclass(slots=True)
class Step:
    """``phase`` is what happened last; ``attempts`` counts intents under the fence of the last one."""

    phase: Literal["new", "intended", "started", "waiting", "answered", "done"] = "new"
    fence: int = 0
    attempts: int = 0
    guarded: bool = False
    """Whether the gateway demanded a permit for the last intent: without ``started`` nothing was carried out."""
    intent: int = 0
    """Number of the event that was the last intent."""
    reason: str = ""
    """Why it waits, or waited."""
    answer: Json | None = None
    """The answer that has not been used up by a call."""
    task: str = ""
    """What another agent calls the task that the call has made there."""
    waits_for: str = ""
    """The task of another agent that waits for somebody, and this one with it."""
    name: str = ""
    """Of the tool that is called."""
    at: float = 0.0
    """When the last intent was written, in seconds since the epoch."""
    result: Json = field(default_factory=dict[str, Any])

    def add(self, event: Event) -> None:
        if event.kind.endswith(".intent"):
            self.attempts = self.attempts + 1 if event.fence == self.fence else 1
            self.phase, self.fence, self.guarded = "intended", event.fence, bool(event.data.get("guarded"))
            self.intent, self.at, self.name = event.seq, event.at, str(event.data.get("name") or "")
        elif event.kind == "note":
            self.task = str(event.data.get("task") or self.task)
        elif event.kind == "tool.started":
            self.phase, self.answer = "started", None
        elif event.kind == "waiting":
            self.phase, self.reason, self.answer = "waiting", str(event.data.get("reason", "")), None
            self.waits_for = str((event.data.get("question") or {}).get("task") or "")
        elif event.kind == "answer":
            self.phase, self.answer = "answered", event.data
        elif event.kind.endswith(".result"):
            self.phase, self.result, self.answer = "done", event.data, None


@dataclass(frozen=True, slots=True)
class Do:
    """Write an intent and make the call. ``answer`` is what somebody said when it was made before."""

    answer: Json | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """The step is done: take its result."""

    result: Json


@dataclass(frozen=True, slots=True)
class Settle:
    """Write this as the result without making the call."""

    text: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Nobody knows whether the call was carried out: ask the user."""


@dataclass(frozen=True, slots=True)
class Stay:
    """It waits for an answer still."""


@dataclass(frozen=True, slots=True)
class Fail:
    """End the run."""

    text: str


Decision = Do | Use | Settle | Ask | Stay | Fail


def decide(step: Step, *, repeatable: bool, on_unknown: OnUnknown = "Ask") -> Decision:
    """What to do about a step by what is known of it. ``repeatable``: calling twice does no harm."""
    if step.phase == "done":
        return Use(step.result)
    if step.phase == "waiting":
        return Stay()
    if step.phase == "answered":
        return _answered(step)
    if not uncertain(step) or repeatable:
        return Do(step.answer)
    by_policy: dict[OnUnknown, Decision] = {
        "Ask": Ask(), "Repeat": Do(), "Skip": Settle(_SKIPPED), "Fail": Fail(_FAILED),
    }  # fmt: skip
    return by_policy[on_unknown]


def uncertain(step: Step) -> bool:
    """Whether the call may have been carried out, though no result is written."""
    return step.phase == "started" or (step.phase == "intended" and not step.guarded)


_SKIPPED = (
    "Error: the call was interrupted. Whether it was carried out is not known, and it was not repeated; check before "
    "you call it again."
)
_FAILED = "a tool call was interrupted, and whether it was carried out is not known"


def _answered(step: Step) -> Decision:
    answer = step.answer or {}
    if step.reason != UNKNOWN:
        return Do(answer)
    actions: dict[str, Decision] = {"repeat": Do(), "skip": Settle(_SKIPPED), "fail": Fail(_FAILED)}
    return actions.get(str(answer.get("action")), Ask())


def add_usage(total: dict[str, int], usage: Mapping[str, int] | None) -> None:
    for name, value in (usage or {}).items():
        total[name] = total.get(name, 0) + int(value)


class Story:
    """The events of one run, folded."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.steps: dict[int, Step] = {}
        self.created: Json = {}
        self.seq = 0
        self.fence = 0
        self.canceled_by = ""
        self.final: Json | None = None
        self.usage: dict[str, int] = {}
        self.tool_calls = 0
        self.began = 0.0
        self.checkpoint: Json | None = None
        self.parts: dict[str, str] | None = None
        self.compaction: Json | None = None
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        self.seq, self.fence = max(self.seq, event.seq), max(self.fence, event.fence)
        if event.step and event.kind != "checkpoint":
            self.step(event.step).add(event)
        if event.kind == "created":
            self.created, self.began = event.data, event.at
        elif event.kind == "cancel":
            self.canceled_by = str(event.data.get("by", "")) or "somebody"
        elif event.kind == "final":
            self.final = event.data
        elif event.kind == "checkpoint":
            self.checkpoint = event.data
        elif event.kind == "compaction":
            self.compaction = event.data
            add_usage(self.usage, event.data.get("usage"))
        elif event.kind == "note" and PARTS in event.data:
            self.parts = event.data[PARTS]
        elif event.kind == "model.result":
            add_usage(self.usage, event.data.get("usage"))
        elif event.kind == "tool.result":
            self.tool_calls += 1

    def step(self, number: int) -> Step:
        return self.steps.setdefault(number, Step())

    def messages(self) -> list[Json]:
        """What the model and the tools said, in the order of the conversation."""
        done = ((number, step) for number, step in sorted(self.steps.items()) if step.phase == "done")
        return [step.result["message"] for _, step in done if "message" in step.result]

    @property
    def waiting(self) -> int:
        """The step that waits for an answer; 0: none."""
        return next((number for number, step in self.steps.items() if step.phase == "waiting"), 0)
