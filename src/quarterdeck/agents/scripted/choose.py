"""Which tool a request is about, if any: words weighed against labels, descriptions and schemas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .arguments import Filling, fill
from .request import Request
from .schema import Tool
from .text import RELATED, VERBS, WEAK, bag, stems
from .values import LOCATORS, Value

_JOINING = bag("with by of for in as to and from")
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
    idle = [v for v in request.values if v not in filling.used]
    weight = _weights(request, filling, idle)
    matched = {w: match(w, tool) for w in weight}
    coverage = sum(weight[w] * matched[w] for w in weight) / (sum(weight.values()) or 1.0)
    rarity = {w: weight[w] * math.log(1 + total / spread.get(w, 1)) for w in weight}
    telling = sum(rarity[w] * matched[w] for w in weight) / (sum(rarity.values()) or 1.0)
    label = [s for s in tool.label_stems if s not in WEAK and s not in _JOINING] or list(tool.label_stems)
    named = sum(1.0 for s in label if s in weight or RELATED.get(s, frozenset()) & weight.keys()) / (len(label) or 1)
    summary = stems(tool.summary)
    brief = len(summary & weight.keys()) / (len(summary) or 1)
    score = coverage + telling + 0.5 * named + 0.15 * brief + _fit(request, tool, filling, idle)
    verbal = any(matched[w] >= 0.6 for w in weight if w in VERBS and w not in WEAK)
    fits = bool(request.words) and coverage >= COVERAGE and _about(weight, tool, filling, idle, verbal)
    return Choice(tool, filling, score, fits, verbal)


def _weights(request: Request, filling: Filling, idle: list[Value]) -> dict[str, float]:
    """The words to account for: not those that became arguments, but those of named things that did not."""
    spoken = frozenset(s for phrase in filling.phrases for s in stems(phrase))
    things = [s for v in idle if v.kind in ("entity", "ident") for s in stems(v.text)]
    asked = [w for w in request.words if w not in spoken] + things
    return {w: 0.15 if w in WEAK else 0.5 if w in VERBS else 1.0 for w in asked}


def _fit(request: Request, tool: Tool, filling: Filling, idle: list[Value]) -> float:
    """How well the literals suit the schema."""
    required = len(tool.required)
    fit = 0.3 * (filling.sure / required if required else 0.3) + 0.12 * filling.cued
    fit -= 0.25 * len(filling.missing) + 0.2 * sum(v.kind != "entity" for v in idle)
    listed = filling.single + sum("array" in p.types for p in filling.missing)
    fit -= 0.1 * len(filling.phrases) + 0.15 * listed + 0.05 * filling.assumed
    if request.refers and not filling.missing:
        fit -= 0.4  # "it" has no place in this tool
    return fit - (0.5 if tool.deprecated else 0.0)


def _about(weight: dict[str, float], tool: Tool, filling: Filling, idle: list[Value], verbal: bool) -> bool:
    """Whether the request is about this tool at all.

    A verb as general as "create" is not enough: either a word for a thing matches, or the verb (or a word of a
    parameter) does and literals of the right kind are there for all that is required. A tool with no use for the one
    place the request points at is not meant.
    """
    if any(v.kind in LOCATORS for v in idle) and not any(v.kind in LOCATORS for v in filling.used):
        return False
    nouns = [w for w in weight if w not in VERBS]
    prose = frozenset[str]().union(*(known for level, known in tool.fields if level in (1.0, 0.85, 0.6, 0.5)))
    thing = any(w in prose or RELATED.get(w, frozenset()) & prose for w in nouns)
    complete = bool(tool.required) and filling.sure >= len(tool.required)
    return thing or (complete and (verbal or any(match(w, tool) > 0 for w in nouns)))
