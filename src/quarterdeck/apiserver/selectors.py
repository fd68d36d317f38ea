"""Label selectors (equality and set based) and field selectors, parsed once per request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from quarterdeck.apiserver.builtin import names
from quarterdeck.apiserver.store import Entry
from quarterdeck.errors import BadRequest

_TOKEN = re.compile(r"\s*(?:(?P<op>==|!=|=|>|<|!|,|\(|\))|(?P<word>[A-Za-z0-9_./\-]+))")
_INTEGER = re.compile(r"-?[0-9]+")
_FIELD = re.compile(r"((?:\\.|[^=!\\])+?)(==|!=|=)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term. ``op`` is In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    op: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.op:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case _:
                return value is not None and _compares(self.op, value, next(iter(self.values)))


def _compares(op: str, value: str, bound: str) -> bool:
    try:
        left, right = int(value), int(bound)
    except ValueError:
        return False
    return left > right if op == "Gt" else left < right


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            found = _TOKEN.match(stripped, position)
            if found is None:
                raise self.error(f"unexpected character {stripped[position]!r}")
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind]))
            position = found.end()
        self.at = 0

    def error(self, message: str) -> BadRequest:
        return BadRequest(f"unable to parse requirement: {message} (label selector {self.text!r})")

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def word(self) -> str:
        kind, value = self.take()
        if kind != "word":
            raise self.error(f"found '{value}', expected: identifier")
        return value

    def requirements(self) -> tuple[Requirement, ...]:
        found: list[Requirement] = []
        while self.peek()[0] != "end":
            found.append(self.requirement())
            kind, value = self.take()
            if kind == "end":
                break
            if value != "," or self.peek()[0] == "end":
                raise self.error(f"found '{value}', expected: ',' or 'end of string'")
        return tuple(found)

    def requirement(self) -> Requirement:
        found = self._requirement()
        wrong = names.qualified(found.key)
        if wrong:
            raise BadRequest(f'unable to parse requirement: <nil>: Invalid value: "{found.key}": {wrong}')
        for at, value in enumerate(sorted(found.values)):
            wrong = names.label_value(value)
            if not wrong and found.op in ("Gt", "Lt") and not _INTEGER.fullmatch(value):
                wrong = "for 'Gt', 'Lt' operators, the value must be an integer"
            if wrong:
                text = f'values[{at}][{found.key}]: Invalid value: "{value}": {wrong}'
                raise BadRequest(f"unable to parse requirement: {text}")
        return found

    def _requirement(self) -> Requirement:
        if self.peek()[1] == "!":
            self.take()
            return Requirement(self.word(), "DoesNotExist")
        key = self.word()
        kind, value = self.peek()
        if kind == "end" or value == ",":
            return Requirement(key, "Exists")
        self.take()
        if value in ("=", "==", "!="):
            wanted = self.take()[1] if self.peek()[0] == "word" else ""
            return Requirement(key, "NotIn" if value == "!=" else "In", frozenset({wanted}))
        if value in (">", "<"):
            return Requirement(key, "Gt" if value == ">" else "Lt", frozenset({self.word()}))
        if value in ("in", "notin"):
            return Requirement(key, "In" if value == "in" else "NotIn", self.values())
        raise self.error(f"found '{value}', expected: in, notin, =, ==, !=, gt, lt")

    def values(self) -> frozenset[str]:
        opening = self.take()[1]
        if opening != "(":
            raise self.error(f"found '{opening}', expected: '('")
        values: set[str] = set()
        while True:
            kind, value = self.peek()
            if kind == "word":
                self.take()
                values.add(value)
            elif value in (",", ")"):
                values.add("")
            else:
                raise self.error(f"found '{value}', expected: ',', ')' or identifier")
            separator = self.take()[1]
            if separator == ")":
                return frozenset(values)
            if separator != ",":
                raise self.error(f"found '{separator}', expected: ',' or ')'")


@lru_cache(maxsize=1024)
def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The terms of a label selector, all of which must hold. Raises BadRequest."""
    return _Parser(text).requirements()


def format_selector(selector: Mapping[str, Any]) -> str:
    """A LabelSelector object (matchLabels, matchExpressions) as a selector string."""
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        key, values = term.get("key", ""), ",".join(sorted(term.get("values") or ()))
        match term.get("operator"):
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(key)
            case _:
                terms.append(f"!{key}")
    return ",".join(terms)


@dataclass(frozen=True, slots=True)
class FieldTerm:
    path: str
    value: str
    negated: bool = False


@lru_cache(maxsize=1024)
def parse_fields(text: str) -> tuple[FieldTerm, ...]:
    """The terms of a field selector. Raises BadRequest."""
    terms: list[FieldTerm] = []
    for part in re.split(r"(?<!\\),", text):
        if not part:
            continue
        found = _FIELD.fullmatch(part)
        if found is None:
            raise BadRequest(f"invalid selector: '{text}'; can't understand '{part}'")
        value = re.sub(r"\\([,=\\])", r"\1", found[3])
        terms.append(FieldTerm(found[1].strip(), value, found[2] == "!="))
    return tuple(terms)


@dataclass(frozen=True, slots=True)
class Selection:
    """A label and a field selector together; empty selects everything."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldTerm, ...] = ()
    name: str = ""  # metadata.name=… fixes one object: a lookup instead of a scan

    @property
    def everything(self) -> bool:
        return not self.labels and not self.fields

    def matches(self, entry: Entry) -> bool:
        for term in self.fields:
            if (_field(entry, term.path) == term.value) is term.negated:
                return False
        labels = entry.labels
        for requirement in self.labels:  # noqa: SIM110 - a generator for every object of a list doubles its cost
            if not requirement.matches(labels):
                return False
        return True


def _field(entry: Entry, path: str) -> str:
    if path == "metadata.name":
        return entry.name
    if path == "metadata.namespace":
        return entry.namespace
    return entry.fields.get(path, "")


def selection(labels: str, fields: str, selectable: Iterable[str]) -> Selection:
    """Parse both selectors; a field the kind cannot select by is a BadRequest with upstream's text."""
    terms = parse_fields(fields) if fields else ()
    known = {"metadata.name", "metadata.namespace", *selectable}
    for term in terms:
        if term.path not in known:
            raise BadRequest(
                f'Unable to find "{term.path}" that match label selector "{labels}", field selector "{fields}": '
                f"field label not supported: {term.path}"
            )
    name = next((t.value for t in terms if t.path == "metadata.name" and not t.negated), "")
    return Selection(parse_labels(labels) if labels else (), terms, name)
