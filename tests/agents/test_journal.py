"""What follows from a journal, as far as it is written: pure, so every history can be tried."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.agents.journal.fold import UNKNOWN, Ask, Do, Fail, Settle, Stay, Step, Story, Use, decide, uncertain
from quarterdeck.agents.journal.limits import Budget, Loops, Used, check
from quarterdeck.agents.journal.pause import BudgetExceeded, RunFailed
from quarterdeck.snapshot.runs import Event

MESSAGE = {"message": {"role": "tool", "content": "ok"}, "name": "note", "hash": "h", "failed": False}


class Host:
    """A model of the world: one tool call, carried out by hosts that may die after every write."""

    def __init__(self, *, guarded: bool) -> None:
        self.guarded = guarded
        self.events: list[Event] = []
        self.fence = 1
        self.executed = 0
        self.allowed = 1
        """How often the call may have been made, by what was decided."""

    def write(self, kind: str, **data: Any) -> None:
        self.events.append(Event(len(self.events) + 1, kind, 1, 0.0, self.fence, data))

    @property
    def step(self) -> Step:
        return Story(self.events).step(1)

    def live(self, lives: int, *, repeatable: bool, dies: bool, answer: str) -> bool:
        """One host's life of so many actions; whether the step is done."""
        for _ in range(lives):
            decision = decide(self.step, repeatable=repeatable)
            if isinstance(decision, Use):
                return True
            if isinstance(decision, Stay):
                self.write("answer", action=answer, by="u")
                return False
            if isinstance(decision, Fail):
                return True
            if isinstance(decision, Ask):
                self.write("waiting", reason=UNKNOWN)
                continue
            if isinstance(decision, Settle):
                self.write("tool.result", **MESSAGE)
                continue
            assert isinstance(decision, Do)
            if self.executed and (repeatable or answer == "repeat"):
                self.allowed += 1
            self.write("tool.intent", id="c", name="note", arguments={}, guarded=self.guarded)
            if dies:
                return False  # killed before the call was made
            if self.guarded:
                self.write("tool.started")
            self.executed += 1
            if lives % 2:
                return False  # killed before the result was written
            self.write("tool.result", **MESSAGE)
        return False


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8),
    st.booleans(), st.booleans(), st.sampled_from(["repeat", "skip"]),
)  # fmt: skip
def test_nothing_is_done_twice_that_nobody_allowed(
    lives: list[tuple[int, bool]], guarded: bool, repeatable: bool, answer: str
) -> None:
    host = Host(guarded=guarded)
    for actions, dies in lives:
        if host.live(actions, repeatable=repeatable, dies=dies, answer=answer):
            break
        host.fence += 1
    assert host.executed <= host.allowed
    if not repeatable and answer == "skip":
        assert host.executed <= 1
    results = [event for event in host.events if event.kind == "tool.result"]
    assert len(results) <= 1


KINDS = st.sampled_from(["tool.intent", "tool.started", "tool.result", "waiting", "answer"])


@given(st.lists(st.tuples(KINDS, st.integers(1, 3), st.booleans()), max_size=12))
def test_every_history_has_one_answer_and_a_result_is_never_forgotten(history: list[tuple[str, int, bool]]) -> None:
    events = [
        Event(i + 1, kind, 1, 0.0, fence, MESSAGE | {"guarded": guarded, "reason": UNKNOWN, "action": "skip"})
        for i, (kind, fence, guarded) in enumerate(history)
    ]
    step = Story(events).step(1)
    decision = decide(step, repeatable=False)
    if history and history[-1][0] == "tool.result":
        assert decision == Use(events[-1].data)
    if history and history[-1][0] == "tool.started":
        assert decision == Ask() and uncertain(step)
    if not history:
        assert decision == Do()
    assert decide(step, repeatable=False) == decision


def intent(fence: int = 1, *, guarded: bool = True) -> Event:
    return Event(1, "tool.intent", 1, 0.0, fence, {"guarded": guarded})


STARTED = Event(2, "tool.started", 1, 0.0, 1, {})


