"""A run as a tree of its steps: what was asked, called and answered, how long it took and what it cost. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from quarterdeck.gateway.audit.arguments import Redaction
from quarterdeck.snapshot.runs import FINAL, Event

_WIDTH = 100
Json = dict[str, Any]


@dataclass(slots=True)
class _Step:
    number: int
    events: list[Event] = field(default_factory=list[Event])

    def last(self, kind: str) -> Event | None:
        return next((event for event in reversed(self.events) if event.kind == kind), None)


def tree(run: Json, events: Sequence[Event], redaction: Redaction, *, full: bool = False) -> str:
    """The lines of ``qd run show``. ``full``: texts are not cut."""
    clean = _Clean(redaction, full=full)
    steps: dict[int, _Step] = {}
    for event in events:
        if event.step and event.kind != "checkpoint":
            steps.setdefault(event.step, _Step(event.step)).events.append(event)
    lines = [*_head(run), *_asked(events, clean)]
    above = "model"
    for number in sorted(steps):
        step = steps[number]
        kind = "model" if any(event.kind.startswith("model.") for event in step.events) else "tool"
        indent = "   " if kind == "tool" and above in ("model", "tool") else ""
        lines += [f"{indent}{line}" for line in (_model if kind == "model" else _tool)(step, clean)]
        above = kind
    return "\n".join([*lines, *_end(run, events, clean)]) + "\n"


class _Clean:
    """Values as they may be shown."""

    def __init__(self, redaction: Redaction, *, full: bool) -> None:
        self._redaction = redaction
        self._full = full

    def value(self, value: Any) -> str:
        return self.cut(bytes(self._redaction.recorded(msgspec.json.encode(value))).decode())

    def text(self, text: str) -> str:
        """A text; one that is JSON without what may not be shown."""
        try:
            return self.value(msgspec.json.decode(text)) if text[:1] in ("{", "[") else self.cut(text)
        except (msgspec.DecodeError, RecursionError):
            return self.cut(text)

    def cut(self, text: str) -> str:
        if self._full:
            return text
        line = " ".join(text.split())
        return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


def _head(run: Json) -> list[str]:
    summary: Json = run["summary"]
    used: Json = summary.get("usage") or {}
    tokens = used.get("total_tokens") or used.get("prompt_tokens", 0) + used.get("completion_tokens", 0)
    ended = run["updatedAt"] if run["state"] in FINAL else None
    took = f", {_seconds(ended - run['createdAt'])}" if ended else ""
    state = f"{run['state']}: {run['reason']}" if run["reason"] else run["state"]
    return [
        f"Run {run['id']} of agent {run['agent']} for {run['user']} ({run['source']})",
        f"{state}{took}, began {datetime.fromtimestamp(run['createdAt']).astimezone().isoformat(timespec='seconds')}",
        f"{summary.get('steps', 0)} steps, {summary.get('toolCalls', 0)} tool calls, {tokens} tokens; "
        f"session {run['session']}, task {run['task']}",
        "",
    ]


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
    usage: Json = result.data.get("usage") or {}
    tokens = f", {usage.get('prompt_tokens', 0)}+{usage.get('completion_tokens', 0)} tokens" if usage else ""
    text = str(result.data["message"].get("content") or "")
    said = f": {clean.cut(text)}" if text else ""
    return [f"{step.number}. model  {_took(step, 'model.intent', result)}{tokens}{said}"]


def _tool(step: _Step, clean: _Clean) -> list[str]:
    intent, result = step.last("tool.intent"), step.last("tool.result")
    if intent is None:
        return [f"{step.number}. tool  …"]
    data = intent.data
    attempts = sum(event.kind == "tool.intent" for event in step.events)
    again = f", {attempts} attempts" if attempts > 1 else ""
    server = f" of {data['server']}" if data.get("server") else ""
    head = f"{step.number}. {data['name']}{server}  {_took(step, 'tool.intent', result)}{again}"
    lines = [head, f"      {clean.value(data['arguments'])}"]
    for event in step.events:
        if event.kind == "waiting":
            lines.append(f"      waits: {event.data['reason']}")
        elif event.kind == "answer":
            said = {k: v for k, v in event.data.items() if k not in ("by", "message")}
            lines.append(f"      answered by {event.data.get('by', '?')}: {clean.value(said)}")
    if result is not None:
        mark = "failed" if result.data.get("failed") else "→"
        lines.append(f"      {mark} {clean.text(str(result.data['message']['content']))}")
    return lines


def _end(run: Json, events: Sequence[Event], clean: _Clean) -> list[str]:
    last = events[-1] if events else None
    if run["state"] == "waiting":
        asked = next((event for event in reversed(events) if event.kind == "waiting"), None)
        step = asked.step if asked is not None else 0
        return ["", f"waits for an answer to step {step}; see: qd run resume --help"]
    if last is None or last.kind != "final":
        return ["", f"goes on at {run['holder'] or 'no replica yet'}"]
    if last.data["state"] == "completed":
        return ["", f"answer: {clean.cut(last.data['text'])}"]
    return ["", f"{last.data['state']}: {clean.cut(last.data['text'] or last.data['reason'])}"]


def _took(step: _Step, kind: str, result: Event | None) -> str:
    first = next((event for event in step.events if event.kind == kind), None)
    if first is None or result is None:
        return "(under way)"
    return _seconds(result.at - first.at)


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
