"""Words: splitting, stems, stop words, general English verbs, clauses. Nothing here knows any tool."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ]*(?:['’][a-z]+)?|\d+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\-./:\s]+")


def bag(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP = bag(
    """a an the this that these those it its is are was were be been being am do does did done has have had having
    i me my mine we us our you your he she they them their his her there here what which who whom whose how why
    where when of in on at by for with from to into onto as and or but not no nor so than then too very just also if
    please could would should can will shall may might must let lets want wants need needs like now again thanks
    thank hello hi hey ok okay yes some any each every all both about up out off over under between through during
    before after further once only own same such s t d ll re ve m don one ones much many more most other
    using use used via per able say says said mean exactly kindly called named titled"""
)
"""Words that say nothing about what is asked for."""

FILLER = bag("please now again thanks thank you kindly me us my our the a an this that it its")
ORDINALS = {"first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "last": -1, "newest": 0, "top": 0}
PRONOUNS = bag("it its that them those they this result output answer same these each") | ORDINALS.keys()
"""Words that speak of an earlier result."""

_GROUPS = (
    "get give tell obtain retrieve return provide",
    "list show enumerate display",
    "read open view see print display show",
    "create make add new build generate insert",
    "write save store put",
    "remember store save record note keep",
    "remove delete erase drop forget",
    "find search look locate seek",
    "move rename relocate",
    "change edit modify update replace alter",
    "add sum plus total",
    "current now present",
    "convert turn transform",
    "compress zip shrink",
    "link connect relate",
    "start begin run launch trigger",
    "stop end halt finish",
    "switch toggle turn flip",
    "enable activate",
    "send post submit",
    "check verify inspect examine",
    "calculate compute work",
    "explain describe demonstrate",
    "ask inquire research",
    "copy duplicate clone",
    "repeat say back",
)
_WEAK = "get give tell obtain retrieve return provide show want need know see know display try go help take"


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """A crude stem, the same for the forms of one word: directories/directory, creates/creating/creation/create."""
    word = word.lower()
    if len(word) <= 3:
        return word
    for ending, instead in (("sses", "ss"), ("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("zes", "z")):
        if word.endswith(ending):
            word = word[: -len(ending)] + instead
            break
    else:
        if word.endswith("s") and not word.endswith(("ss", "us", "is")):
            word = word[:-1]
    for ending in ("ation", "ition", "ion", "ing", "ed", "ly"):
        base = word[: -len(ending)]
        if word.endswith(ending) and len(base) >= 3 and re.search("[aeiouy]", base):
            word = base[:-1] if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "lsz" else base
            break
    if word.endswith("e") and len(word) > 3:
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") else word


def _grouped() -> dict[str, frozenset[str]]:
    related: dict[str, set[str]] = {}
    for group in _GROUPS:
        stems = {stem(w) for w in group.split()}
        for word in stems:
            related.setdefault(word, set()).update(stems - {word})
    return {word: frozenset(others) for word, others in related.items()}


RELATED = _grouped()
"""Stem → stems of general verbs that may stand for it."""
VERBS = frozenset(RELATED) | {stem(w) for w in _WEAK.split()}
"""Stems of verbs so general that they alone do not name a purpose."""
WEAK = frozenset(stem(w) for w in _WEAK.split())


def split(label: str) -> list[str]:
    """The lower-case words of an identifier: camelCase, snake_case and kebab-case alike."""
    return [part.lower() for part in _CAMEL.split(label) if part]


@lru_cache(maxsize=5_000)
def words(text: str) -> tuple[str, ...]:
    """The words of prose and of identifiers in it, lower case, possessive endings cut."""
    found: list[str] = []
    for piece in re.split(r"[\s,;:!?()\[\]{}\"“”`<>|=]+", text):
        for part in split(piece.strip(".'’‘*#")):
            match = _WORD.match(part)
            if match:
                found.append(re.sub(r"['’].*$", "", match.group()))
    return tuple(w for w in found if w)


@lru_cache(maxsize=5_000)
def stems(text: str) -> frozenset[str]:
    """The stems of the words that mean something."""
    return frozenset(stem(w) for w in words(text) if w not in STOP)


def first_sentence(text: str) -> tuple[str, str]:
    """A description's first sentence and the rest."""
    match = re.search(r"(?<=[a-z0-9)'\"\]])[.!?](?=\s+[A-Z]|\s*$)|\n\s*\n", text.strip())
    if match is None:
        return text.strip(), ""
    return text.strip()[: match.start()].strip(), text.strip()[match.end() :].strip()
