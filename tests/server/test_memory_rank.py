"""The order of what is found: quality over many memories, and bounds that hold for any input."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.agents.memory.offline import embed
from quarterdeck.agents.memory.words import terms
from quarterdeck.server import memory_rank as rank

SUBJECTS = [
    "invoice",
    "meeting",
    "report",
    "printer",
    "server",
    "kitchen",
    "garden",
    "budget",
    "contract",
    "lunch",
    "train",
    "holiday",
]
VERBS = ["moved", "signed", "cancelled", "repaired", "painted", "reviewed", "closed", "shipped", "booked", "counted"]
PLACES = ["Berlin", "Lisbon", "Oslo", "Madrid", "Prague", "Vienna", "Dublin", "Athens", "Warsaw", "Helsinki"]
NEEDLES = {
    "What is the name of my dog?": "The user's dog is called Biscuit",
    "which region does production run in": "The production cluster runs in region eu-west-1",
    "When are we allowed to deploy?": "The deployment window is Friday at 17:00",
    "is there anything Bob must not eat, peanut for example?": "Bob is allergic to peanuts",
    "how do I like my editor": "The user prefers dark mode in all editors",
    "who is the on-call engineer": "The on-call engineer this week is Dana",
    "rotation of the staging database's password": "The staging database password rotates every 30 days",
    "favorite color?": "The user's favourite colour is teal",
}


def search(memories: Sequence[str], question: str, limit: int = 5, least: float = 0.3) -> list[str]:
    asked = list(dict.fromkeys(terms(question)))
    rows = [(n, " ".join(terms(text))) for n, text in enumerate(memories)]
    holding = [(n, stems) for n, stems in rows if set(stems.split()) & set(asked)]
    packed = [(n, rank.packed(embed(text))) for n, text in enumerate(memories)]
    hits = rank.fused(rank.cosines(embed(question), packed), rank.by_words(asked, holding, len(memories)), limit, least)
    return [memories[hit.number] for hit in hits]


def test_the_right_one_of_many_is_found() -> None:
    dice = random.Random(7)  # the same corpus each time
    hay = [
        f"The {dice.choice(SUBJECTS)} in {dice.choice(PLACES)} was {dice.choice(VERBS)} on day {n}" for n in range(150)
    ]
    memories = [*hay, *NEEDLES.values()]
    first = [search(memories, question)[:1] == [fact] for question, fact in NEEDLES.items()]
    assert sum(first) >= len(NEEDLES) - 1, dict(zip(NEEDLES, first, strict=True))
    assert search(memories, "Tell me a joke about penguins") == []


_TEXTS = st.lists(st.text(alphabet="abcdé 東1<", max_size=12), max_size=8)


@given(_TEXTS, st.text(alphabet="abcdé 東1<", max_size=20), st.integers(1, 10), st.floats(0, 1))
def test_any_texts_have_scores_from_0_to_1(memories: list[str], question: str, limit: int, least: float) -> None:
    asked = list(dict.fromkeys(terms(question)))
    rows = [(n, " ".join(terms(text))) for n, text in enumerate(memories)]
    words = rank.by_words(asked, rows, len(rows))
    cosines = rank.cosines(embed(question, 16), [(n, rank.packed(embed(t, 16))) for n, t in enumerate(memories)])
    hits = rank.fused(cosines, words, limit, least)
    assert len(hits) <= limit and all(least <= hit.score <= 1.0 for hit in hits)
    assert len({hit.number for hit in hits}) == len(hits)
    assert all(0.0 <= said.share <= 1.0 and said.bm25 >= 0 for said in words.values())
