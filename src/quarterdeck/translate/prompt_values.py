"""Values in prompt templates: fields, variables, literals, and Go's functions over them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from quarterdeck.errors import ConfigError

_TOKEN = re.compile(r'\s*("(?:\\.|[^"\\])*"|`[^`]*`|[()|]|-?\d+(?:\.\d+)?|[$.\w]+)')
_VERB = re.compile(r"%(%|[-+ 0#]{0,5}(\d{0,9})(?:\.(\d{1,9}))?[a-zA-Z])")
_DEEPEST = 50
_WIDEST = 1000
LARGEST = 512 * 1024
"""Characters of a rendered prompt, and of the texts that a function takes: else a few variables double themselves."""


class Scope:
    """What names mean at a place of the template."""

    def __init__(self, fields: dict[str, Any], sources: Mapping[str, Mapping[str, str]]) -> None:
        self.fields = fields
        self.sources = sources
        self.dot: Any = fields
        self._variables: dict[str, Any] = {"$": fields}
        self._outer: Scope | None = None

    def inner(self, dot: Any = None) -> Scope:
        """Within a block; ``dot`` as outside unless given."""
        scope = Scope(self.fields, self.sources)
        scope._outer, scope._variables = self, {}
        scope.dot = self.dot if dot is None else dot
        return scope

    def assign(self, name: str, value: Any, *, new: bool) -> None:
        scope: Scope | None = self
        while not new and scope is not None and name not in scope._variables:
            scope = scope._outer
        if scope is None:
            raise ConfigError(f"promptTemplate: variable {name} is not known; write {name} := … first")
        scope._variables[name] = value

    def variable(self, name: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if name in scope._variables:
                return scope._variables[name]
            scope = scope._outer
        raise ConfigError(f"promptTemplate: variable {name} is not known")


def evaluate(expression: str, scope: Scope) -> Any:
    """The value of a pipeline. Raises ConfigError that says what there is."""
    tokens, at = list[str](), 0
    text = expression.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _unknown(expression, scope)
        tokens.append(found[1])
        at = found.end()
    value, rest = _pipeline(tokens, 0, scope, expression, 0)
    if rest != len(tokens):
        raise _unknown(expression, scope)
    return value


def shown(value: Any) -> str:
    """As Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        items: list[Any] = value
        return "[" + " ".join(map(shown, items)) + "]"
    if isinstance(value, dict):
        fields: dict[str, Any] = value
        return "map[" + " ".join(f"{k}:{shown(fields[k])}" for k in sorted(fields)) + "]"
    return str(value)


def truth(value: Any) -> bool:
    """Whether a value counts: no zero, nothing empty."""
    return bool(value)


def _pipeline(tokens: list[str], at: int, scope: Scope, whole: str, depth: int) -> tuple[Any, int]:
    if depth > _DEEPEST:
        raise ConfigError(f"promptTemplate: {{{{{whole[:60]}}}}}: parentheses are nested deeper than {_DEEPEST}")
    value, at = _command(tokens, at, scope, whole, depth, None)
    while at < len(tokens) and tokens[at] == "|":
        value, at = _command(tokens, at + 1, scope, whole, depth, (value,))
    return value, at


def _command(
    tokens: list[str], at: int, scope: Scope, whole: str, depth: int, piped: tuple[Any] | None
) -> tuple[Any, int]:
    """One operand, or a function with its arguments; the piped value is the last of them."""
    if at >= len(tokens) or tokens[at] in ("|", ")"):
        raise _unknown(whole, scope)
    name = tokens[at]
    function = _FUNCTIONS.get(name)
    if function is None and name != "include":
        value, at = _operand(tokens, at, scope, whole, depth)
        if piped is not None or (at < len(tokens) and tokens[at] not in ("|", ")")):
            raise _unknown(whole, scope)
        return value, at
    arguments: list[Any] = []
    at += 1
    while at < len(tokens) and tokens[at] not in ("|", ")"):
        value, at = _operand(tokens, at, scope, whole, depth)
        arguments.append(value)
    arguments += piped or ()
    if sum(len(value) for value in arguments if isinstance(value, str)) > LARGEST:
        raise ConfigError(f"promptTemplate: {{{{{whole[:80]}}}}}: {name} takes texts of {LARGEST} characters at most")
    try:
        return (_include(scope, *arguments) if function is None else function(*arguments)), at
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ConfigError(f"promptTemplate: {{{{{whole}}}}}: {name}: {error}") from error


