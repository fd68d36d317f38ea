"""Script mode: answers written down beforehand, for tests and demos.

A script is YAML (or JSON): a list of entries, or ``{entries: [...]}``. The first whose ``match`` (a regular expression,
ignoring case) is found in the user's last message answers; without one the planner does.

    - match: "deploy (?P<app>\\w+)"
      calls:                                     # made one after the other; a nested list: side by side
        - {tool: build, arguments: {app: "{app}"}}
        - {tool: release, arguments: {image: "{result}"}}
      answer: "Released {app}: {result}"

In texts ``{result}`` is the last result, ``{results[0]}`` an earlier one, ``{app}`` or ``{1}`` a group of the match,
``{memory}`` what the agent's memory holds about the message.
To test what calls a model: ``arguments`` may be a string, sent as it is (malformed JSON); ``repeat: true`` makes the
calls again and again without end; ``delay: 2.5`` waits first (seconds); ``error: {status: 429, message: ...}`` fails.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from quarterdeck.errors import ConfigError

from .conversation import Turn

_FIELDS = {"match", "calls", "answer", "repeat", "delay", "error"}
_HOLE = re.compile(r"\{(\w+)(?:\[(\d+)\])?\}")


@dataclass(frozen=True)
class ScriptedCall:
    """``arguments`` is the JSON text to send."""

    tool: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """What a script says to do now. ``delay`` in seconds; ``error`` is (status, message)."""

    calls: list[ScriptedCall] = field(default_factory=list[ScriptedCall])
    text: str = ""
    delay: float = 0.0
    error: tuple[int, str] | None = None


@dataclass(frozen=True)
class Entry:
    """One entry; ``calls`` in stages."""

    match: re.Pattern[str]
    calls: list[list[dict[str, Any]]]
    answer: str
    repeat: bool
    delay: float
    error: tuple[int, str] | None


def load(file: str) -> list[Entry]:
    """Read a script. Raises ConfigError naming the file, the entry and the field."""
    try:
        with open(file, encoding="utf-8") as stream:
            document: Any = yaml.safe_load(stream)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {error}") from error
    if isinstance(document, dict):
        document = cast(dict[str, Any], document).get("entries")
    if not isinstance(document, list):
        raise ConfigError(f"{file}: must be a list of entries, each with match and calls or answer")
    return [_entry(f"{file}: entry {i}", e) for i, e in enumerate(cast(list[Any], document), 1)]


def _entry(where: str, entry: Any) -> Entry:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: must be a mapping")
    unknown = sorted(set(map(str, entry)) - _FIELDS)
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(_FIELDS))}")
    try:
        match = re.compile(str(entry["match"]), re.IGNORECASE)
    except KeyError:
        raise ConfigError(f"{where}: match is required") from None
    except re.error as error:
        raise ConfigError(f"{where}: match is not a regular expression: {error}") from error
    if not entry.keys() & {"calls", "answer", "error"}:
        raise ConfigError(f"{where}: needs calls, answer or error")
    return Entry(
        match,
        _stages(where, entry.get("calls")),
        str(entry.get("answer") or ""),
        bool(entry.get("repeat")),
        _seconds(where, entry.get("delay")),
        _failure(where, entry.get("error")),
    )


def _stages(where: str, calls: Any) -> list[list[dict[str, Any]]]:
    if calls is not None and not isinstance(calls, list):
        raise ConfigError(f"{where}: calls must be a list")
    stages: list[list[dict[str, Any]]] = []
    for stage in cast(list[Any], calls or []):
        group = cast(list[Any], stage) if isinstance(stage, list) else [stage]
        for call in group:
            if not isinstance(call, dict) or not isinstance(call.get("tool"), str):
                raise ConfigError(f"{where}: each of calls needs tool (a name) and arguments")
            if not isinstance(call.get("arguments", {}), (dict, str)):
                raise ConfigError(f"{where}: calls: arguments must be a mapping, or a string sent as it is")
        stages.append(cast(list[dict[str, Any]], group))
    return stages


def _seconds(where: str, value: Any) -> float:
    if value is None:
        return 0.0
    if not isinstance(value, (int, float)) or not 0 <= value <= 3600:
        raise ConfigError(f"{where}: delay must be seconds between 0 and 3600")
    return float(value)


def _failure(where: str, value: Any) -> tuple[int, str] | None:
    if value is None:
        return None
    status = value.get("status", 500) if isinstance(value, dict) else None
    if not isinstance(status, int) or not 400 <= status <= 599:
        raise ConfigError(f"{where}: error needs status between 400 and 599, and message")
    return status, str(value.get("message", "scripted error"))


def reply(entries: list[Entry], turn: Turn) -> Reply | None:
    """What the script says, or None when no entry matches."""
    for entry in entries:
        found = entry.match.search(turn.text)
        if found is None:
            continue
        if entry.error is not None:
            return Reply(delay=entry.delay, error=entry.error)
        made = len(turn.done)
        for stage in entry.calls:
            if made < len(stage) or entry.repeat:
                return Reply([_call(c, found, turn) for c in stage[0 if entry.repeat else made :]], delay=entry.delay)
            made -= len(stage)
        return Reply(text=_filled(entry.answer, found, turn) or _last(turn), delay=entry.delay)
    return None


def _last(turn: Turn) -> str:
    return turn.done[-1].result if turn.done else ""


def _call(call: dict[str, Any], found: re.Match[str], turn: Turn) -> ScriptedCall:
    arguments: Any = call.get("arguments", {})
    if isinstance(arguments, str):
        return ScriptedCall(call["tool"], arguments)
    return ScriptedCall(call["tool"], json.dumps(_deep(arguments, found, turn)))


def _deep(value: Any, found: re.Match[str], turn: Turn) -> Any:
    if isinstance(value, dict):
        return {k: _deep(v, found, turn) for k, v in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_deep(v, found, turn) for v in cast(list[Any], value)]
    return _filled(value, found, turn) if isinstance(value, str) else value


def _filled(text: str, found: re.Match[str], turn: Turn) -> str:
    """The text with its holes filled; a hole that means nothing stays as written."""
    groups = {**{str(i): g or "" for i, g in enumerate(found.groups(), 1)}, "0": found.group()}
    groups |= {k: v or "" for k, v in found.groupdict().items()}

    def fill(hole: re.Match[str]) -> str:
        name, index = hole.group(1), hole.group(2)
        if name == "result" and index is None:
            return _last(turn)
        if name == "memory" and index is None:
            return turn.recalled
        if name == "results" and index is not None and int(index) < len(turn.done):
            return turn.done[int(index)].result
        return groups.get(name, hole.group())

    return _HOLE.sub(fill, text)
