"""Which tool a request is about, if any: words weighed against names, descriptions and schemas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .arguments import Filling, fill
from .request import Request
from .schema import Tool
from .text import RELATED, STOP, VERBS, WEAK, stems

COVERAGE = 0.34
"""Share of the request's words a tool must account for."""


@dataclass(frozen=True)
class Choice:
    """A tool with the arguments it would get, and how well it fits (comparable within one request)."""

    tool: Tool
    filling: Filling
    score: float
    fits: bool
    verbal: bool
    """Whether a verb of the request is the tool's own: enough for a clause that goes on about an earlier result."""


def rank(request: Request, tools: Sequence[Tool]) -> list[Choice]:
    """All tools, best first."""
    spread: dict[str, int] = {}
    for tool in tools:
        for word in frozenset[str]().union(*(known for _, known in tool.fields)):
            spread[word] = spread.get(word, 0) + 1
    rated = [_rate(request, tool, spread, len(tools)) for tool in tools]
    return sorted(rated, key=lambda c: -c.score)


def chosen(request: Request, ranked: Sequence[Choice]) -> Choice | None:
    """The best that fits; a clause about an earlier result needs the tool's verb only."""
    return next((c for c in ranked if c.fits or (request.refers and c.verbal)), None)


def match(word: str, tool: Tool) -> float:
    """How strongly a tool speaks of a word, 0 to 1."""
    best = max((weight for weight, known in tool.fields if word in known), default=0.0)
    if best >= 1.0 or word not in RELATED:
        return best
    others = RELATED[word]
    return max(best, 0.75 * max((weight for weight, known in tool.fields if others & known), default=0.0))


def _rate(request: Request, tool: Tool, spread: dict[str, int], total: int) -> Choice:
    filling = fill(tool, request)
    idle = [v for v in request.values if v not in filling.used and v.start >= 0]
    spoken = frozenset(s for phrase in filling.phrases for s in stems(phrase))
    asked = [w for w in request.words if w not in spoken] + [
        s for v in idle if v.kind in ("entity", "ident") for s in stems(v.text)
    ]
    weight = {w: 0.15 if w in WEAK else 0.5 if w in VERBS else 1.0 for w in asked}
    matched = {w: match(w, tool) for w in weight}
    total_weight = sum(weight.values()) or 1.0
    coverage = sum(weight[w] * matched[w] for w in weight) / total_weight
    rarity = {w: weight[w] * math.log(1 + total / spread.get(w, 1)) for w in weight}
    telling = sum(rarity[w] * matched[w] for w in weight) / (sum(rarity.values()) or 1.0)
    label = [s for s in tool.label_stems if s not in WEAK and s not in STOP] or list(tool.label_stems)
    named = sum(1.0 for s in label if s in weight or RELATED.get(s, frozenset()) & weight.keys()) / (len(label) or 1)
    required = len(tool.required)
    fit = 0.3 * (filling.sure / required if required else 0.3) + 0.12 * filling.cued
    summary = stems(tool.summary)
    fit += 0.3 * len(summary & weight.keys()) / (len(summary) or 1)
    fit -= (
        0.1 * len(filling.phrases)
        + 0.15 * filling.single
        + 0.25 * len(filling.missing)
        + 0.2 * sum(v.kind != "entity" for v in idle)
    )
    if request.refers and not filling.missing:
        fit -= 0.4  # "it" has no place in this tool
    score = coverage + telling + 0.5 * named + fit - (0.5 if tool.deprecated else 0.0)
    verbal = any(matched[w] >= 0.6 for w in weight if w in VERBS and w not in WEAK)
    fits = bool(request.words) and _fits(weight, matched, coverage, filling, tool, verbal)
    return Choice(tool, filling, score, fits, verbal)


def _fits(
    weight: dict[str, float], matched: dict[str, float], coverage: float, filling: Filling, tool: Tool, verbal: bool
) -> bool:
    """Whether the request is about this tool at all.

    A verb as general as "create" is not enough: either a word that names a thing matches, or the verb is the tool's own
    and literals of the right kind are there for everything required.
    """
    thing = any(matched[w] >= 0.45 for w in weight if w not in VERBS)
    complete = bool(tool.required) and filling.sure >= len(tool.required)
    return coverage >= COVERAGE and (thing or (verbal and complete))
