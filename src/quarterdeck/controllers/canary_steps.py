"""The steps of a canary as a state machine: what is known and what is seen in, the next state and its story out.

Pure. The state is ``status.rollout``, so whoever takes over goes on where it was; revisions are names of
ControllerRevisions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.kube.clock import micro_timestamp, parse_timestamp
from quarterdeck.resources.rollout import Analysis, Rollout, RolloutStep
from quarterdeck.snapshot.conversation import track_tag
from quarterdeck.translate.objects import duration

STABLE, PROGRESSING, PAUSED, PROMOTING, ABORTED = "Stable", "Progressing", "Paused", "Promoting", "Aborted"
RUNNING = (PROGRESSING, PAUSED)
DRAIN = 2.0
"""Seconds between taking a canary out of the routes and ending its Pods: gateways switch in the meantime."""


@dataclass(frozen=True, slots=True)
class State:
    """``status.rollout``; times are seconds since the epoch."""

    phase: str
    stable: str
    canary: str = ""
    step: int = 0
    weight: int = 0
    started_at: float | None = None
    step_started_at: float | None = None
    waiting_since: float | None = None
    ended_at: float | None = None
    """When the last canary was over."""
    requests: int = 0
    errors: int = 0
    message: str = ""

    @property
    def running(self) -> bool:
        return self.phase in RUNNING

    @property
    def attempt(self) -> str:
        """Names this trial of this revision; the next trial of the same one has another name."""
        return f"{self.canary}@{_text(self.started_at)}" if self.canary else ""

    @property
    def tag(self) -> int:
        """Mark of the conversations that begin on this canary; 0 without one."""
        return track_tag(self.canary, _text(self.started_at) or "") if self.canary else 0

    @property
    def epoch(self) -> str:
        """What requests of the present step are counted under."""
        return f"{self.tag}.{self.step}" if self.canary and self.step_started_at is not None else ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to see."""

    current: str
    """Revision of the spec that is asked for."""
    last: str = ""
    """Revision that was accepted last before this rollout began to be watched."""
    available: bool = False
    """Whether the canary has Pods that are ready, of this very spec."""
    trouble: str = ""
    """What keeps its Pods from starting."""
    promoted: bool = False
    """Whether all of the stable track's Pods run the spec of the stable revision."""
    requests: int = 0
    errors: int = 0
    """Of the canary in the present step."""
    scaled_to_zero: bool = False
    """No Pods are wanted: there is nothing to try."""
    paused: bool = False
    promote: str = ""
    abort: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """An Event."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Next:
    state: State
    story: tuple[Told, ...] = ()
    look_again: float | None = None
    """Seconds until time alone may change something."""


def advance(state: State | None, rollout: Rollout, seen: Seen, now: float) -> Next:
    """One step on, at most. Asking again with nothing new to see changes nothing."""
    now = round(now, 6)  # as exact as the status can say it
    if state is None:
        served = seen.last or seen.current
        return Next(State(STABLE, served, message=f"{served} is served to everybody"), look_again=0.0)
    if seen.current == state.stable:
        return _nothing_new(state, seen, now)
    if seen.scaled_to_zero:
        text = f"{seen.current} is served without a canary: no Pods are wanted"
        return _over(State(STABLE, seen.current, message=text), "CanarySkipped", now)
    if state.canary != seen.current or state.phase not in (*RUNNING, ABORTED):
        return _begin(state, rollout, seen, now)
    if state.phase == ABORTED:
        return Next(state)
    counted = replace(state, requests=seen.requests, errors=seen.errors)
    return _running(_within(counted, steps(rollout)), rollout, seen, now)


def steps(rollout: Rollout) -> list[RolloutStep]:
    """The steps; matches alone are an A/B test, which ends when somebody promotes or aborts it."""
    return list(rollout.steps or ()) or [RolloutStep.model_validate({"weight": 0})]


def replicas(state: State, wanted: int) -> int:
    """Pods of the canary, from those of the stable track: its share, and at least one."""
    return max(1, math.ceil(wanted * state.weight / 100))


def parse(status: dict[str, Any] | None) -> State | None:
    """The state out of ``status.rollout``."""
    if not status or not status.get("stableRevision"):
        return None
    return State(
        str(status.get("phase") or STABLE),
        str(status["stableRevision"]),
        str(status.get("canaryRevision") or ""),
        int(status.get("step") or 0),
        int(status.get("weight") or 0),
        _seconds(status.get("startedAt")),
        _seconds(status.get("stepStartedAt")),
        _seconds(status.get("waitingSince")),
        _seconds(status.get("endedAt")),
        int(status.get("requests") or 0),
        int(status.get("errors") or 0),
        str(status.get("message") or ""),
    )


def dump(state: State, rollout: Rollout) -> dict[str, Any]:
    """``status.rollout``."""
    out: dict[str, Any] = {"phase": state.phase, "stableRevision": state.stable, "message": state.message}
    out["endedAt"] = _text(state.ended_at)
    if state.canary:
        out |= {
            "canaryRevision": state.canary,
            "step": state.step,
            "steps": len(steps(rollout)),
            "weight": state.weight,
            "startedAt": _text(state.started_at),
            "stepStartedAt": _text(state.step_started_at),
            "waitingSince": _text(state.waiting_since),
            "requests": state.requests,
            "errors": state.errors,
        }
    return {key: value for key, value in out.items() if value is not None}


def draining(state: State, now: float) -> float:
    """Seconds for which the Pods of a canary that is over go on: gateways may not know yet. 0 when it is time."""
    return max(0.0, state.ended_at + DRAIN - now) if state.ended_at is not None else 0.0


def _over(state: State, reason: str, now: float, kind: str = "Normal") -> Next:
    """A canary has ended, one way or the other."""
    return Next(replace(state, ended_at=now), (Told(kind, reason, state.message),), DRAIN)


def _nothing_new(state: State, seen: Seen, now: float) -> Next:
    """The spec asked for is the one that is served, or is becoming so."""
    if state.phase == PROMOTING:
        if not seen.promoted:
            return Next(state)
        text = f"{state.canary} passed all steps and is served to everybody"
        return _over(State(STABLE, state.stable, message=text), "CanaryPromoted", now)
    if state.phase == STABLE:
        return Next(state)
    text = f"the spec is that of {state.stable} again, which is served; {state.canary} is given up"
    return _over(State(STABLE, state.stable, message=text), "CanaryWithdrawn", now)


def _begin(state: State, rollout: Rollout, seen: Seen, now: float) -> Next:
    text = f"{seen.current} runs as canary beside {state.stable}: waiting for its first Pod"
    told = f"{seen.current} runs as canary beside {state.stable}"
    if state.running:
        told += f"; it takes the place of {state.canary}, which was on trial"
    began = State(PROGRESSING, state.stable, seen.current, started_at=now, waiting_since=now, message=text)
    return Next(began, (Told("Normal", "CanaryStarted", told),), _deadline(rollout))


def _within(state: State, all_steps: list[RolloutStep]) -> State:
    """Steps may have been taken out of the spec meanwhile."""
    return replace(state, step=min(state.step, len(all_steps) - 1))


def _running(state: State, rollout: Rollout, seen: Seen, now: float) -> Next:
    if seen.abort == state.attempt:
        return _abort(state, "CanaryAborted", "given up by `qd rollout abort`", now)
    why = _too_many_errors(state, rollout.analysis)
    if why:
        return _abort(state, "ErrorRateExceeded", why, now)
    if seen.promote == f"{state.attempt}/full":
        return _promote(state, "promoted by `qd rollout promote --full`")
    if not seen.available:
        return _wait_for_pods(state, rollout, seen, now)
    if state.step_started_at is None:
        return _enter(replace(state, waiting_since=None), state.step, rollout, now)
    if _passed(state, seen.promote):
        return _leave(state, rollout, now, "`qd rollout promote`")
    return _stay(state, rollout, seen, now)


def _stay(state: State, rollout: Rollout, seen: Seen, now: float) -> Next:
    """In the middle of a step."""
    step = steps(rollout)[state.step]
    title = f"step {state.step + 1} of {len(steps(rollout))}: {state.canary} gets {state.weight} %"
    if seen.paused:
        return Next(replace(state, phase=PAUSED, message=f"{title}; paused by `qd rollout pause`"))
    if not step.pause:
        return Next(replace(state, phase=PAUSED, message=f"{title}; waits for `qd rollout promote`"))
    started = state.step_started_at if state.step_started_at is not None else now
    left = started + duration(step.pause) - now
    if left > 0:
        return Next(replace(state, phase=PROGRESSING, message=f"{title} for {step.pause}"), (), left)
    analysis = rollout.analysis
    if analysis is not None and analysis.require_traffic and state.requests < analysis.min_requests:
        text = f"{title}; waits for {analysis.min_requests} requests"
        return Next(replace(state, phase=PROGRESSING, message=text))
    return _leave(state, rollout, now, f"{step.pause} passed")


def _leave(state: State, rollout: Rollout, now: float, why: str) -> Next:
    if state.step + 1 < len(steps(rollout)):
        return _enter(state, state.step + 1, rollout, now, why)
    return _promote(state, f"all steps are passed ({why})")


def _enter(state: State, number: int, rollout: Rollout, now: float, why: str = "its Pods are ready") -> Next:
    all_steps = steps(rollout)
    weight = max(all_steps[number].weight, state.weight)
    entered = replace(
        state,
        phase=PROGRESSING,
        step=number,
        weight=weight,
        step_started_at=now,
        waiting_since=None,
        requests=0,
        errors=0,
    )
    text = f"step {number + 1} of {len(all_steps)}: {state.canary} gets {weight} % ({why})"
    stays = _stay(entered, rollout, Seen(state.canary), now)
    return Next(stays.state if stays.state.step == number else entered, (Told("Normal", "CanaryStep", text),), 0.0)


def _promote(state: State, why: str) -> Next:
    text = f"{state.canary} takes the place of {state.stable}: {why}"
    promoted = replace(state, phase=PROMOTING, stable=state.canary, waiting_since=None, message=text)
    return Next(promoted, (Told("Normal", "CanaryPromoting", text),))


def _abort(state: State, reason: str, why: str, now: float) -> Next:
    text = f"{state.canary} is given up, {state.stable} is served: {why}"
    aborted = replace(state, phase=ABORTED, weight=0, waiting_since=None, message=text)
    return _over(aborted, reason, now, "Warning")


def _wait_for_pods(state: State, rollout: Rollout, seen: Seen, now: float) -> Next:
    """No Pod is ready: the stable track has all the traffic until the deadline."""
    since = state.waiting_since if state.waiting_since is not None else now
    left = since + _deadline(rollout) - now
    trouble = f": {seen.trouble}" if seen.trouble else ""
    if left <= 0:
        return _abort(state, "ProgressDeadlineExceeded", f"no Pod was ready for {_deadline(rollout):g} s{trouble}", now)
    text = f"{state.canary} has no ready Pod{trouble}"
    # the step begins anew when they are back
    waiting = replace(state, phase=PROGRESSING, waiting_since=since, step_started_at=None, message=text)
    return Next(waiting, (), left)


def _too_many_errors(state: State, analysis: Analysis | None) -> str:
    if analysis is None or state.requests < analysis.min_requests:
        return ""
    rate = state.errors / state.requests
    if rate <= analysis.max_error_rate:
        return ""
    return (
        f"{state.errors} of {state.requests} requests failed ({rate:.1%}), and analysis.maxErrorRate is "
        f"{analysis.max_error_rate:.1%}"
    )


def _passed(state: State, promote: str) -> bool:
    attempt, _, step = promote.rpartition("/")
    return attempt == state.attempt and step.isdigit() and int(step) >= state.step


def _deadline(rollout: Rollout) -> float:
    return duration((rollout.analysis or Analysis.model_validate({})).progress_deadline)


def _seconds(text: Any) -> float | None:
    return parse_timestamp(str(text)) if text else None


def _text(seconds: float | None) -> str | None:
    return micro_timestamp(seconds) if seconds is not None else None
