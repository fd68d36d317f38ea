"""``qd run show``: a run as a tree of steps, without what may not be shown."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.agents.observe.redact import Redactor
from quarterdeck.cli.run_tree import Transcript, as_data, asked_of, tree
from quarterdeck.snapshot.runs import Event

RUN: dict[str, Any] = {
    "id": "r1", "agent": "kagent/a", "user": "alice", "session": "s1", "task": "t1", "source": "chat",
    "state": "completed", "reason": "", "holder": "", "createdAt": 100.0, "updatedAt": 103.5,
    "summary": {
        "steps": 3, "toolCalls": 1, "usage": {"prompt_tokens": 9, "completion_tokens": 6, "cached_tokens": 4},
        "models": {"gpt": {"calls": 2, "cost": 0.0125}},
    },
}  # fmt: skip


def events() -> list[Event]:
    arguments, usage = {"n": 1, "password": "hunter2"}, {"prompt_tokens": 3000, "completion_tokens": 2}
    facts = {"model": "gpt", "took": 0.24, "first": 0.1, "cost": 0.01}
    return [
        Event(1, "created", 0, 100.0, 1, {"message": {"parts": [{"text": "add a note"}]}}),
        Event(2, "model.intent", 1, 100.1, 1, {}),
        Event(3, "model.result", 1, 100.35, 1, {"message": {"content": None}, "usage": usage, **facts}),
        Event(4, "tool.intent", 2, 100.4, 1, {"name": "note", "server": "kagent/tools", "arguments": arguments}),
        Event(5, "tool.started", 2, 100.5, 1, {}),
        Event(6, "waiting", 2, 101.0, 2, {"reason": "unknown_outcome"}),
        Event(7, "answer", 2, 102.0, 2, {"by": "root", "action": "repeat"}),
        Event(8, "tool.intent", 2, 102.4, 3, {"name": "note", "server": "kagent/tools", "arguments": arguments}),
        Event(9, "tool.result", 2, 102.9, 3, {"failed": False, "message": {"content": '{"id": 7, "api_key": "sk-1"}'}}),
        Event(10, "model.result", 3, 103.0, 3, {"message": {"content": "done"}, "usage": {}}),
        Event(11, "final", 0, 103.5, 3, {"state": "completed", "reason": "", "text": "done", "usage": {}}),
    ]  # fmt: skip


def test_the_tree_shows_steps_with_timings_tokens_cost_arguments_and_results() -> None:
    shown = tree(Transcript(RUN, events()), Redactor())
    assert "Run r1 of agent kagent/a for alice (chat)" in shown and "completed, 3.5 s" in shown
    assert "3 steps, 1 tool call, 9+6 tokens, 4 cached, cost 0.0125; session s1" in shown
    lines = shown.splitlines()
    at = lines.index("user: add a note")
    assert lines[at + 1] == "├─ 1. model gpt  240 ms (first text after 100 ms), 3,000+2 tokens, cost 0.01"
    assert lines[at + 2] == "├─ 2. note of kagent/tools  2.5 s, 2 attempts"
    assert lines[at + 3] == '│    {"n":1,"password":"<redacted>"}'
    assert lines[at + 4] == "│    waits: unknown_outcome"
    assert lines[at + 5] == '│    answered by root: {"action":"repeat"}'
    assert lines[at + 6] == '│    → {"id":7,"api_key":"<redacted>"}'
    assert lines[at + 7 :] == ["├─ 3. model  (under way)", "│    → done", "└─ answer: done"]


def test_runs_of_other_agents_hang_below_the_steps_that_asked_them() -> None:
    asked = [
        *events()[:4],
        Event(5, "tool.result", 2, 102.9, 3, {"took": 0.5, "task": "t2", "failed": False, "message": {"content": "x"}}),
        Event(6, "waiting", 3, 103.0, 3, {"reason": "agent", "question": {"task": "t3"}}),
    ]
    assert asked_of(asked) == {2: "t2", 3: "t3"}
    child = Transcript(RUN | {"id": "r2", "agent": "kagent/b", "task": "t2"}, events())
    whole = Transcript(RUN, asked, {2: child, 3: "its run cannot be shown: no"})
    lines = tree(whole, Redactor()).splitlines()
    assert lines[3] == "with the runs below: 18+12 tokens, 8 cached, cost 0.025"
    at = lines.index(next(line for line in lines if "run r2 of agent kagent/b: completed, 3.5 s" in line))
    assert lines[at + 1] == "│    user: add a note"
    assert lines[at + 2].startswith("│    ├─ 1. model gpt")
    assert "│    │    → {" in "\n".join(lines) and "hunter2" not in "\n".join(lines)
    assert "│    (its run cannot be shown: no)" in lines
    shown = as_data(whole, Redactor())
    assert shown["children"]["2"]["run"]["id"] == "r2" and shown["children"]["3"] == {
        "problem": "its run cannot be shown: no"
    }
    assert "hunter2" not in str(shown) and "sk-1" not in str(shown)


def test_one_step_is_one_step() -> None:
    one = RUN | {"summary": RUN["summary"] | {"steps": 1, "toolCalls": 0}}
    assert "\n1 step, 0 tool calls, " in tree(Transcript(one, events()), Redactor())


def test_what_was_summarized_on_the_way_is_told() -> None:
    data = {"messages": 7, "summary": "A trip to Kiel.", "usage": {"prompt_tokens": 50, "completion_tokens": 5}}
    before = [events()[0], Event(2, "compaction", 0, 100.05, 1, data)]
    later = [msgspec.structs.replace(event, seq=event.seq + 1) for event in events()[1:]]
    lines = tree(Transcript(RUN, [*before, *later]), Redactor()).splitlines()
    at = lines.index("user: add a note")
    assert lines[at + 1 : at + 3] == ["├─ summarized 7 messages, 50+5 tokens", "│    → A trip to Kiel."]
    assert lines[at + 3].startswith("├─ 1. model gpt")


def test_rules_hide_more_and_raw_data_hides_as_much() -> None:
    shown = tree(Transcript(RUN, events()), Redactor(["/id"]))
    assert '"id":"<redacted>"' in shown
    data = as_data(Transcript(RUN, events()), Redactor(["n"]))
    assert "hunter2" not in str(data) and "sk-1" not in str(data) and "'name': 'note'" in str(data)
    assert "'n': '<redacted>'" in str(data)


def test_a_run_that_waits_or_goes_on_says_so() -> None:
    waiting = tree(Transcript(RUN | {"state": "waiting", "reason": "unknown_outcome"}, events()[:6]), Redactor())
    assert "waits for an answer to step 2" in waiting
    going = tree(Transcript(RUN | {"state": "running", "holder": "pod-1/x"}, events()[:5]), Redactor())
    assert "(under way)" in going and "goes on at pod-1/x" in going
