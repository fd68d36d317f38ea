"""A run as a tree of its steps: what was asked, called and answered, how long it took and what it cost. Pure.

Runs that other agents made for it hang below the steps that asked them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from quarterdeck.agents.observe.redact import Redactor
from quarterdeck.agents.observe.usage import Tokens, tokens_of
from quarterdeck.snapshot.runs import FINAL, Event

_WIDTH = 100
Json = dict[str, Any]


@dataclass(slots=True)
class Transcript:
    """A run as the API gives it, its events, and by step the runs of other agents, or why one cannot be shown."""

    run: Json
    events: Sequence[Event]
    below: dict[int, Transcript | str] = field(default_factory=dict[int, "Transcript | str"])


@dataclass(slots=True)
class _Step:
    number: int
    events: list[Event] = field(default_factory=list[Event])

    @property
    def kind(self) -> str:
        return "model" if any(event.kind.startswith("model.") for event in self.events) else "tool"

    def last(self, kind: str) -> Event | None:
        return next((event for event in reversed(self.events) if event.kind == kind), None)


def asked_of(events: Sequence[Event]) -> dict[int, str]:
    """Tasks that steps gave to other agents: step to the id of the other's A2A task."""
    found: dict[int, str] = {}
    for event in events:
        task = (event.data.get("question") or {}).get("task") if event.kind == "waiting" else event.data.get("task")
        if event.step and event.kind in ("waiting", "tool.result") and isinstance(task, str) and task:
            found[event.step] = task
    return found


def tree(transcript: Transcript, redactor: Redactor, *, full: bool = False) -> str:
    """The lines of ``qd run show``. ``full``: texts are not cut."""
    clean = _Clean(redactor, full=full)
    run = transcript.run
    state, where = _state(run), f"session {run['session']}, task {run['task']}"
    began = datetime.fromtimestamp(run["createdAt"]).astimezone().isoformat(timespec="seconds")
    head = [
        f"Run {run['id']} of agent {run['agent']} for {run['user']} ({run['source']})",
        f"{state}, began {began}", f"{_counts(run)}; {where}",
    ]  # fmt: skip
    every = list(_all(transcript))
    if len(every) > 1:
        tokens, cost = [_spent(each) for each in every], sum(_priced(each) for each in every)
        sums = Tokens(*(sum(getattr(each, name) for each in tokens) for name in Tokens.__struct_fields__))
        head.append(f"with the runs below: {_tokens(sums)}{_cost(cost)}")
    head.append("")
    return "\n".join([*head, *_body(transcript, clean)]) + "\n"


def as_data(transcript: Transcript, redactor: Redactor, *, full: bool = False) -> Json:
    """The same for programs: ``{run, events, children: {step: …}}``. ``full``: long results as they were kept."""
    below = {
        str(step): {"problem": child} if isinstance(child, str) else as_data(child, redactor, full=full)
        for step, child in transcript.below.items()
    }
    events = [msgspec.to_builtins(e) | {"data": redactor.data(e.data)} for e in transcript.events]
    for event in () if full else events:
        event["data"].pop("full", None)
    return {"run": redactor.data(transcript.run), "events": events} | ({"children": below} if below else {})


class _Clean:
    """Values as they may be shown."""

    def __init__(self, redactor: Redactor, *, full: bool) -> None:
        self._redactor = redactor
        self._full = full

    def value(self, value: Any) -> str:
        return self.cut(msgspec.json.encode(self._redactor.value(value)).decode())

    def text(self, text: str) -> str:
        """A text; one that is JSON without what may not be shown."""
        return self.cut(self._redactor.text(text))

    def cut(self, text: str) -> str:
        if self._full:
            return text
        line = " ".join(text.split())
        return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


def _body(transcript: Transcript, clean: _Clean) -> list[str]:
    """What was asked, the steps as branches, and what came of it."""
    events = transcript.events
    steps: dict[int, _Step] = {}
    for event in events:
        if event.step and event.kind != "checkpoint":
            steps.setdefault(event.step, _Step(event.step)).events.append(event)
    branches: list[list[str]] = []
    notes = [event for event in events if event.kind == "compaction"]
    for number in sorted(steps):
        step = steps[number]
        while notes and notes[0].seq < step.events[0].seq:
            branches.append(_summarized(notes.pop(0), clean))
        lines = (_model if step.kind == "model" else _tool)(step, clean)
        child = transcript.below.get(number)
        if isinstance(child, Transcript):
            run = child.run
            lines.append(f"run {run['id']} of agent {run['agent']}: {_state(run)}, {_counts(run)}")
            lines += _body(child, clean)
        elif child is not None:
            lines.append(f"({child})")
        branches.append(lines)
    branches.append(_end(transcript.run, events, clean))
    drawn = _asked(events, clean)
    for at, lines in enumerate(branches):
        last = at == len(branches) - 1
        drawn.append(f"{'└─' if last else '├─'} {lines[0]}")
        drawn += [f"{'   ' if last else '│  '}  {line}" for line in lines[1:]]
    return drawn


def _state(run: Json) -> str:
    state = f"{run['state']}: {run['reason']}" if run["reason"] else str(run["state"])
    return f"{state}, {_seconds(run['updatedAt'] - run['createdAt'])}" if run["state"] in FINAL else state