@pytest.mark.parametrize(
    ("events", "repeatable", "policy", "expected"),
    [
        ([], False, "Ask", Do()),
        ([intent()], False, "Ask", Do()),
        ([intent(guarded=False)], False, "Ask", Ask()),
        ([intent(), STARTED], False, "Ask", Ask()),
        ([intent(), STARTED], True, "Ask", Do()),
        ([intent(), STARTED], False, "Repeat", Do()),
        ([intent(), Event(2, "waiting", 1, 0.0, 1, {"reason": "approval"})], False, "Ask", Stay()),
    ],
)
def test_what_is_done_about_a_step(events: list[Event], repeatable: bool, policy: Any, expected: object) -> None:
    assert decide(Story(events).step(1), repeatable=repeatable, on_unknown=policy) == expected


def test_policies_and_answers_about_calls_of_unknown_outcome() -> None:
    story = Story([intent(), STARTED])
    assert isinstance(decide(story.step(1), repeatable=False, on_unknown="Skip"), Settle)
    assert isinstance(decide(story.step(1), repeatable=False, on_unknown="Fail"), Fail)
    story.add(Event(3, "waiting", 1, 0.0, 2, {"reason": UNKNOWN}))
    for action, kind in (("repeat", Do), ("skip", Settle), ("fail", Fail), ("nonsense", Ask)):
        step = Story([intent(), STARTED, Event(3, "waiting", 1, 0.0, 2, {"reason": UNKNOWN})])
        step.add(Event(4, "answer", 1, 0.0, 2, {"action": action}))
        assert isinstance(decide(step.step(1), repeatable=False), kind)


def test_an_approval_is_shown_again_until_the_call_has_started() -> None:
    answer = {"approval": "ns/x"}
    story = Story(
        [intent(), Event(2, "waiting", 1, 0.0, 1, {"reason": "approval"}), Event(3, "answer", 1, 0.0, 1, answer)]
    )
    assert decide(story.step(1), repeatable=False) == Do(answer)
    story.add(Event(4, "tool.intent", 1, 0.0, 2, {"guarded": True}))
    assert decide(story.step(1), repeatable=False) == Do(answer), "killed before the gateway let it pass"
    story.add(Event(5, "tool.started", 1, 0.0, 2, {}))
    assert decide(story.step(1), repeatable=False) == Ask(), "it is used up"


@pytest.mark.parametrize(
    ("budget", "used", "words"),
    [
        ({"steps": 3}, Used(3, 1, {}, 1.0), "steps is limited to 3"),
        ({"tool_calls": 1}, Used(2, 1, {}, 1.0), "toolCalls is limited to 1"),
        ({"tokens": 10}, Used(2, 1, {"prompt_tokens": 8, "completion_tokens": 2}, 1.0), "tokens is limited to 10"),
        (
            {"tokens": 100},  # of two models, one of which says a total
            Used(2, 1, {"total_tokens": 10, "prompt_tokens": 90, "completion_tokens": 20}, 1.0),
            "tokens is limited to 100",
        ),
        ({"cost": 0.001, "input_price": 100.0}, Used(2, 1, {"prompt_tokens": 10}, 1.0), "cost is limited to 0.001"),
        ({"wall_time": 5}, Used(2, 1, {}, 5.0), "wallTime is limited to 5"),
    ],
)
def test_budgets_end_a_run_and_say_what_was_used(budget: dict[str, Any], used: Used, words: str) -> None:
    limits = Budget.model_validate(budget)
    with pytest.raises(BudgetExceeded, match=words) as caught:
        check(limits, used, steps=1, tool_calls=1)
    assert f"Used: {used.steps} steps, {used.tool_calls} tool calls" in str(caught.value)
    check(Budget.model_validate({}), used, steps=1, tool_calls=1)
    check(limits, Used(0, 0, {}, 0.0), steps=1, tool_calls=1)


def test_the_third_same_call_with_the_same_result_is_a_loop() -> None:
    loops = Loops()
    for n in range(5):
        loops.saw("status", "h", f"result {n}")
    loops.saw("status", "h", "pending")
    loops.saw("status", "other", "pending")
    loops.saw("status", "h", "pending")
    with pytest.raises(RunFailed, match="loop_detected: tool status"):
        loops.saw("status", "h", "pending")
