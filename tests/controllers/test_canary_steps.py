"""The steps of a canary, as tables and under Hypothesis: the clock is a number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.controllers import canary_steps as steps
from quarterdeck.controllers.canary_steps import Next, Seen, State, advance
from quarterdeck.resources.base import parse
from quarterdeck.resources.rollout import Rollout

OLD, NEW, NEWER = "a-old", "a-new", "a-newer"
START = 1_790_000_000.25
UP = Seen(NEW, available=True)


def rollout(*weights: int, pause: str | None = "10s", **analysis: Any) -> Rollout:
    each = {"pause": pause} if pause is not None else {}
    spec: dict[str, Any] = {"strategy": "Canary", "steps": [{"weight": w} | each for w in weights]}
    return parse(Rollout, spec | ({"analysis": analysis} if analysis else {}), "rollout")


class Trial:
    """Drives the machine as the controller does: the state goes through its status each time."""

    def __init__(self, spec: Rollout, state: State | None = State(steps.STABLE, OLD)) -> None:
        self.spec, self.state, self.now = spec, state, START
        self.story: list[str] = []
        self.last: Next | None = None

    def see(self, seen: Seen, after: float = 0.0) -> State:
        self.now += after
        for _ in range(10):
            found = self.last = advance(self.state, self.spec, seen, self.now)
            self.story += [told.reason for told in found.story]
            same = found.state == self.state
            self.state = steps.parse(steps.dump(found.state, self.spec))
            assert self.state == found.state, "what is written is what is read"
            if same and not found.story:
                return found.state
        raise AssertionError(f"does not settle: {self.story}")


def test_the_first_spec_is_served_at_once() -> None:
    trial = Trial(rollout(10), None)
    assert (trial.see(Seen(NEW)).phase, trial.story) == (steps.STABLE, [])


def test_a_rollout_that_comes_together_with_a_new_spec_begins_from_what_was_served() -> None:
    trial = Trial(rollout(10), None)
    assert trial.see(Seen(NEW, last=OLD)).phase == steps.PROGRESSING
    assert trial.state is not None and (trial.state.stable, trial.state.canary) == (OLD, NEW)


def test_from_the_first_pod_to_everybody() -> None:
    trial = Trial(rollout(10, 50))
    waiting = trial.see(Seen(NEW))
    assert (waiting.weight, waiting.epoch) == (0, ""), "no Pod, no traffic"
    assert trial.see(UP, 3).weight == 10
    assert trial.see(UP, 9).weight == 10
    assert trial.last is not None and trial.last.look_again == pytest.approx(1.0)
    assert trial.see(UP, 1.1).weight == 50
    promoting = trial.see(UP, 10)
    assert (promoting.phase, promoting.stable, promoting.weight) == (steps.PROMOTING, NEW, 50)
    assert trial.see(replace(UP, promoted=True), 5).phase == steps.STABLE
    assert trial.story == ["CanaryStarted", "CanaryStep", "CanaryStep", "CanaryPromoting", "CanaryPromoted"]


def test_a_step_without_a_pause_waits_for_a_person() -> None:
    trial = Trial(rollout(10, 100, pause=None))
    assert trial.see(UP).phase == steps.PAUSED
    assert trial.see(UP, 1e6).phase == steps.PAUSED
    assert trial.last is not None and trial.last.look_again is None
    promoted = replace(UP, promote=f"{trial.see(UP).attempt}/0")
    assert trial.see(promoted).step == 1, "one promotion passes one step"
    assert trial.see(promoted, 1e6).step == 1, "however often it is read"
    assert trial.see(replace(UP, promote=f"{trial.see(UP).attempt}/1")).phase == steps.PROMOTING


def test_a_full_promotion_passes_all_steps_and_waits_for_no_pods() -> None:
    trial = Trial(rollout(10, 50, 100))
    attempt = trial.see(Seen(NEW)).attempt
    assert trial.see(Seen(NEW, promote=f"{attempt}/full")).phase == steps.PROMOTING


def test_abort_by_hand_holds_until_the_spec_changes() -> None:
    trial = Trial(rollout(10))
    stopped = replace(UP, abort=trial.see(UP).attempt)
    assert (trial.see(stopped).phase, trial.see(stopped).weight, trial.see(stopped).stable) == (steps.ABORTED, 0, OLD)
    assert trial.see(UP, 1e6).phase == steps.ABORTED
    assert trial.see(replace(UP, current=NEWER)).canary == NEWER
    again = Trial(rollout(10), trial.state)
    assert again.see(Seen(OLD)).phase == steps.STABLE
    assert again.see(replace(stopped, available=True), 5).phase == steps.PROGRESSING, "an old abort"


@pytest.mark.parametrize(
    ("requests", "errors", "phase"),
    [(19, 19, steps.PROGRESSING), (20, 1, steps.PROGRESSING), (20, 2, steps.ABORTED), (400, 21, steps.ABORTED)],
)
def test_errors_end_a_canary_once_there_are_enough_requests(requests: int, errors: int, phase: str) -> None:
    trial = Trial(rollout(10, maxErrorRate=0.05, minRequests=20))
    trial.see(UP)
    found = trial.see(replace(UP, requests=requests, errors=errors), 1)
    assert found.phase == phase
    if phase == steps.ABORTED:
        assert trial.story[-1] == "ErrorRateExceeded" and f"{errors} of {requests}" in found.message


def test_without_analysis_errors_are_only_counted() -> None:
    trial = Trial(rollout(10))
    trial.see(UP)
    assert trial.see(replace(UP, requests=100, errors=100), 1).errors == 100
    assert trial.see(UP, 1).phase == steps.PROGRESSING


def test_a_step_may_want_its_requests_before_it_is_passed() -> None:
    trial = Trial(rollout(10, 20, minRequests=5, requireTraffic=True))
    trial.see(UP)
    assert trial.see(replace(UP, requests=4), 100).step == 0
    assert trial.see(replace(UP, requests=5)).step == 1


def test_pods_that_never_start_end_it_by_the_deadline_with_the_reason() -> None:
    trial = Trial(rollout(10, progressDeadline="1m"))
    broken = Seen(NEW, trouble="container kagent: image x:1 cannot be run")
    trial.see(broken)
    assert trial.see(broken, 59).phase == steps.PROGRESSING
    ended = trial.see(broken, 2)
    assert (ended.phase, trial.story[-1]) == (steps.ABORTED, "ProgressDeadlineExceeded")
    assert "image x:1 cannot be run" in ended.message


def test_pods_that_go_away_in_the_middle_let_the_step_begin_anew() -> None:
    trial = Trial(rollout(10, 50, progressDeadline="1m"))
    trial.see(UP)
    assert trial.see(Seen(NEW), 9).epoch == ""
    back = trial.see(UP, 30)
    assert (back.step, back.step_started_at) == (0, trial.now)
    assert trial.see(UP, 9).step == 0


def test_a_new_spec_begins_anew_with_another_tag() -> None:
    trial = Trial(rollout(10, 50))
    first = trial.see(UP)
    trial.see(UP, 11)
    second = trial.see(Seen(NEWER), 1)
    assert (second.canary, second.step, second.weight, second.stable) == (NEWER, 0, 0, OLD)
    assert second.tag != first.tag


def test_going_back_to_what_is_served_ends_it() -> None:
    trial = Trial(rollout(10))
    trial.see(UP)
    assert trial.see(Seen(OLD)).phase == steps.STABLE
    assert trial.story[-1] == "CanaryWithdrawn"


def test_pausing_stops_the_steps_and_not_the_analysis() -> None:
    trial = Trial(rollout(10, 50, maxErrorRate=0.1, minRequests=1))
    trial.see(UP)
    held = replace(UP, paused=True)
    assert (trial.see(held, 1000).step, trial.see(held).phase) == (0, steps.PAUSED)
    assert trial.see(replace(held, requests=1, errors=1)).phase == steps.ABORTED


def test_an_agent_without_pods_gets_its_spec_at_once() -> None:
    trial = Trial(rollout(10))
    assert trial.see(Seen(NEW, scaled_to_zero=True)).stable == NEW


def test_matches_alone_are_an_a_b_test_until_somebody_decides() -> None:
    spec = parse(Rollout, {"strategy": "Canary", "match": [{"headers": [{"name": "a", "exact": "b"}]}]}, "rollout")
    trial = Trial(spec)
    assert (trial.see(UP, 1e6).weight, trial.see(UP).phase) == (0, steps.PAUSED)
    assert trial.see(replace(UP, promote=f"{trial.see(UP).attempt}/0")).phase == steps.PROMOTING


@given(st.integers(0, 100), st.integers(1, 50))
def test_the_canary_has_pods_for_its_share(weight: int, wanted: int) -> None:
    number = steps.replicas(State(steps.PROGRESSING, OLD, NEW, weight=weight), wanted)
    assert max(1, wanted * weight / 100) <= number <= max(1, wanted * weight / 100) + 1


looks = st.builds(
    Seen,
    current=st.sampled_from([OLD, NEW, NEW, NEW, NEWER]),
    available=st.booleans() | st.just(True),
    promoted=st.booleans(),
    requests=st.integers(0, 50),
    errors=st.integers(0, 10),
    paused=st.booleans(),
)


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=5),
    st.lists(st.tuples(looks, st.floats(0, 700), st.sampled_from(["", "promote", "full", "abort"])), max_size=30),
    st.booleans(),
)
def test_whatever_happens(weights: list[int], events: list[tuple[Seen, float, str]], analysed: bool) -> None:
    analysis: dict[str, Any] = {"maxErrorRate": 0.3, "minRequests": 10} if analysed else {}
    trial = Trial(rollout(*sorted(weights), **analysis))
    for seen, after, command in events:
        before = trial.state
        assert before is not None
        commands = {
            "promote": {"promote": f"{before.attempt}/{before.step}"},
            "full": {"promote": f"{before.attempt}/full"},
            "abort": {"abort": before.attempt},
        }
        state = trial.see(replace(seen, **commands.get(command, {})), after)
        if before.running and state.running and before.attempt == state.attempt:
            assert state.weight >= before.weight, "weights do not fall while a canary goes on"
            assert state.step >= before.step
        if state.phase == steps.ABORTED:
            assert state.weight == 0 and state.stable != state.canary
        if before.running and seen.current != before.canary:
            assert state.stable == before.stable, "only what was tried is promoted"
        if command == "abort" and before.running and seen.current == before.canary:
            assert (state.phase, state.stable) == (steps.ABORTED, before.stable)
        assert 0 <= state.weight <= 100
