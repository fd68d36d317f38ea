"""Free words of a request meant as a value: what follows a parameter's label, a connective, or the action itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .request import Request
from .schema import Parameter, Tool
from .text import FILLER, PRONOUNS, STOP, VERBS, bag, split, stem, stems, words
from .values import Value

_CONNECT = r"saying|says|about|for|named|called|titled|on|regarding|concerning|with|of|as|is|that"
_AUXILIARIES = bag("may can could do does did is are was were should would will have has you i we they there")
_TRAILING = FILLER | bag("to in into at from with and")
_LEADING = re.compile(r"(?:\b(?:to|in|into|at|from|under|inside|on|the|file|folder)\s+)+$")


def free_words(parameter: Parameter, request: Request, tool: Tool, used: Sequence[Value], labelled: bool) -> str:
    """The words for a parameter, or nothing. ``labelled``: only such as follow its label."""
    text = _without(request.text, used)
    phrase = _after_label(parameter, text)
    if not phrase and not labelled:
        phrase = _after_action(tool, text)
    return "" if request.refers and PRONOUNS & set(words(phrase)) else phrase


def _after_label(parameter: Parameter, text: str) -> str:
    parts = split(parameter.label)
    cues = [w for w in (parameter.label, " ".join(parts), parts[-1] if parts else "") if len(w) > 2]
    if not cues:
        return ""
    label = "|".join(re.escape(c) for c in dict.fromkeys([*cues, *(re.sub(r"s$", "", c) for c in cues)]))
    match = re.search(rf"\b(?:{label})\s*(?:[:=]|\b(?:{_CONNECT})\b)?\s+(\S.*)", text, re.I)
    return _tidy(match.group(1), single="type" in parts) if match else ""


def _after_action(tool: Tool, text: str) -> str:
    """What follows the verb, and the words of the tool right after it: "find files about X" gives X."""
    first = {stem(w) for w in words(tool.summary)[:1]} | set(tool.label_stems[:1])
    own = frozenset[str]().union(*(known for _, known in tool.fields[:2]))
    found = [(m, stem(m.group())) for m in re.finditer(r"[A-Za-z]+", text) if m.group().lower() not in STOP]
    start = next((i for i, (_, word) in enumerate(found) if word in VERBS or word in first), None)
    if start is None:
        return ""
    end = found[start][0].end()
    for match, word in found[start + 1 :]:
        between = text[end : match.start()].lower().split()
        if word not in own or not all(w in FILLER for w in between):
            break
        end = match.end()
    rest = re.sub(rf"^\s*(?:{_CONNECT}|to)\b", "", text[end:], flags=re.I)
    match = re.search(r"\b(?:for|about|named|called|saying|titled)\s+(\S.*)", rest, re.I)
    return _tidy(match.group(1) if match else rest, single=False)


def _without(text: str, used: Sequence[Value]) -> str:
    """The text with used literals, and what leads to them, cut away at their place."""
    for value in sorted((v for v in used if v.start >= 0), key=lambda v: -v.start):
        text = _LEADING.sub("", text[: value.start]) + "\n" + text[value.end :]
    return text


def _tidy(phrase: str, single: bool) -> str:
    """Free words without courtesies, up to a break; empty when nothing of meaning is left."""
    parts = phrase.split("\n")[0].strip().strip(".?!,:;").split()
    while parts and parts[0].lower() in FILLER:
        parts = parts[1:]
    if parts and parts[0].lower() in _AUXILIARIES:
        return ""
    while parts and parts[-1].lower().strip(".,!?") in _TRAILING:
        parts = parts[:-1]
    kept = " ".join(parts[:1] if single else parts).strip(".?!,:;'\"")
    return kept if stems(kept) else ""
