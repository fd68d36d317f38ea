"""Literal values in a request: quoted strings, numbers, places, addresses, identifiers, named things."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .text import STOP, VERBS, stem

_QUOTED = (
    r'"(?P<q1>[^"\n]*)"', r"“(?P<q2>[^“”]*)”", r"‘(?P<q3>[^‘’]*)’", r"«(?P<q4>[^«»]*)»", r"`(?P<q5>[^`]+)`",
    r"(?<!\w)'(?P<q6>(?:[^'\n]|(?<=\w)'(?=\w))*)'(?!\w)",
)  # fmt: skip
_TOKENS = re.compile(
    "|".join(
        (
            *_QUOTED,
            r"(?P<uri>\b[a-z][a-z0-9+.-]*://[^\s<>\"']+|\bdata:[^\s\"']+|\bmailto:[^\s\"']+)",
            r"(?P<mail>\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+)",
            r"(?P<glob>(?<!\S)[\w./*?\[\]-]*\*[\w./*?\[\]-]*)",
            r"(?P<slashed>(?<!\w)(?:~|\.{1,2})?/[^\s,;:!?\"'()]*|\b[A-Za-z]:\\[^\s,;\"']+|\b[\w.+-]+(?:/[\w.+-]+)+/?)",
            r"(?P<file>\b[\w-]+(?:\.[\w-]+)*\.[A-Za-z][A-Za-z0-9]{0,4}\b)",
            r"(?P<code>\b\d+(?:[:\-]\d+)+[A-Za-z]?\b|\b\d+(?:\.\d+){2,}\b|\b[A-Za-z]+[-_]?\d[\w-]*\b|\b\d+[A-Za-z][\w-]*\b)",
            r"(?P<number>(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w]))",
            r"(?P<ident>\b[a-z]\w*_\w+\b|\b[a-z]+[A-Z]\w*\b|\b[A-Z][A-Z0-9_]+\b)",
            r"(?P<entity>\b[A-ZÀ-Þ][\w'’&-]*(?:\s+(?:(?:of|de|von|van|der|la)\s+)?[A-ZÀ-Þ][\w'’&-]*)*)",
        )
    ),
)
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_SMALL_WORD = re.compile(r"\b(" + "|".join(_SMALL[2:]) + r")\b", re.IGNORECASE)
MOST = 40
"""Most literals of a request that are looked at; a request with more is no question to plan for."""
LOCATORS = frozenset({"uri", "slashed", "file"})
"""Kinds that point at something, rather than being something said."""


@dataclass(frozen=True, slots=True)
class Value:
    """A literal at ``text[start:end]``. ``kind``: quoted, uri, mail, glob, slashed, file, code, number, ident, entity,
    json, phrase (free words) or result (taken from a tool's answer)."""

    kind: str
    value: Any
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.value if isinstance(self.value, str) else json.dumps(self.value)


def extract(text: str) -> list[Value]:
    """The literals of a request, in order, not overlapping."""
    found = _structures(text)
    taken = [(v.start, v.end) for v in found]
    position = 0
    while len(found) < MOST and (match := _TOKENS.search(text, position)):
        position = max(match.end(), match.start() + 1)
        if any(start < match.end() and match.start() < end for start, end in taken):
            continue
        value = _value(text, match)
        if value is not None:
            found.append(value)
            taken.append((value.start, value.end))
            position = max(value.end, match.start() + 1)
    for match in islice(_SMALL_WORD.finditer(text), MOST):
        if not any(start < match.end() and match.start() < end for start, end in taken):
            found.append(Value("number", _SMALL.index(match.group().lower()), match.start(), match.end()))
    return sorted(found, key=lambda v: v.start)


def _structures(text: str) -> list[Value]:
    """JSON objects and arrays written out in the text."""
    found: list[Value] = []
    decoder, position = json.JSONDecoder(), 0
    for _ in range(50):
        starts = [i for i in (text.find("{", position), text.find("[", position)) if i >= 0]
        if not starts:
            break
        start = min(starts)
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
            continue
        found.append(Value("json", value, start, end))
        position = end
    return found


def _value(text: str, match: re.Match[str]) -> Value | None:
    kind, start, end = str(match.lastgroup), match.start(), match.end()
    if kind.startswith("q"):
        return Value("quoted", match.group(kind), start, end)
    word = match.group()
    if kind in ("uri", "slashed", "glob"):
        word = word.rstrip(".,;:!?)") or word
        return Value(kind, word, start, start + len(word))
    if kind == "number":
        digits = word.replace(",", "")
        try:
            number: Any = int(digits) if re.fullmatch(r"-?\d+", digits) else float(digits)
        except ValueError:  # more digits than Python converts
            return None
        return Value("number", number, start, end) if abs(number) < 1e300 else None
    if kind == "entity":
        return _entity(text, word, start)
    return Value(kind, word, start, end)


def _entity(text: str, word: str, start: int) -> Value | None:
    """A capitalised phrase; the word that merely begins a sentence is none."""
    parts = list(re.finditer(r"\S+", word))
    before = text[:start].rstrip()
    if not before or before[-1] in ".!?:\n":
        first = parts[0].group().lower()
        if len(parts) == 1 or first in STOP or stem(first) in VERBS:
            parts = parts[1:]
    while parts and (parts[0].group().lower() in STOP or re.sub(r"['’].*", "", parts[0].group().lower()) in STOP):
        parts = parts[1:]
    if not parts:
        return None
    phrase = re.sub(r"['’]s$", "", word[parts[0].start() :])
    begin = start + parts[0].start()
    return Value("entity", phrase, begin, begin + len(phrase))


def shape(text: str) -> str:
    """The build of a token: runs of letters ``a``, of digits ``0``, the rest as it is (``10:30`` → ``0:0``)."""
    return re.sub(r"[0-9]+", "0", re.sub(r"[A-Za-zÀ-ɏ]+(?:_[A-Za-zÀ-ɏ]+)*", "a", text))
