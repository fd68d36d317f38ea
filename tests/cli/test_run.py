"""``qd run show``: a run as a tree of steps, without what may not be shown."""

from __future__ import annotations

from typing import Any

from quarterdeck.cli.run import _clean
from quarterdeck.cli.run_tree import tree
from quarterdeck.gateway.audit.arguments import Redaction
from quarterdeck.snapshot.runs import Event

RUN: dict[str, Any] = {
    "id": "r1", "agent": "kagent/a", "user": "alice", "session": "s1", "task": "t1", "source": "chat",
    "state": "completed", "reason": "", "holder": "", "createdAt": 100.0, "updatedAt": 103.5,
    "summary": {"steps": 3, "toolCalls": 1, "usage": {"prompt_tokens": 9, "completion_tokens": 6}},
}  # fmt: skip


def events() -> list[Event]:
    arguments, usage = {"n": 1, "password": "hunter2"}, {"prompt_tokens": 3, "completion_tokens": 2}
    return [
        Event(1, "created", 0, 100.0, 1, {"message": {"parts": [{"text": "add a note"}]}}),
        Event(2, "model.intent", 1, 100.1, 1, {}),
        Event(3, "model.result", 1, 100.35, 1, {"message": {"content": None}, "usage": usage}),
        Event(4, "tool.intent", 2, 100.4, 1, {"name": "note", "server": "kagent/tools", "arguments": arguments}),
        Event(5, "tool.started", 2, 100.5, 1, {}),
        Event(6, "waiting", 2, 101.0, 2, {"reason": "unknown_outcome"}),
        Event(7, "answer", 2, 102.0, 2, {"by": "root", "action": "repeat"}),
        Event(8, "tool.intent", 2, 102.4, 3, {"name": "note", "server": "kagent/tools", "arguments": arguments}),
        Event(9, "tool.result", 2, 102.9, 3, {"failed": False, "message": {"content": '{"id": 7, "api_key": "sk-1"}'}}),
        Event(10, "model.result", 3, 103.0, 3, {"message": {"content": "done"}, "usage": {}}),
        Event(11, "final", 0, 103.5, 3, {"state": "completed", "reason": "", "text": "done", "usage": {}}),
    ]  # fmt: skip


def test_the_tree_shows_steps_with_timings_tokens_arguments_and_results() -> None:
    shown = tree(RUN, events(), Redaction())
    assert "Run r1 of agent kagent/a for alice (chat)" in shown and "completed, 3.5 s" in shown
    assert "3 steps, 1 tool calls, 15 tokens" in shown
    lines = shown.splitlines()
    at = lines.index("user: add a note")
    assert lines[at + 1] == "1. model  250 ms, 3+2 tokens"
    assert lines[at + 2] == "   2. note of kagent/tools  2.5 s, 2 attempts"
    assert lines[at + 3].strip() == '{"n":1,"password":"<redacted>"}'
    assert lines[at + 4].strip() == "waits: unknown_outcome"
    assert lines[at + 5].strip() == 'answered by root: {"action":"repeat"}'
    assert lines[at + 6].strip() == '→ {"id":7,"api_key":"<redacted>"}'
    assert shown.endswith("answer: done\n")


def test_rules_hide_more_and_raw_data_hides_as_much() -> None:
    shown = tree(RUN, events(), Redaction(["/id"]))
    assert '"id":"<redacted>"' in shown
    data = _clean({"events": [{"data": e.data} for e in events()]}, Redaction())
    assert "hunter2" not in str(data) and "sk-1" not in str(data) and "note" in str(data)


def test_a_run_that_waits_or_goes_on_says_so() -> None:
    waiting = tree(RUN | {"state": "waiting", "reason": "unknown_outcome"}, events()[:6], Redaction())
    assert "waits for an answer to step 2" in waiting
    going = tree(RUN | {"state": "running", "holder": "pod-1/x"}, events()[:5], Redaction())
    assert "(under way)" in going and "goes on at pod-1/x" in going
