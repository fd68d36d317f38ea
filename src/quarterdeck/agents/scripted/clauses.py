"""A request cut into clauses, and clauses put in stages: what can run side by side, and what must wait."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .choose import chosen, rank
from .request import Request
from .schema import Tool
from .text import PRONOUNS, VERBS, bag, stem

_BREAK = re.compile(
    r"(?P<wait>\s*(?:[,;.]\s*)?\b(?:and\s+)?(?:then|afterwards|after that|next)\b[\s,]*)|(?P<semi>\s*;\s*)|"
    r"(?P<stop>[.?!]\s+(?=[A-Z]))|(?P<and>\s*,?\s+and\s+(?:also\s+)?(?=(?P<word>[a-z]+)))|"
    r"(?P<comma>,\s+(?=(?P<verb>[a-z]+)))",
    re.I,
)
_QUESTION = bag("what which who where when how")
_SAME = bag("it its they their them")
_MOST = 12
"""Most clauses of a request; the rest stays with the last."""


@dataclass(frozen=True)
class Clause:
    """A part of a request. ``waits``: it must follow the one before. ``later``: it is not the first."""

    text: str
    waits: bool = False
    later: bool = False

    @cached_property
    def request(self) -> Request:
        """The text; only a later clause can speak of an earlier result."""
        said = re.findall(r"[a-z]+", Request(self.text).bare.lower())
        return Request(self.text, refers=self.later and bool(PRONOUNS & set(said)))


def clauses(text: str, tools: Sequence[Tool]) -> list[Clause]:
    """The request cut where a new thing to do begins."""
    bare = Request(text).bare
    actions = VERBS | {t.label_stems[0] for t in tools if t.label_stems}
    found: list[Clause] = []
    start, waits = 0, False
    for match in _BREAK.finditer(bare):
        word = match.group("word") or match.group("verb")
        if word is not None and not _begins(word.lower(), bare[match.end() :], actions, bool(match.group("and"))):
            continue
        if len(found) == _MOST - 1:
            break
        if text[start : match.start()].strip():
            found.append(Clause(text[start : match.start()].strip(" ,"), waits, bool(found)))
            waits = bool(match.group("wait"))
        start = match.end()
    found.append(Clause(text[start:].strip(), waits, bool(found)))
    return [c for c in found if c.text]


def _begins(word: str, rest: str, actions: frozenset[str], joined: bool) -> bool:
    """Whether a new thing to do begins with ``word``: an action, or a question that stands alone.

    "… and when was it changed?" asks more about the same thing, and is answered together with it.
    """
    if word in _QUESTION:
        clause = re.split(r"[.;?!]|\band\b", rest, maxsplit=1)[0].lower()
        return joined and not _SAME & set(clause.split()[:4])
    return stem(word) in actions


def stages(text: str, tools: Sequence[Tool], whole: bool) -> list[list[Clause]]:
    """Clauses in groups: those of one group need nothing from each other. ``whole``: do not cut.

    A clause that fits no tool is read together with the one before it.
    """
    parts = [Clause(text)] if whole else clauses(text, tools)
    joined: list[Clause] = []
    for part in parts:
        if joined and not (_stands(part, tools) and _stands(joined[-1], tools)):
            joined[-1] = Clause(f"{joined[-1].text} {part.text}", joined[-1].waits, joined[-1].later)
        else:
            joined.append(part)
    if len(parts) > 1 and not any(_stands(c, tools) for c in joined):
        joined = [Clause(text)]
    groups: list[list[Clause]] = []
    for clause in joined:
        if groups and not clause.waits and not (clause.request.refers and _lacking(clause, tools)):
            groups[-1].append(clause)
        else:
            groups.append([clause])
    return groups


def _stands(clause: Clause, tools: Sequence[Tool]) -> bool:
    return chosen(clause.request, rank(clause.request, tools)) is not None


def _lacking(clause: Clause, tools: Sequence[Tool]) -> bool:
    choice = chosen(clause.request, rank(clause.request, tools))
    return choice is not None and bool(choice.filling.missing)
