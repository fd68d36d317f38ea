"""A chart's values: defaults, files, ``--set``; merged and checked as Helm does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from quarterdeck.errors import ConfigError, UsageError

Values = dict[str, Any]
_PART = re.compile(r"((?:[^.\[\]\\]|\\.)+)|\[(\d+)\]|\.")
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}


def merged(base: Values, over: Values, *, keep_nulls: bool = False) -> Values:
    """``over`` wins; maps are merged, a null takes a default away (or stays, to do so later)."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if value is None and not keep_nulls:
            out.pop(key, None)
        elif isinstance(old, dict) and isinstance(value, dict):
            out[key] = merged(old, value, keep_nulls=keep_nulls)
        else:
            out[key] = value
    return out


def parse_sets(arguments: Iterable[str]) -> Values:
    """``a.b=1,c={x,y},d[0].e=z`` as nested values. Raises UsageError."""
    out: Values = {}
    for argument in arguments:
        for assignment in _split(argument, ","):
            path, equals, value = assignment.partition("=")
            if not equals or not path:
                raise UsageError(f"--set {argument}: must be NAME=VALUE, e.g. --set gateway.replicas=3")
            _assign(out, _path(path, argument), _value(value))
    return out


def check(schema: Any, values: Values, chart: str) -> None:
    """Raises ConfigError naming every value that the chart's schema refuses."""
    import jsonschema_rs

    problems = sorted(
        f"{'.'.join(str(part) for part in error.instance_path) or 'values'}: {error.message}"
        for error in jsonschema_rs.validator_for(schema).iter_errors(values)
    )
    if problems:
        raise ConfigError(f"values of chart {chart} are not valid:\n  " + "\n  ".join(problems))


def _split(text: str, separator: str) -> list[str]:
    """At separators that are not escaped and not inside braces."""
    parts, depth, current, escaped = list[str](), 0, "", False
    for char in text:
        if char == separator and not depth and not escaped:
            parts.append(current)
            current = ""
            continue
        depth += {"{": 1, "}": -1}.get(char, 0) if not escaped else 0
        escaped = char == "\\" and not escaped
        current += char
    return [*parts, current]


def _path(text: str, argument: str) -> list[str | int]:
    parts: list[str | int] = []
    position = 0
    while position < len(text):
        found = _PART.match(text, position)
        if found is None:
            raise UsageError(f"--set {argument}: cannot read the name {text!r}")
        if found[1]:
            parts.append(re.sub(r"\\(.)", r"\1", found[1]))
        elif found[2]:
            parts.append(int(found[2]))
        position = found.end()
    return parts


def _value(text: str) -> Any:
    if text.startswith("{") and text.endswith("}"):
        return [_value(item) for item in _split(text[1:-1], ",") if item]
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _INTEGER.fullmatch(text) else re.sub(r"\\(.)", r"\1", text)


def _assign(target: Any, path: list[str | int], value: Any) -> None:
    for here, following in pairwise(path):
        fresh: Any = [] if isinstance(following, int) else {}
        if not isinstance(_slot(target, here), type(fresh)):
            target[here] = fresh
        target = target[here]
    _slot(target, path[-1])
    target[path[-1]] = value


def _slot(target: Any, key: str | int) -> Any:
    """What is under ``key`` now; a list is made longer for it. Raises UsageError."""
    if isinstance(key, str):
        if not isinstance(target, dict):
            raise UsageError(f"--set: {key!r} is set in a list; name an index first")
        return target.get(key)
    if not isinstance(target, list) or key > len(target):
        raise UsageError(f"--set: index [{key}] must continue a list")
    if key == len(target):
        target.append(None)
    return target[key]


def read_schema(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"values.schema.json is not JSON: {error}") from error
