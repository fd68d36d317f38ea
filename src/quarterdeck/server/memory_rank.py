"""How memories are found: cosines of vectors and BM25 of words, put into one order. Pure.

Statistics of words are those of the memories that are searched, never of other users' ones.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import dist, isfinite, log, sqrt

_K1, _B = 1.2, 0.5
"""Of BM25: how soon a repeated word stops to count, how much long texts are held back."""
_RRF = 60
"""Of reciprocal rank fusion (Cormack et al. 2009)."""


@dataclass(frozen=True, slots=True)
class Hit:
    """``score`` from 0 to 1: the better of cosine and share of the words in common, by their weight."""

    number: int
    score: float


def unit(vector: Sequence[float]) -> list[float] | None:
    """The vector with length 1; None when it has no direction."""
    length = sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length > 0 and isfinite(length) else None


def packed(vector: Sequence[float]) -> bytes:
    """Little-endian 32-bit floats."""
    return struct.pack(f"<{len(vector)}f", *vector)


def cosines(query: Sequence[float], rows: Iterable[tuple[int, bytes]]) -> dict[int, float]:
    """Of a unit vector with packed unit vectors of the same length."""
    read = struct.Struct(f"<{len(query)}f")
    given = tuple(query)
    # for unit vectors |a-b|² = 2-2cos; dist is C, a sum of products in this language is not
    return {number: 1.0 - dist(given, read.unpack(data)) ** 2 / 2.0 for number, data in rows if len(data) == read.size}


@dataclass(frozen=True, slots=True)
class Words:
    """What the words say of one memory: BM25, and the share of common weight, 0 to 1."""

    bm25: float
    share: float


def by_words(asked: Sequence[str], rows: Iterable[tuple[int, str]], count: int) -> dict[int, Words]:
    """``rows`` are number and stems of all memories that hold one of ``asked``; ``count`` is how many there are in all.

    The share is measured against the lighter of question and memory: a long message finds a short memory.
    """
    counted = {number: Counter(terms.split()) for number, terms in rows}
    wanted = set(asked)
    holding = Counter(term for terms in counted.values() for term in terms if term in wanted)
    total = max(count, len(counted))
    average = sum(sum(terms.values()) for terms in counted.values()) / max(1, len(counted)) or 1.0

    def weight(term: str) -> float:
        return log(1.0 + (total - holding[term] + 0.5) / (holding[term] + 0.5))

    rare = log(1.0 + (total + 0.5) / 0.5)
    of_question = sum(weight(term) for term in wanted)
    found: dict[int, Words] = {}
    for number, terms in counted.items():
        common = wanted & terms.keys()
        long = sum(terms.values()) / average
        bm25 = sum(weight(t) * terms[t] * (_K1 + 1) / (terms[t] + _K1 * (1 - _B + _B * long)) for t in common)
        of_memory = sum(weight(term) if term in wanted else rare for term in terms)
        lighter = min(of_question, of_memory)
        share = sum(weight(term) for term in common) / lighter if lighter > 0 else 0.0
        found[number] = Words(bm25, min(1.0, share))
    return found


def fused(cosine: Mapping[int, float], said: Mapping[int, Words], limit: int, least: float) -> list[Hit]:
    """The best ``limit`` by the sum of reciprocal ranks of both orders; each has a score of at least ``least``."""
    scores: dict[int, float] = {}
    for number, value in cosine.items():
        scores[number] = min(1.0, max(0.0, value))
    for number, value in said.items():
        scores[number] = max(scores.get(number, 0.0), value.share)
    kept = {number for number, score in scores.items() if score >= least}
    points: dict[int, float] = dict.fromkeys(kept, 0.0)
    near = sorted((n for n in kept if n in cosine), key=lambda n: (-cosine[n], n))
    worded = sorted((n for n in kept if n in said), key=lambda n: (-said[n].bm25, n))
    for order in (near, worded):
        for rank, number in enumerate(order, 1):
            points[number] += 1.0 / (_RRF + rank)
    best = sorted(kept, key=lambda n: (-points[n], -scores[n], -n))
    return [Hit(number, scores[number]) for number in best[:limit]]


__all__ = ["Hit", "Words", "by_words", "cosines", "fused", "packed", "unit"]
