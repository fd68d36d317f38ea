"""Token buckets against a model that counts whole intervals, and what happens when the table is full."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.gateway.limits.bucket import Buckets, Shape, divided
from quarterdeck.gateway.limits.memory import BUCKETS, WAYS, private


class Model:
    """A bucket as words describe it: full at first, more after each whole interval, never above its size."""

    def __init__(self, most: int, per_fill: int, interval: Fraction) -> None:
        self.most, self.per_fill, self.interval = most, per_fill, interval
        self.level = most
        self.start: Fraction | None = None
        self.fills = 0

    def take(self, now: Fraction, tokens: int) -> bool:
        self.start = now if self.start is None else self.start
        fills = (now - self.start) // self.interval
        self.level = min(self.most, self.level + (fills - self.fills) * self.per_fill)
        self.fills = fills
        if self.level < tokens:
            return False
        self.level -= tokens
        return True


@given(
    most=st.integers(0, 8),
    per_fill=st.integers(0, 8),
    interval=st.integers(1, 40),
    steps=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 3)), max_size=60),
)
def test_a_bucket_is_its_model(most: int, per_fill: int, interval: int, steps: list[tuple[int, int]]) -> None:
    per_fill = min(per_fill, most)
    eighth = Fraction(1, 8)  # exact in binary: the model and floats agree about every boundary
    model = Model(most, per_fill, interval * eighth)
    buckets, now = Buckets(memory := private()), Fraction(1000)
    key = memory.key("a")
    for step, tokens in steps:
        now += step * eighth
        left = buckets.take(Shape(most, per_fill, float(interval * eighth)), key, float(now), tokens)
        assert (left >= 0) == model.take(now, tokens)
        if left >= 0:
            assert left == model.level


@given(
    most=st.integers(1, 20),
    per_fill=st.integers(1, 20),
    replicas=st.integers(1, 5),
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=80),
)
def test_replicas_together_grant_no_more_than_one_would(
    most: int, per_fill: int, replicas: int, steps: list[float]
) -> None:
    shape = divided(most, min(per_fill, most), 1.0, replicas)
    tables = [private() for _ in range(replicas)]
    buckets = [Buckets(memory) for memory in tables]
    now, granted = 50.0, 0
    for step in steps:
        now += step
        for bucket, memory in zip(buckets, tables, strict=True):
            granted += bucket.take(shape, memory.key("a"), now) >= 0
    most_at_once = max(most, replicas)  # each grants one at a time at least
    assert granted <= most_at_once + (now - 50.0 + 1e-6) * min(per_fill, most) + 1e-6


def test_the_wait_that_is_told_is_long_enough_and_no_longer() -> None:
    buckets, shape = Buckets(memory := private()), Shape(2, 1, 10.0)
    key = memory.key("a")
    assert [buckets.take(shape, key, 100.0) for _ in range(2)] == [1.0, 0.0]
    wait = -buckets.take(shape, key, 103.0)
    assert wait == pytest.approx(7.0)
    assert buckets.take(shape, key, 103.0 + wait - 0.01) < 0
    assert buckets.take(shape, key, 103.0 + wait) == 0.0


def test_what_never_fills_says_so() -> None:
    buckets, shape = Buckets(memory := private()), Shape(1, 0, 1.0)
    key = memory.key("a")
    assert buckets.take(shape, key, 0.0) == 0.0
    assert buckets.take(shape, key, 1e9) == -float("inf")
    assert buckets.take(shape, memory.key("b"), 0.0, 2) == -float("inf")


def test_tokens_used_are_taken_afterwards_and_given_back() -> None:
    buckets, shape = Buckets(memory := private()), Shape(100, 10, 1.0)
    key = memory.key("a")
    buckets.spend(shape, key, 5.0, 30)
    assert buckets.level(shape, key, 5.0)[0] == 70
    buckets.spend(shape, key, 5.0, 1000)  # as agentgateway: not below empty
    assert buckets.level(shape, key, 5.0)[0] == 0
    assert buckets.level(shape, key, 6.0)[0] == 10
    buckets.spend(shape, key, 6.0, -3)
    assert buckets.level(shape, key, 6.0)[0] == 13


def test_names_that_callers_choose_do_not_push_out_a_bucket_that_is_used_up() -> None:
    memory = private()
    buckets, shape = Buckets(memory), Shape(5, 1, 60.0)
    mine = memory.key("mine")
    for _ in range(5):
        assert buckets.take(shape, mine, 10.0) >= 0
    start = memory.buckets.places(mine).start
    step = BUCKETS // WAYS
    for other in range(1, 100):  # the same place: keys are the place's number modulo the number of places
        assert buckets.take(shape, mine + other * step, 10.0 + other * 0.001) >= 0
    assert memory.buckets.places(mine + step).start == start
    assert buckets.take(shape, mine, 11.0) < 0


def test_the_table_never_grows() -> None:
    memory = private()
    buckets, shape = Buckets(memory), Shape(5, 1, 60.0)
    for n in range(BUCKETS + BUCKETS // 2):
        assert buckets.take(shape, memory.key(f"caller {n}"), 1.0 + n * 0.001) >= 0
    assert len(memory.buckets.records()) <= BUCKETS
