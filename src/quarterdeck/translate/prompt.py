"""Prompt templates: the part of Go's text/template that prompts use.

Actions: ``{{include "alias/key"}}``, fields ``{{.AgentName}}``, strings, ``{{/* comments */}}``, trim markers,
``{{if}}/{{else}}/{{end}}`` and ``{{range .ToolNames}}{{.}}{{end}}``. Included text is not a template itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.errors import ConfigError

_ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_INCLUDE = re.compile(r'include\s+"([^"]*)"')


@dataclass(frozen=True, slots=True)
class PromptContext:
    """What a template can name."""

    agent_name: str
    agent_namespace: str
    description: str = ""
    tool_names: Sequence[str] = ()
    skill_names: Sequence[str] = ()

    def fields(self) -> dict[str, Any]:
        return {
            "AgentName": self.agent_name,
            "AgentNamespace": self.agent_namespace,
            "Description": self.description,
            "ToolNames": list(self.tool_names),
            "SkillNames": list(self.skill_names),
        }


def render(template: str, sources: Mapping[str, Mapping[str, str]], context: PromptContext) -> str:
    """Fill ``template``; ``sources`` is alias → key → text. Raises ConfigError naming what exists instead."""
    tokens = _tokens(template)
    text, rest = _render(tokens, 0, sources, context.fields(), None)
    if rest != len(tokens):
        raise ConfigError("promptTemplate: {{end}} or {{else}} without {{if}} or {{range}}")
    return text


Token = tuple[bool, str]
"""(is an action, text)"""


def _tokens(template: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    trim_next = False
    for match in _ACTION.finditer(template):
        before = template[position : match.start()]
        before = before.lstrip() if trim_next else before
        before = before.rstrip() if match[1] else before
        tokens.append((False, before))
        if not match[2].startswith("/*"):
            tokens.append((True, match[2]))
        trim_next, position = bool(match[3]), match.end()
    tail = template[position:]
    if "{{" in tail:
        raise ConfigError(f"promptTemplate: unclosed action near {tail[tail.index('{{') :][:40]!r}")
    tokens.append((False, tail.lstrip() if trim_next else tail))
    return tokens


def _render(
    tokens: list[Token], at: int, sources: Mapping[str, Mapping[str, str]], fields: dict[str, Any], dot: Any
) -> tuple[str, int]:
    """Text up to an ``end`` or ``else`` of the enclosing block, and the position of that token."""
    out: list[str] = []
    while at < len(tokens):
        action, text = tokens[at]
        word = text.split(None, 1)[0] if text.split() else ""
        if not action:
            out.append(text)
        elif word in ("end", "else"):
            return "".join(out), at
        elif word in ("if", "range"):
            value = _value(text[len(word) :].strip(), sources, fields, dot)
            rendered, at = _block(tokens, at + 1, word, value, sources, fields, dot)
            out.append(rendered)
        else:
            out.append(_text(_value(text, sources, fields, dot)))
        at += 1
    return "".join(out), at


def _block(
    tokens: list[Token],
    start: int,
    word: str,
    value: Any,
    sources: Mapping[str, Mapping[str, str]],
    fields: dict[str, Any],
    dot: Any,
) -> tuple[str, int]:
    """One if or range with its optional else; gives its text and the position of its ``end``."""
    items: list[Any] = value if word == "range" and isinstance(value, list) else [dot]
    body, at = _render(tokens, start, sources, fields, items[0] if items else None)
    if value:
        body = "".join(_render(tokens, start, sources, fields, item)[0] for item in items)
    otherwise = ""
    if at < len(tokens) and tokens[at][1] == "else":
        otherwise, at = _render(tokens, at + 1, sources, fields, dot)
    if at >= len(tokens) or tokens[at][1] != "end":
        raise ConfigError(f"promptTemplate: {{{{{word}}}}} has no {{{{end}}}}")
    return (body if value else otherwise), at


def _value(expression: str, sources: Mapping[str, Mapping[str, str]], fields: dict[str, Any], dot: Any) -> Any:
    if expression == ".":
        return dot
    include = _INCLUDE.fullmatch(expression)
    if include:
        return _include(include[1], sources)
    if expression.startswith('"') and expression.endswith('"'):
        return expression[1:-1]
    name = expression.removeprefix("$").removeprefix(".")
    if expression.startswith((".", "$.")) and name in fields:
        return fields[name]
    known = ", ".join(f".{field}" for field in fields)
    raise ConfigError(f'promptTemplate: {{{{{expression}}}}} is not known; use include "alias/key" or one of {known}')


def _include(path: str, sources: Mapping[str, Mapping[str, str]]) -> str:
    alias, _, key = path.partition("/")
    found = sources.get(alias, {}).get(key)
    if found is None:
        available = ", ".join(sorted(f"{a}/{k}" for a, keys in sources.items() for k in keys)) or "none"
        raise ConfigError(f'promptTemplate: include "{path}" not found; available: {available}')
    return found


def _text(value: Any) -> str:
    return "[" + " ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)
