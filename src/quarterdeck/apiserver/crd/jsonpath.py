"""kubectl's JSONPath: paths for printer columns, and whole templates with ``{range}`` and ``{end}``.

Follows https://kubernetes.io/docs/reference/kubectl/jsonpath/: field, ``['quoted']``, ``[n]``, slices, unions, ``*``,
``..`` and filters ``[?(@.a=="b")]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from quarterdeck.errors import UsageError

Step = Callable[[list[Any], Any], list[Any]]
_MAX_NODES = 1_000_000
_FIELD = re.compile(r"(?:\\.|[^\s.\[\]{}\\|,()=!<>'\"])+")
_QUOTED = re.compile(r"'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\"")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_SLICE = re.compile(r"(-?\d*)(?::(-?\d*))?(?::(-?\d*))?\Z")
_OPERATORS = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*")


@dataclass(slots=True)
class _Scanner:
    text: str
    at: int = 0

    def fail(self, why: str) -> UsageError:
        return UsageError(f"jsonpath {self.text!r}: {why} at offset {self.at}")


@lru_cache(maxsize=512)
def compile_path(path: str) -> tuple[Step, ...]:
    """The steps of one path such as ``.spec.items[0].name``, with or without braces and leading ``$``."""
    text = path.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    scanner = _Scanner(text)
    steps = _steps(scanner)
    if scanner.at != len(text):
        raise scanner.fail("unexpected text")
    return tuple(steps)


def evaluate(path: str, obj: Any) -> list[Any]:
    """All values at ``path``; empty when there are none. Raises UsageError for a malformed path."""
    return _run(compile_path(path), [obj], obj)


def _run(steps: tuple[Step, ...] | list[Step], values: list[Any], root: Any) -> list[Any]:
    for step in steps:
        values = step(values, root)
        if len(values) > _MAX_NODES:
            raise UsageError("jsonpath selects too many values")
    return values


def _steps(scanner: _Scanner) -> list[Step]:
    text = scanner.text
    steps: list[Step] = []
    if text.startswith(("$", "@"), scanner.at):
        if text[scanner.at] == "$":
            steps.append(lambda values, root: [root])
        scanner.at += 1
    elif (match := _FIELD.match(text, scanner.at)) and match.group() != "*":
        steps.append(_field(_unescape(match.group())))
        scanner.at = match.end()
    while scanner.at < len(text):
        if text.startswith("..", scanner.at):
            scanner.at += 2
            steps.append(_descend)
            if not text.startswith("[", scanner.at):
                steps.append(_name(scanner))
        elif text[scanner.at] == ".":
            scanner.at += 1
            if scanner.at < len(text) and text[scanner.at] != "[":
                steps.append(_name(scanner))
        elif text[scanner.at] == "[":
            steps.append(_bracket(scanner))
        else:
            break
    return steps


def _name(scanner: _Scanner) -> Step:
    match = _FIELD.match(scanner.text, scanner.at)
    if match is None:
        raise scanner.fail("a field name is missing")
    scanner.at = match.end()
    return _wildcard if match.group() == "*" else _field(_unescape(match.group()))


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _field(name: str) -> Step:
    return lambda values, root: [value[name] for value in values if isinstance(value, dict) and name in value]


def _wildcard(values: list[Any], root: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found


def _descend(values: list[Any], root: Any) -> list[Any]:
    found: list[Any] = []
    pending = list(reversed(values))
    while pending:
        value = pending.pop()
        found.append(value)
        below = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        pending += reversed(below)
    return found


def _closing(scanner: _Scanner) -> str:
    """The text inside the brackets at the scanner, which moves behind them."""
    depth, at, text = 0, scanner.at, scanner.text
    while at < len(text):
        if text[at] in "'\"" and (match := _QUOTED.match(text, at)):
            at = match.end()
            continue
        depth += {"[": 1, "]": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            inner = text[scanner.at + 1 : at - 1]
            scanner.at = at
            return inner.strip()
    raise scanner.fail("unterminated array")


def _bracket(scanner: _Scanner) -> Step:
    inner = _closing(scanner)
    if inner == "*":
        return _wildcard
    if inner.startswith("?(") and inner.endswith(")"):
        return _filter(inner[2:-1].strip())
    parts = _split(inner, ",")
    selectors = [_selector(part.strip(), scanner) for part in parts]
    if len(selectors) == 1:
        return selectors[0]
    return lambda values, root: [item for select in selectors for item in select(values, root)]


def _split(text: str, separator: str) -> list[str]:
    parts, start, at = [], 0, 0
    while at < len(text):
        if text[at] in "'\"" and (match := _QUOTED.match(text, at)):
            at = match.end()
            continue
        if text.startswith(separator, at):
            parts.append(text[start:at])
            start = at + len(separator)
        at += 1
    return [*parts, text[start:]]


def _selector(text: str, scanner: _Scanner) -> Step:
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        return _field(_unescape(quoted.group(1) if quoted.group(1) is not None else quoted.group(2)))
    match = _SLICE.match(text)
    if not text or match is None:
        raise scanner.fail(f"invalid array index {text}")
    first, end, step = (None if part in (None, "") else int(part) for part in match.groups())
    if ":" not in text:
        return _index(first or 0)
    if step is not None and step <= 0:
        raise scanner.fail("step must be > 0")
    return lambda values, root: [
        item for value in values if isinstance(value, list) for item in value[slice(first, end, step)]
    ]


def _index(at: int) -> Step:
    return lambda values, root: [
        value[at] for value in values if isinstance(value, list) and -len(value) <= at < len(value)
    ]


def _filter(text: str) -> Step:
    """``@.a == "b"``; a path alone asks whether it exists."""
    match: re.Match[str] | None = None
    at = 0
    while at < len(text) and match is None:
        quoted = _QUOTED.match(text, at)
        if quoted:
            at = quoted.end()
            continue
        match = _OPERATORS.match(text, at) if not text[at].isspace() else None
        at += 1
    left = _operand(text[: match.start()] if match else text)
    right = _operand(text[match.end() :]) if match else None
    operator = match.group(1) if match else ""

    def select(values: list[Any], root: Any) -> list[Any]:
        items = [
            item for value in values for item in (_wildcard([value], root) if isinstance(value, list) else [value])
        ]
        return [item for item in items if _holds(left(item, root), right(item, root) if right else None, operator)]

    return select


def _operand(text: str) -> Callable[[Any, Any], list[Any]]:
    text = text.strip()
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        value: Any = _unescape(quoted.group(1) if quoted.group(1) is not None else quoted.group(2))
    elif _NUMBER.fullmatch(text):
        value = float(text) if "." in text else int(text)
    elif text in ("true", "false"):
        value = text == "true"
    else:
        steps = compile_path(text)
        return lambda item, root: _run(steps, [item], root)
    return lambda item, root: [value]


def _holds(left: list[Any], right: list[Any] | None, operator: str) -> bool:
    if right is None:
        return bool(left)
    if not left or not right:
        return False
    return _compare(left[0], right[0], operator)


def _compare(one: Any, two: Any, operator: str) -> bool:
    if operator in ("==", "!="):
        same = one == two and isinstance(one, bool) == isinstance(two, bool)
        return same if operator == "==" else not same
    numbers = isinstance(one, (int, float)) and isinstance(two, (int, float))
    if not numbers and not (isinstance(one, str) and isinstance(two, str)):
        return False
    sign = (one > two) - (one < two)  # pyright: ignore[reportOperatorIssue]
    return {"<": sign < 0, "<=": sign <= 0, ">": sign > 0, ">=": sign >= 0}[operator]


def text_of(value: Any) -> str:
    """A value as kubectl prints it: strings bare, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@dataclass(slots=True)
