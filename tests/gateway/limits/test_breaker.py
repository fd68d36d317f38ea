"""The circuit breaker against a model, over all orders in which calls begin and end; and its table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.gateway.limits.breaker import PROBING, Breakers, Health
from quarterdeck.gateway.limits.memory import BREAKERS, Memory, private
from quarterdeck.snapshot.policies import Breaker

RULE = Breaker(failures=3, open_for=30.0)
LEASE = 1000.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def rig(memory: Memory | None = None, **options: Any) -> tuple[Breakers, Clock]:
    clock = Clock()
    return Breakers(memory or private(), clock=clock, calendar=lambda: 1_000_000.0 + clock.now, **options), clock


def fail(breakers: Breakers, times: int, tool: str = "t", rule: Breaker = RULE) -> None:
    for _ in range(times):
        assert breakers.admit("s", tool, LEASE) == 0.0
        breakers.report("s", tool, "failed", rule)


@dataclass
class Model:
    """What the words say: failures in a row, an end of the pause, one probe at a time."""

    failures: int = 0
    until: float | None = None
    probing: bool = False
    probes: set[int] = field(default_factory=set[int])

    def start(self, now: float, call: int) -> str:
        if self.until is None:
            return "go"
        if now < self.until or self.probing:
            return "wait"
        self.probing = True
        self.probes.add(call)
        return "probe"

    def end(self, now: float, call: int, health: Health) -> None:
        probe = call in self.probes
        if probe:
            self.probing = False
        elif self.until is not None:
            return
        if health == "answered":
            self.failures, self.until = 0, None
        elif health == "failed":
            self.failures += 1
            if probe or self.failures >= RULE.failures:
                self.until = now + RULE.open_for


steps = st.lists(
    st.one_of(
        st.just(("start",)),
        st.tuples(st.just("tick"), st.sampled_from([0.25, 5.0, 15.0, 30.0])),
        st.tuples(st.just("end"), st.integers(0, 5), st.sampled_from(["answered", "failed", "failed", "unknown"])),
    ),
    max_size=80,
)


@given(steps)
def test_a_breaker_is_its_model(steps: list[Any]) -> None:
    breakers, clock = rig()
    model, under_way, number = Model(), list[int](), 0
    for step in steps:
        if step[0] == "tick":
            clock.now += step[1]
        elif step[0] == "start":
            number += 1
            wait = breakers.admit("s", "t", LEASE)
            verdict = "wait" if wait > 0 else "probe" if wait < 0 else "go"
            assert verdict == model.start(clock.now, number)
            if verdict != "wait":
                under_way.append(number)
        elif under_way:
            call = under_way.pop(step[1] % len(under_way))
            breakers.report("s", "t", step[2], RULE, probe=call in model.probes)
            model.end(clock.now, call, step[2])
        assert breakers.failures("s", "t") == model.failures
        assert bool(breakers.active) == bool(model.failures)
        assert sum(call in model.probes for call in under_way) <= 1


def test_three_failures_in_a_row_open_it_for_thirty_seconds() -> None:
    breakers, clock = rig()
    fail(breakers, 2)
    breakers.report("s", "t", "answered", RULE)  # in a row: an answer between them starts anew
    fail(breakers, 2)
    assert breakers.admit("s", "t", LEASE) == 0.0
    breakers.report("s", "t", "failed", RULE)
    assert breakers.admit("s", "t", LEASE) == 30.0
    clock.now += 29.5
    assert breakers.admit("s", "t", LEASE) == 0.5


def test_what_was_cancelled_or_denied_is_no_failure_and_no_answer() -> None:
    breakers, _ = rig()
    fail(breakers, 2)
    breakers.report("s", "t", "unknown", RULE)
    assert breakers.failures("s", "t") == 2


def test_exactly_one_probe_goes_through_and_its_answer_closes_it() -> None:
    breakers, clock = rig()
    fail(breakers, 3)
    clock.now += 30.0
    assert breakers.admit("s", "t", LEASE) < 0
    assert [breakers.admit("s", "t", LEASE) for _ in range(5)] == [PROBING] * 5
    breakers.report("s", "t", "answered", RULE, probe=True)
    assert breakers.admit("s", "t", LEASE) == 0.0 and not breakers.active and breakers.views() == []


def test_a_probe_that_fails_opens_it_again_and_one_that_is_cancelled_lets_the_next_try() -> None:
    breakers, clock = rig()
    fail(breakers, 3)
    clock.now += 30.0
    assert breakers.admit("s", "t", LEASE) < 0
    breakers.report("s", "t", "failed", RULE, probe=True)
    assert breakers.admit("s", "t", LEASE) == 30.0
    clock.now += 30.0
    assert breakers.admit("s", "t", LEASE) < 0
    breakers.report("s", "t", "unknown", RULE, probe=True)
    assert breakers.admit("s", "t", LEASE) < 0
    assert breakers.views()[0].opened == 2


def test_a_call_from_before_says_nothing_about_an_open_breaker() -> None:
    breakers, clock = rig()
    fail(breakers, 3)
    breakers.report("s", "t", "answered", RULE)
    assert breakers.admit("s", "t", LEASE) == 30.0
    clock.now += 10.0
    breakers.report("s", "t", "failed", RULE)
    assert breakers.admit("s", "t", LEASE) == 20.0


def test_the_probe_of_a_process_that_died_is_nobodys() -> None:
    memory, dead = private(), set[int]()
    one, clock = rig(memory)
    two, other = rig(memory, alive=lambda pid: pid not in dead)
    two._pid = one._pid + 1  # pyright: ignore[reportPrivateUsage]  # another worker of the gateway
    fail(one, 3)
    clock.now = other.now = clock.now + 30.0
    assert one.admit("s", "t", LEASE) < 0
    assert two.admit("s", "t", LEASE) == PROBING
    dead.add(one._pid)  # pyright: ignore[reportPrivateUsage]
    assert two.admit("s", "t", LEASE) < 0


def test_a_probe_that_never_comes_back_counts_for_nothing_after_its_lease() -> None:
    breakers, clock = rig()
    fail(breakers, 3)
    clock.now += 30.0
    assert breakers.admit("s", "t", 35.0) < 0
    clock.now += 34.0
    assert breakers.admit("s", "t", 35.0) == PROBING
    clock.now += 1.0
    assert breakers.admit("s", "t", 35.0) < 0


def test_tools_fail_alone() -> None:
    breakers, _ = rig()
    fail(breakers, 3)
    assert breakers.admit("s", "other", LEASE) == 0.0
    assert breakers.admit("s2", "t", LEASE) == 0.0


def test_the_rule_of_a_route_counts() -> None:
    breakers, _ = rig()
    fail(breakers, 1, rule=Breaker(failures=1, open_for=5.0))
    assert breakers.admit("s", "t", LEASE) == 5.0


def test_what_operators_see_and_reset() -> None:
    opened: list[tuple[str, str]] = []
    breakers, clock = rig(on_open=lambda server, tool: opened.append((server, tool)))
    fail(breakers, 3)
    fail(breakers, 1, "flaky")
    fail(breakers, 3, "third")
    clock.now += 31.0
    fail(breakers, 3, "fourth")
    seen = [(view.server, view.tool, view.state, view.failures) for view in breakers.views()]
    assert seen == [
        ("s", "flaky", "closed", 1),
        ("s", "fourth", "open", 3),
        ("s", "t", "half-open", 3),
        ("s", "third", "half-open", 3),
    ]
    assert [view.retry_in for view in breakers.views()] == [0.0, 30.0, 0.0, 0.0]
    assert breakers.views()[1].since == 1_000_131.0
    assert opened == [("s", "t"), ("s", "third"), ("s", "fourth")]
    assert breakers.reset("s", "t") == 1 and breakers.reset("s", "t") == 0
    assert breakers.admit("s", "t", LEASE) == 0.0
    assert breakers.reset("s") == 3 and not breakers.active


def test_names_of_any_length_and_kind() -> None:
    breakers, _ = rig()
    long = "ü" * 4000
    fail(breakers, 3, long)
    assert breakers.admit("s", long, LEASE) == 30.0
    assert breakers.views()[0].tool.startswith("üüü")
    assert breakers.reset("s", long) == 1


@pytest.mark.parametrize("count", [3 * BREAKERS])
def test_the_table_is_bounded_and_open_breakers_stay(count: int) -> None:
    breakers, _ = rig()
    fail(breakers, 3)
    for n in range(count):  # a server that fails for every name: callers choose those
        breakers.report("s", f"made up {n}", "failed", RULE)
    assert breakers.active == len(breakers.views()) <= BREAKERS
    assert breakers.admit("s", "t", LEASE) == 30.0


def test_a_probe_that_is_passed_on_to_another_process_goes_on_there() -> None:
    memory = private()
    one, clock = rig(memory, alive=lambda pid: True)
    two, other = rig(memory, alive=lambda pid: True)
    two._pid = one._pid + 1  # pyright: ignore[reportPrivateUsage]  # another worker of the gateway
    assert not two.adopt("s", "t")
    fail(one, 3)
    assert not two.adopt("s", "t"), "nobody probes: it was admitted before it opened"
    clock.now = other.now = clock.now + 30.0
    assert one.admit("s", "t", LEASE) < 0
    assert two.adopt("s", "t")
    assert one.admit("s", "t", LEASE) == PROBING
    two.report("s", "t", "answered", RULE, probe=True)
    one.report("s", "t", "unknown", RULE, probe=True)
    assert one.admit("s", "t", LEASE) == 0.0 and not one.active
