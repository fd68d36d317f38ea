"""Tool results: whether they are errors, what is in them, and what a later step takes from them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, cast

from .schema import Parameter
from .text import ORDINALS, bag, stem, words
from .values import extract

_ERROR = re.compile(
    r"\s*(?:\[?(?:mcp\s+)?(?:fatal|error|exception|traceback|failed|failure|denied|forbidden|refused|timed out|"
    r"access denied|permission denied|input validation error|invalid|unknown tool|not found|(?-i:E[A-Z]{4,}))\b|"
    r"(?:unable to|cannot|could not)\b|[\w.]*(?-i:Error|Exception)\b)", re.I,
)  # fmt: skip
_MARK = re.compile(r"^\s*(?:\[[^\]]*\]|[-*•]|\d+[.)])\s+")
_EACH = bag("each every all both them those")


@dataclass(frozen=True)
class Done:
    """A call of this turn with its result's text."""

    tool: str
    arguments: dict[str, Any]
    result: str

    @property
    def failed(self) -> bool:
        return is_error(self.result)


def is_error(text: str) -> bool:
    """Whether a result reads like a failure; chat completions carry no flag for it."""
    parsed = parse(text)
    if isinstance(parsed, dict):
        document = cast(dict[str, Any], parsed)
        return bool(document.get("isError") or document.get("error"))
    return bool(_ERROR.match(text))


def parse(text: str) -> Any:
    """The JSON a result consists of, else the text itself."""
    if text.strip()[:1] in ("{", "[", '"') or re.fullmatch(r"\s*(?:-?\d[\d.]{0,300}|true|false|null)\s*", text):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def items(text: str) -> list[Any]:
    """The members of a result that is a list: a JSON array, or lines."""
    parsed = parse(text)
    if isinstance(parsed, dict):
        document = cast(dict[str, Any], parsed)
        parsed = next((v for v in document.values() if isinstance(v, list)), document)
    if isinstance(parsed, list):
        return cast(list[Any], parsed)
    if isinstance(parsed, dict):
        return [cast(Any, parsed)]
    lines = [_MARK.sub("", line).strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines = lines[1:]
    return cast(list[Any], lines)


def carried(parameter: Parameter, clause: str, before: list[Done]) -> list[Any]:
    """What a later step's parameter takes from those before: one value, or several for "each of them"."""
    if not before:
        return []
    last, said = before[-1], words(clause)
    members = items(last.result)
    chosen = [w for w in said if w in ORDINALS]
    if chosen and members:
        index = ORDINALS[chosen[0]]
        return [_joined(_field(members[index], parameter), last)] if index < len(members) else []
    if len(members) > 1 and any(w in _EACH for w in said):
        return [_joined(_field(m, parameter), last) for m in members]
    document = parse(last.result)
    if isinstance(document, dict):
        found = _field(cast(Any, document), parameter, only=True)
        named = _field_named(cast(dict[str, Any], document), said)
        if found is not None or named is not None:
            return [found if found is not None else named]
    for done in reversed(before):
        if parameter.label in done.arguments:
            return [done.arguments[parameter.label]]
    return _whole(parameter, last)


def _whole(parameter: Parameter, last: Done) -> list[Any]:
    """All of a result, or the number in it where a number is wanted."""
    if {"number", "integer"} & set(parameter.types):
        numbers = [v.value for v in extract(last.result[:10_000]) if v.kind == "number"]
        return numbers[-1:]
    if "string" in parameter.types or not parameter.types:
        return [last.result]
    if parameter.types == ("array",):
        return items(last.result)
    return []


def _field(member: Any, parameter: Parameter, only: bool = False) -> Any:
    """Of an object, the property the parameter is called like, else one that identifies it."""
    if not isinstance(member, dict):
        return None if only else member
    document = cast(dict[str, Any], member)
    wanted = parameter.words
    for key, value in document.items():
        if {stem(w) for w in words(key)} & wanted and not isinstance(value, (dict, list)):
            return value
    if only:
        return None
    return next(
        (document[k] for k in ("id", "name", "title", "uri") if k in document), next(iter(document.values()), None)
    )


def _field_named(document: dict[str, Any], said: tuple[str, ...]) -> Any:
    """The property of a result that the request mentions."""
    for key, value in document.items():
        if {stem(w) for w in said} & {stem(w) for w in words(key)} and not isinstance(value, (dict, list)):
            return value
    return None


def _joined(member: Any, last: Done) -> Any:
    """A member named relative to the place that was listed, with that place in front."""
    if not isinstance(member, str) or member.startswith(("/", "~")) or "://" in member:
        return member
    for value in last.arguments.values():
        if isinstance(value, str) and value.startswith(("/", "~", "./")) and "\n" not in value:
            return f"{value.rstrip('/')}/{member}"
    return member