def _counts(run: Json) -> str:
    summary: Json = run["summary"]
    steps, calls = _many(summary.get("steps", 0), "step"), _many(summary.get("toolCalls", 0), "tool call")
    return f"{steps}, {calls}, {_tokens(_spent(run))}{_cost(_priced(run))}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _all(transcript: Transcript) -> Iterator[Json]:
    """A run and those below it."""
    yield transcript.run
    for child in transcript.below.values():
        if isinstance(child, Transcript):
            yield from _all(child)


def _spent(run: Json) -> Tokens:
    return tokens_of(run["summary"].get("usage"))


def _priced(run: Json) -> float:
    return sum(float(part.get("cost", 0)) for part in (run["summary"].get("models") or {}).values())


def _asked(events: Sequence[Event], clean: _Clean) -> list[str]:
    lines: list[str] = []
    for event in events[:1]:
        parts = (event.data.get("message") or {}).get("parts") or []
        said = " ".join(str(part.get("text", "")) or clean.value(part.get("data")) for part in parts)
        lines.append(f"user: {clean.cut(said)}")
        origin = event.data.get("origin")
        if origin and "how" in origin:
            lines.append(f"({origin['how']} of run {origin['run']} from step {origin['step']}, by {origin['by']})")
    return lines


def _model(step: _Step, clean: _Clean) -> list[str]:
    result = step.last("model.result")
    if result is None:
        return [f"{step.number}. model  … no answer yet"]
    data = result.data
    name = f" {data['model']}" if data.get("model") else ""
    first = f" (first text after {_seconds(data['first'])})" if isinstance(data.get("first"), int | float) else ""
    used = tokens_of(data.get("usage"))
    tokens = f", {_tokens(used)}" if used != Tokens() else ""
    cost = data.get("cost")
    head = f"{step.number}. model{name}  {_took(step, 'model.intent', result)}{first}{tokens}"
    lines = [head + _cost(float(cost) if isinstance(cost, int | float) else 0.0)]
    text = str(data["message"].get("content") or "")
    return [*lines, f"→ {clean.text(text)}"] if text else lines


def _summarized(event: Event, clean: _Clean) -> list[str]:
    """What of the conversation was put together before the step that follows."""
    data = event.data
    lines = [f"summarized {data.get('messages', '?')} messages, {_tokens(tokens_of(data.get('usage')))}"]
    summary = str(data.get("summary") or "")
    return [*lines, f"→ {clean.text(summary)}"] if summary else lines


def _tool(step: _Step, clean: _Clean) -> list[str]:
    intent, result = step.last("tool.intent"), step.last("tool.result")
    if intent is None:
        return [f"{step.number}. tool  …"]
    data = intent.data
    attempts = sum(event.kind == "tool.intent" for event in step.events)
    again = f", {attempts} attempts" if attempts > 1 else ""
    server = f" of {data['server']}" if data.get("server") else ""
    lines = [f"{step.number}. {data['name']}{server}  {_took(step, 'tool.intent', result)}{again}"]
    lines.append(clean.value(data["arguments"]))
    for event in step.events:
        if event.kind == "waiting":
            lines.append(f"waits: {event.data['reason']}")
        elif event.kind == "answer":
            said = {k: v for k, v in event.data.items() if k not in ("by", "message")}
            lines.append(f"answered by {event.data.get('by', '?')}: {clean.value(said)}")
    if result is not None:
        lines.append(f"{'failed' if result.data.get('failed') else '→'} {clean.text(_said(result.data))}")
    return lines


def _said(data: Mapping[str, Any]) -> str:
    """A tool's result; parts that are no texts by their kind."""
    content = data["message"]["content"]
    if isinstance(content, list):
        parts: list[Json] = content
        return " ".join(str(part.get("text") or f"[{part.get('type', '?')}]") for part in parts)
    return str(content)


def _end(run: Json, events: Sequence[Event], clean: _Clean) -> list[str]:
    last = events[-1] if events else None
    if run["state"] == "waiting":
        asked = next((event for event in reversed(events) if event.kind == "waiting"), None)
        step = asked.step if asked is not None else 0
        return [f"waits for an answer to step {step}; see: qd run resume --help"]
    final = next((event for event in reversed(events) if event.kind == "final"), None)
    if last is None or final is None:
        return [f"goes on at {run['holder'] or 'no replica yet'}"]
    if final.data["state"] == "completed":
        return [f"answer: {clean.text(final.data['text'])}"]
    return [f"{final.data['state']}: {clean.cut(final.data['text'] or final.data['reason'])}"]


def _took(step: _Step, kind: str, result: Event | None) -> str:
    """As the host measured it; else by what was written when, which includes waiting."""
    if result is not None and isinstance(result.data.get("took"), int | float) and len(step.events) <= 3:
        return _seconds(result.data["took"])
    first = next((event for event in step.events if event.kind == kind), None)
    if first is None or result is None:
        return "(under way)"
    return _seconds(result.at - first.at)


def _tokens(used: Tokens) -> str:
    cached = f", {used.cached:,} cached" if used.cached else ""
    return f"{used.input:,}+{used.output:,} tokens{cached}"


def _cost(cost: float) -> str:
    return f", cost {cost:.4g}" if cost else ""


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