def _operand(tokens: list[str], at: int, scope: Scope, whole: str, depth: int) -> tuple[Any, int]:
    part = tokens[at]
    if part == "(":
        value, at = _pipeline(tokens, at + 1, scope, whole, depth + 1)
        if at >= len(tokens) or tokens[at] != ")":
            raise _unknown(whole, scope)
        return value, at + 1
    if part[0] == '"':
        return _string(part, whole), at + 1
    if part[0] == "`":
        return part[1:-1], at + 1
    if part in _LITERALS:
        return _LITERALS[part], at + 1
    if re.fullmatch(r"-?\d{1,18}(\.\d+)?", part):
        return (float(part) if "." in part else int(part)), at + 1
    if part == ".":
        return scope.dot, at + 1
    if part.startswith("$"):
        name, _, path = part.partition(".")
        return _field(scope.variable(name), path, whole, scope), at + 1
    if part.startswith("."):
        return _field(scope.dot, part[1:], whole, scope), at + 1
    raise _unknown(whole, scope)


def _field(value: Any, path: str, whole: str, scope: Scope) -> Any:
    for name in path.split(".") if path else ():
        if not isinstance(value, dict) or name not in value:
            raise _unknown(whole, scope)
        value = value[name]
    return value


def _string(token: str, whole: str) -> str:
    try:
        text = str(json.loads(token.replace("\t", "\\t").replace("\n", "\\n")))
        text.encode()  # half of a surrogate pair is no text
        return text
    except ValueError as error:
        raise ConfigError(f"promptTemplate: {{{{{whole}}}}}: {token} is no string") from error


def _unknown(expression: str, scope: Scope) -> ConfigError:
    known = ", ".join(f".{name}" for name in scope.fields)
    functions = ", ".join(sorted(_FUNCTIONS))
    return ConfigError(
        f'promptTemplate: {{{{{expression[:80]}}}}} is not known; use include "alias/key", one of {known}, or one of '
        f"the functions {functions}"
    )


def _include(scope: Scope, *arguments: Any) -> str:
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        raise ConfigError('promptTemplate: include takes one text, "alias/key"')
    path = arguments[0]
    alias, _, key = path.partition("/")
    found = scope.sources.get(alias, {}).get(key)
    if found is None:
        available = ", ".join(sorted(f"{a}/{k}" for a, keys in scope.sources.items() for k in keys)) or "none"
        raise ConfigError(f'promptTemplate: include "{path}" not found; available: {available}')
    return found


def _and(first: Any, *others: Any) -> Any:
    return next((value for value in (first, *others) if not truth(value)), (first, *others)[-1])


def _or(first: Any, *others: Any) -> Any:
    return next((value for value in (first, *others) if truth(value)), (first, *others)[-1])


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(key, int) and key < 0:
            raise ValueError(f"{key} is out of range")
        value = value[key]
    return value


def _slice(value: Any, first: int = 0, last: int | None = None) -> Any:
    end = len(value) if last is None else last
    if not 0 <= first <= end <= len(value):
        raise ValueError(f"{first}:{end} is out of range")
    return value[first:end]


def _print(*values: Any) -> str:
    """As Go's Sprint: a space between values of which neither is text."""
    out = ""
    for number, value in enumerate(values):
        apart = number and not isinstance(value, str) and not isinstance(values[number - 1], str)
        out += (" " if apart else "") + shown(value)
    return out


def _printf(text: str, *values: Any) -> str:
    left = list(values)

    def fill(match: re.Match[str]) -> str:
        verb = match[1]
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb[-1]}(MISSING)"
        value = left.pop(0)
        if max(int(match[2] or 0), int(match[3] or 0)) > _WIDEST:
            raise ValueError(f"a width or precision above {_WIDEST}")
        if verb[-1] == "q":
            return json.dumps(shown(value), ensure_ascii=False)
        if verb[-1] in "dfeg":
            return f"%{verb}" % value
        return f"%{verb[:-1]}s" % shown(value)

    done = _VERB.sub(fill, text)
    return done + ("%!(EXTRA)" if left else "")


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("takes at least two values")
    return any(first == other for other in others)


_LITERALS: dict[str, Any] = {"true": True, "false": False, "nil": None}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": _and,
    "eq": _eq,
    "ge": lambda a, b: a >= b,
    "gt": lambda a, b: a > b,
    "index": _index,
    "le": lambda a, b: a <= b,
    "len": lambda value: len(value),
    "lt": lambda a, b: a < b,
    "ne": lambda a, b: a != b,
    "not": lambda value: not truth(value),
    "or": _or,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: " ".join(map(shown, values)) + "\n",
    "slice": _slice,
}
"""Those of text/template but call, html, js and urlquery."""