class _Text:
    text: str


@dataclass(slots=True)
class _Path:
    steps: tuple[Step, ...]
    source: str


@dataclass(slots=True)
class _Range:
    steps: tuple[Step, ...]
    body: list[_Text | _Path | _Range]


class Template:
    """A kubectl ``-o jsonpath`` template. Raises UsageError when malformed."""

    def __init__(self, source: str) -> None:
        self._source = source
        open_ranges: list[_Range] = [_Range((), [])]
        at = 0
        while at < len(source):
            start = source.find("{", at)
            if start != at:
                open_ranges[-1].body.append(_Text(source[at : start if start >= 0 else len(source)]))
            if start < 0:
                break
            inner, at = self._block(start)
            self._add(inner, open_ranges)
        if len(open_ranges) > 1:
            raise UsageError(f"jsonpath {source!r}: unclosed range")
        self._body = open_ranges[0].body

    def _block(self, start: int) -> tuple[str, int]:
        at = start + 1
        while at < len(self._source):
            quoted = _QUOTED.match(self._source, at)
            if quoted:
                at = quoted.end()
            elif self._source[at] == "}":
                return self._source[start + 1 : at].strip(), at + 1
            else:
                at += 1
        raise UsageError(f"jsonpath {self._source!r}: unclosed action")

    def _add(self, inner: str, open_ranges: list[_Range]) -> None:
        if inner == "end":
            if len(open_ranges) == 1:
                raise UsageError(f"jsonpath {self._source!r}: not in range, nothing to end")
            done = open_ranges.pop()
            open_ranges[-1].body.append(done)
        elif inner.startswith("range") and (len(inner) == 5 or not inner[5].isalnum()):
            open_ranges.append(_Range(compile_path(inner[5:].strip()), []))
        elif (quoted := _QUOTED.fullmatch(inner)) is not None:
            body = quoted.group(1) if quoted.group(1) is not None else quoted.group(2)
            open_ranges[-1].body.append(_Text(_escapes(body)))
        elif inner:
            open_ranges[-1].body.append(_Path(compile_path(inner), inner))

    def render(self, obj: Any) -> str:
        """The template's text for ``obj``; missing fields print nothing."""
        return self._render(self._body, obj, obj)

    def _render(self, body: list[_Text | _Path | _Range], current: Any, root: Any) -> str:
        out: list[str] = []
        for part in body:
            if isinstance(part, _Text):
                out.append(part.text)
            elif isinstance(part, _Path):
                out.append(" ".join(text_of(value) for value in _run(part.steps, [current], root)))
            else:
                out += [self._render(part.body, value, root) for value in _run(part.steps, [current], root)]
        return "".join(out)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}


def _escapes(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), text)


def render(template: str, obj: Any) -> str:
    """``kubectl get -o jsonpath=template``. A template without braces is one path, as kubectl's relaxed form."""
    if "{" not in template:
        template = "{" + (template if template.startswith((".", "$", "[")) else f".{template}") + "}"
    return Template(template).render(obj)
