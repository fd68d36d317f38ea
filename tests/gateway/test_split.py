"""Which track a request goes to: shares, stickiness, A/B matches. Pure."""

from __future__ import annotations

from collections import Counter
from time import process_time
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import QuarterdeckError
from quarterdeck.gateway.split import Conversations, Splitter
from quarterdeck.snapshot import Backend, Endpoint, Split, ValueMatch
from quarterdeck.snapshot.conversation import new_id, tag_of, track_tag

HERE = (Endpoint("127.0.0.1", 1),)
AGENT = "kagent/a"
TAG = track_tag("agent-1", "2026-11-21T12:00:00Z")


def splitter(
    weight: int, *, matches: tuple[tuple[ValueMatch, ...], ...] = (), known: Conversations | None = None, **more: object
) -> Splitter:
    """Stable and a canary that gets ``weight`` percent."""
    canary = Backend("canary", more.pop("canary", HERE), weight, matches, TAG, "1.0")  # type: ignore[arg-type]
    stable = Backend("stable", more.pop("stable", HERE), 100 - weight)  # type: ignore[arg-type]
    split = Split((stable, canary), sticky=True, **more)  # type: ignore[arg-type]
    return Splitter(split, AGENT, known or Conversations())


def name(
    of: Splitter,
    conversation: str = "",
    headers: dict[bytes, bytes] | None = None,
    claims: dict[str, object] | None = None,
) -> str:
    return of.choose(headers or {}, claims or {}, (conversation,) if conversation else ()).name


@given(st.integers(0, 100))
def test_new_conversations_are_dealt_out_exactly_by_weight(weight: int) -> None:
    split = splitter(weight)
    assert Counter(name(split) for _ in range(200))["canary"] == 2 * weight


@given(st.integers(5, 95))
def test_conversations_named_by_clients_spread_by_weight(weight: int) -> None:
    split = splitter(weight)
    share = sum(name(split, f"session-{weight}-{n}") == "canary" for n in range(2000)) / 2000
    assert abs(share - weight / 100) < 0.05


@given(st.text(min_size=1), st.integers(0, 100), st.integers(0, 100))
def test_growing_weights_move_no_conversation_off_the_canary_and_all_processes_agree(
    conversation: str, one: int, other: int
) -> None:
    low, high = sorted((one, other))
    assert name(splitter(low), conversation) == name(splitter(low), conversation)
    if name(splitter(low), conversation) == "canary":
        assert name(splitter(high), conversation) == "canary"


@given(st.integers(0, 100))
def test_an_id_says_where_the_conversation_began(weight: int) -> None:
    split = splitter(weight)
    assert name(split, new_id(AGENT, TAG)) == "canary"
    assert name(split, new_id(AGENT)) == "stable"
    assert name(split, new_id(AGENT, TAG % 0xFFFF + 1)) == "stable", "that canary is gone"


@given(st.integers(0, 0xFFFF))
def test_ids_keep_their_tag_and_nobody_elses_are_taken_for_ours(tag: int) -> None:
    assert tag_of(new_id(AGENT, tag), AGENT) == tag
    assert tag_of(str(uuid4()), AGENT) is None
    assert tag_of("x" * 36, AGENT) is None
    assert tag_of(new_id("kagent/caller", tag), AGENT) is None, "its caller's conversation says nothing of its tracks"


def test_a_conversation_seen_to_begin_stays_though_the_weight_grows() -> None:
    known = Conversations()
    before = splitter(10, known=known)
    stays = [c for c in (f"c{n}" for n in range(500)) if name(before, c) == "stable"]
    for conversation in stays:
        before.began(conversation, before.choose({}, {}, (conversation,)))
    after = splitter(90, known=known)
    assert {name(after, c) for c in stays} == {"stable"}


def test_what_is_remembered_is_bounded() -> None:
    known = Conversations(limit=10)
    for n in range(100):
        known.keep("r", str(n), "canary")
    assert [n for n in range(100) if known.get("r", str(n))] == list(range(90, 100))


VERSION = ValueMatch("header", "x-version", exact="next")
STAFF = ValueMatch("claim", "groups", regex="staff|admin.*")


@pytest.mark.parametrize(
    ("headers", "claims", "expected"),
    [
        ({b"x-version": b"next"}, {}, "canary"),
        ({b"x-version": b"nextish"}, {}, "stable"),
        ({}, {"groups": ["users", "admins"]}, "canary"),
        ({}, {"groups": "superstaff"}, "stable"),
        ({}, {"groups": {"staff": True}}, "stable"),
        ({b"x-both": b"1"}, {}, "stable"),
        ({b"x-both": b"1"}, {"act": {"sub": "bot"}}, "canary"),
        ({b"x-both": b"1"}, {"act.sub": "bot"}, "canary"),
    ],
)
def test_matches_choose_the_canary_whatever_its_weight(
    headers: dict[bytes, bytes], claims: dict[str, object], expected: str
) -> None:
    both = (ValueMatch("header", "X-Both", exact="1"), ValueMatch("claim", "act.sub", exact="bot"))
    split = splitter(0, matches=((VERSION,), (STAFF,), both))
    assert name(split, headers=headers, claims=claims) == expected


def test_a_match_moves_no_conversation_that_began_elsewhere() -> None:
    split = splitter(0, matches=((VERSION,),))
    assert name(split, new_id(AGENT), {b"x-version": b"next"}) == "stable"
    assert name(split, "named-by-the-client", {b"x-version": b"next"}) == "canary"


def test_a_regex_nobody_can_compile_is_refused_with_the_snapshot() -> None:
    with pytest.raises(QuarterdeckError, match="invalid regular expression"):
        splitter(0, matches=((ValueMatch("header", "a", regex="("),),))


def test_a_track_without_pods_is_covered_by_the_other_unless_weights_are_strict() -> None:
    down = splitter(100, canary=())
    assert name(down) == "stable"
    assert name(down, new_id(AGENT, TAG)) == "stable"
    assert name(splitter(0, stable=())) == "canary"
    strict = splitter(100, canary=(), strict=True)
    assert name(strict) == "canary"
    assert strict.choose({}, {}).endpoint() is None


def test_choosing_costs_next_to_nothing() -> None:
    """Bound far above what it takes (about 1.5 µs) so that a busy machine does not fail it."""
    split = splitter(30, matches=((VERSION,),))
    conversation = new_id(AGENT, TAG)
    start = process_time()
    for _ in range(20_000):
        split.choose({}, {}, (conversation,))
        split.choose({}, {}, ())
    assert (process_time() - start) / 40_000 < 20e-6
