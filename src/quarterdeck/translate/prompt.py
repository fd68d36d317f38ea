"""Prompt templates: the part of Go's text/template that prompts use, with ``include "alias/key"``.

Actions: values and pipelines, comments, trim markers, ``if``/``else if``/``else``, ``with``, ``range`` (``$i, $x :=``),
``break``, ``continue`` and variables. Included text is not a template itself. See :mod:`.prompt_values` for functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.errors import ConfigError

from .prompt_values import LARGEST, Scope, evaluate, shown, truth

_ACTION = re.compile(
    r"\{\{(-(?=\s))?\s*+(/\*.*?\*/\s*|(?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|[^\"`])*?)((?<=\s)-)?\}\}", re.DOTALL
)
"""No character can be matched in two ways: else a row of blanks would take longer than anybody waits."""
_ASSIGNED = re.compile(r"(\$\w+)(?:\s*,\s*(\$\w+))?\s*:?=\s*(.+)", re.DOTALL)
_MOST = 100_000
_BLOCKS = ("if", "with", "range")
_DEEPEST = 50


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


@dataclass(slots=True)
class _Text:
    text: str


@dataclass(slots=True)
class _Value:
    expression: str


@dataclass(slots=True)
class _Block:
    """``if``, ``with`` or ``range``; ``otherwise`` is what ``else`` leads to."""

    word: str
    expression: str
    body: list[_Node] = field(default_factory=list["_Node"])
    otherwise: list[_Node] = field(default_factory=list["_Node"])


_Node = _Text | _Value | _Block


@dataclass(slots=True)
class _Out:
    """What was written so far, bounded in characters and in steps."""

    pieces: list[str] = field(default_factory=list[str])
    size: int = 0

    def add(self, text: str) -> None:
        self.size += len(text)
        self.pieces.append(text)
        if self.size > LARGEST or len(self.pieces) > _MOST:
            raise ConfigError(f"promptTemplate: the prompt has more than {LARGEST} characters, or takes too many steps")


class _Leave(Exception):
    """``break``, or ``continue``."""

    def __init__(self, *, on: bool) -> None:
        super().__init__()
        self.on = on


def render(template: str, sources: Mapping[str, Mapping[str, str]], context: PromptContext) -> str:
    """Fill ``template``; ``sources`` is alias → key → text. Raises ConfigError naming what exists instead."""
    tokens = _tokens(template)
    nodes, rest = _parse(tokens, 0, 0)
    if rest != len(tokens):
        raise ConfigError(
            f"promptTemplate: {{{{{tokens[rest][1]}}}}} without {{{{if}}}}, {{{{with}}}} or {{{{range}}}}"
        )
    out = _Out()
    try:
        _write(nodes, Scope(context.fields(), sources), out)
    except _Leave:
        raise ConfigError("promptTemplate: {{break}} or {{continue}} outside of {{range}}") from None
    return "".join(out.pieces)


Token = tuple[bool, str]
"""(is an action, text)"""


def _tokens(template: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    trim = False
    while (at := template.find("{{", position)) >= 0:
        match = _ACTION.match(template, at)
        if match is None:
            raise ConfigError(f"promptTemplate: unclosed action near {template[at : at + 40]!r}")
        before = template[position:at]
        before = before.lstrip() if trim else before
        tokens.append((False, before.rstrip() if match[1] else before))
        if not match[2].startswith("/*"):
            tokens.append((True, match[2].strip()))
        trim, position = bool(match[3]), match.end()
    tail = template[position:]
    tokens.append((False, tail.lstrip() if trim else tail))
    return tokens


def _parse(tokens: list[Token], at: int, depth: int) -> tuple[list[_Node], int]:
    """What comes up to the ``end`` or ``else`` of the enclosing block, and the position of that."""
    if depth > _DEEPEST:
        raise ConfigError(f"promptTemplate: blocks are nested deeper than {_DEEPEST}")
    nodes: list[_Node] = []
    while at < len(tokens):
        action, text = tokens[at]
        word, _, rest = text.partition(" ") if action else ("", "", "")
        if not action:
            nodes.append(_Text(text))
        elif word in ("end", "else"):
            break
        elif word in _BLOCKS:
            block, at = _block(tokens, at, word, rest.strip(), depth)
            nodes.append(block)
        else:
            nodes.append(_Value(text))
        at += 1
    return nodes, at


def _block(tokens: list[Token], start: int, word: str, expression: str, depth: int) -> tuple[_Block, int]:
    """One block with what its ``else`` leads to, and the position of its ``end``."""
    block = _Block(word, expression)
    block.body, at = _parse(tokens, start + 1, depth + 1)
    if at < len(tokens) and tokens[at][1].startswith("else"):
        following = tokens[at][1][4:].strip()
        chained = following.partition(" ")[0]
        if chained in ("if", "with"):
            inner, at = _block(tokens, at, chained, following[len(chained) :].strip(), depth + 1)
            block.otherwise = [inner]
            return block, at
        if following:
            raise ConfigError(f"promptTemplate: {{{{else {following}}}}} is not known; use else, else if or else with")
        block.otherwise, at = _parse(tokens, at + 1, depth + 1)
    if at >= len(tokens) or tokens[at][1] != "end":
        raise ConfigError(f"promptTemplate: {{{{{word}}}}} has no {{{{end}}}}")
    return block, at


def _write(nodes: Sequence[_Node], scope: Scope, out: _Out) -> None:
    for node in nodes:
        if isinstance(node, _Text):
            out.add(node.text)
        elif isinstance(node, _Value):
            _value(node.expression, scope, out)
        else:
            _blocked(node, scope, out)


def _value(expression: str, scope: Scope, out: _Out) -> None:
    if expression in ("break", "continue"):
        raise _Leave(on=expression == "continue")
    assigned = _ASSIGNED.fullmatch(expression)
    if assigned is None:
        out.add(shown(evaluate(expression, scope)))
    elif assigned[2]:
        raise ConfigError(f"promptTemplate: {{{{{expression}}}}}: two variables are for range only")
    else:
        scope.assign(assigned[1], evaluate(assigned[3], scope), new=":=" in expression)


def _blocked(block: _Block, scope: Scope, out: _Out) -> None:
    names, expression = ("", ""), block.expression
    assigned = _ASSIGNED.fullmatch(expression)
    if assigned is not None:
        names, expression = (assigned[1], assigned[2] or ""), assigned[3]
    value = evaluate(expression, scope)
    if not truth(value):
        _write(block.otherwise, scope.inner(), out)
        return
    if block.word != "range":
        inner = scope.inner(value) if block.word == "with" else scope.inner()
        if names[0]:
            inner.assign(names[0], value, new=True)
        _write(block.body, inner, out)
        return
    if not isinstance(value, list):
        raise ConfigError(f"promptTemplate: {{{{range {expression}}}}}: is no list")
    items: list[Any] = value
    for number, item in enumerate(items):
        inner = scope.inner(item)
        for name, given in zip(names, (number, item) if names[1] else (item,), strict=False):
            if name:
                inner.assign(name, given, new=True)
        out.add("")  # a step, also where nothing is written
        try:
            _write(block.body, inner, out)
        except _Leave as leave:
            if not leave.on:
                break
