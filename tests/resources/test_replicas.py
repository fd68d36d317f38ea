"""``spec.replicas`` beside kagent's ``deployment.replicas``: what decides, and that deciding ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.resources.replicas import Replicas, settle

COUNT = st.integers(0, 5)
MAYBE = st.none() | COUNT


@pytest.mark.parametrize(
    ("replicas", "seed", "seeded", "expected"),
    [
        (1, None, None, Replicas(1, None, False)),  # the default
        (None, None, None, Replicas(1, None, False)),  # an object no server has defaulted
        (4, None, None, Replicas(4, None, False)),
        (1, 3, None, Replicas(3, 3, True)),  # kagent's file, seen for the first time
        (3, 3, 3, Replicas(3, 3, False)),
        (1, 3, 3, Replicas(1, 3, False)),  # kubectl scale --replicas=1 afterwards
        (0, 3, 3, Replicas(0, 3, False)),
        (3, 5, 3, Replicas(5, 5, True)),  # the file says 5 now and nobody has scaled
        (4, 5, 3, Replicas(4, 5, False)),  # somebody has
        (2, 3, None, Replicas(2, 3, False)),  # both written down: the wider field wins
        (1, 1, None, Replicas(1, 1, False)),
        (3, None, 3, Replicas(3, None, False)),  # the older field was removed: nothing is scaled down
    ],
)
def test_who_decides(replicas: int | None, seed: int | None, seeded: int | None, expected: Replicas) -> None:
    assert settle(replicas, seed, seeded) == expected


@given(MAYBE, MAYBE, MAYBE)
def test_it_settles_at_once(replicas: int | None, seed: int | None, seeded: int | None) -> None:
    first = settle(replicas, seed, seeded)
    stored = first.wanted if first.write else replicas
    assert settle(stored, first.seed, first.seed) == Replicas(first.wanted, first.seed, False)


@given(MAYBE, COUNT, COUNT)
def test_after_the_seed_whoever_scales_is_obeyed(replicas: int | None, seed: int, scaled: int) -> None:
    first = settle(replicas, seed, None)
    assert settle(scaled, seed, first.seed).wanted == scaled
