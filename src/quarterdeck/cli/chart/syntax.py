"""Go's text/template as far as our charts use it: text and actions to a tree. Anything else is an error with its place.

Syntax: https://pkg.go.dev/text/template. Known: pipelines, fields, variables, literals, parentheses, ``if``, ``with``,
``range``, ``define``, comments and ``{{-``/``-}}`` trimming.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.errors import ConfigError

_ACTION = re.compile(r"\{\{(-(?=\s))?\s*(/\*.*?\*/|.*?)\s*((?<=\s)-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<variable>\$\w*)|(?P<field>(?:\.\w+)+)"""
    r"""|(?P<dot>\.)|(?P<name>\w+)|(?P<mark>:=|=|\||\(|\)|,))"""
)


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any


@dataclass(frozen=True, slots=True)
class Variable:
    """``$name``, ``$`` as the empty name, or the dot as ``.``; then fields."""

    name: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Name:
    """A function."""

    name: str


@dataclass(frozen=True, slots=True)
class Group:
    """A pipeline in parentheses; then fields."""

    pipeline: Pipeline
    fields: tuple[str, ...] = ()


Operand = Literal | Variable | Name | Group


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each a list of operands; the value of one is the last argument of the next."""

    commands: tuple[tuple[Operand, ...], ...]
    declares: tuple[str, ...] = ()
    """Variables set by ``:=`` (two in a range: key and value)."""
    assigns: bool = False
    """``=`` instead of ``:=``."""


@dataclass(slots=True)
class Text:
    text: str


@dataclass(slots=True)
class Output:
    pipeline: Pipeline
    line: int


@dataclass(slots=True)
class Block:
    """``if``, ``with`` or ``range``: ``body`` when the pipeline is true (each element), else ``otherwise``."""

    keyword: str
    pipeline: Pipeline
    line: int
    body: list[Node] = field(default_factory=lambda: list[Node]())
    otherwise: list[Node] = field(default_factory=lambda: list[Node]())


Node = Text | Output | Block


@dataclass(slots=True)
class _Action:
    line: int
    content: str


def parse(source: str, text: str) -> tuple[list[Node], dict[str, list[Node]]]:
    """The nodes of a template file and those of each ``define`` in it. Raises ConfigError naming file and line."""
    return _Parser(source, text).file()


class _Parser:
    def __init__(self, source: str, text: str) -> None:
        self._source = source
        self._parts = list(_split(text))
        self._at = 0
        self._defines: dict[str, list[Node]] = {}

    def file(self) -> tuple[list[Node], dict[str, list[Node]]]:
        nodes, closing = self._nodes()
        if closing is not None:
            raise self._error(closing.line, f"{closing.content!r} closes nothing")
        return nodes, self._defines

    def _nodes(self) -> tuple[list[Node], _Action | None]:
        """Up to the end of the text or an action that closes a block, which is returned."""
        found: list[Node] = []
        while self._at < len(self._parts):
            part = self._parts[self._at]
            self._at += 1
            if isinstance(part, str):
                found.append(Text(part))
                continue
            keyword = part.content.split(None, 1)[0] if part.content else ""
            if keyword in ("end", "else"):
                return found, part
            if keyword == "define":
                self._define(part)
            elif keyword in ("if", "with", "range"):
                found.append(self._block(part, keyword, part.content[len(keyword) :]))
            elif part.content:
                found.append(Output(self._pipeline(part.content, part.line), part.line))
        return found, None

    def _define(self, action: _Action) -> None:
        name = ast.literal_eval(action.content.removeprefix("define").strip())
        nodes, closing = self._nodes()
        if closing is None or closing.content != "end":
            raise self._error(action.line, f"define {name!r} has no end")
        self._defines[name] = nodes

    def _block(self, action: _Action, keyword: str, pipeline: str) -> Block:
        block = Block(keyword, self._pipeline(pipeline, action.line), action.line)
        block.body, closing = self._nodes()
        if closing is not None and closing.content.startswith("else"):
            rest = closing.content.removeprefix("else").strip()
            if rest:
                inner, _, condition = rest.partition(" ")
                block.otherwise = [self._block(_Action(closing.line, rest), inner, condition)]
                return block
            block.otherwise, closing = self._nodes()
        if closing is None or closing.content != "end":
            raise self._error(action.line, f"{keyword} has no end")
        return block

    def _pipeline(self, content: str, line: int) -> Pipeline:
        tokens = self._tokens(content, line)
        pipeline = _Tokens(tokens, lambda problem: self._error(line, f"{problem} in {content.strip()!r}")).whole()
        return pipeline

    def _tokens(self, content: str, line: int) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        position, content = 0, content.rstrip()
        while position < len(content):
            found = _TOKEN.match(content, position)
            if found is None or found.lastgroup is None:
                raise self._error(line, f"cannot read {content[position:]!r}")
            # ".a" right after ")" or "$x" is a field of it; after a space it is a field of the dot.
            kind, text = found.lastgroup, found.group(found.lastgroup)
            if (
                kind == "field"
                and found.start("field") == position
                and tokens
                and tokens[-1][0] in ("variable", "mark")
            ):
                kind = "member" if tokens[-1][0] == "variable" or tokens[-1][1] == ")" else kind
            tokens.append((kind, text))
            position = found.end()
        return tokens

    def _error(self, line: int, problem: str) -> ConfigError:
        return ConfigError(f"{self._source}: line {line}: {problem}")


class _Tokens:
    """Recursive descent over the tokens of one action."""

    def __init__(self, tokens: list[tuple[str, str]], error: Any) -> None:
        self._tokens = tokens
        self._error = error
        self._at = 0

    def whole(self) -> Pipeline:
        declares, assigns = self._declarations()
        pipeline = self._commands()
        if self._at < len(self._tokens):
            raise self._error(f"unexpected {self._tokens[self._at][1]!r}")
        return Pipeline(pipeline.commands, declares, assigns)

    def _declarations(self) -> tuple[tuple[str, ...], bool]:
        names: list[str] = []
        for index in range(0, len(self._tokens) - 1, 2):
            (kind, text), (_, mark) = self._tokens[index : index + 2]
            if kind != "variable" or mark not in (":=", "=", ","):
                break
            names.append(text[1:])
            if mark != ",":
                self._at = index + 2
                return tuple(names), mark == "="
        return (), False

    def _commands(self) -> Pipeline:
        commands = [self._command()]
        while self._peek() == "|":
            self._at += 1
            commands.append(self._command())
        return Pipeline(tuple(commands))

    def _command(self) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while self._peek() not in ("", "|", ")"):
            operands.append(self._operand())
        if not operands:
            raise self._error("a value is missing")
        return tuple(operands)

    def _operand(self) -> Operand:
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "text":
            return Literal(text[1:-1] if text.startswith("`") else ast.literal_eval(text))
        if kind == "number":
            return Literal(float(text) if "." in text else int(text))
        if kind == "field":
            return Variable(".", tuple(text[1:].split(".")))
        if kind == "dot":
            return Variable(".")
        if kind == "variable":
            return Variable(text[1:], self._members())
        if kind == "name":
            return {"true": Literal(True), "false": Literal(False), "nil": Literal(None)}.get(text) or Name(text)
        if text == "(":
            pipeline = self._commands()
            if self._peek() != ")":
                raise self._error("a parenthesis is not closed")
            self._at += 1
            return Group(pipeline, self._members())
        raise self._error(f"unexpected {text!r}")

    def _members(self) -> tuple[str, ...]:
        if self._at < len(self._tokens) and self._tokens[self._at][0] == "member":
            self._at += 1
            return tuple(self._tokens[self._at - 1][1][1:].split("."))
        return ()

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""


def _split(text: str) -> Iterator[str | _Action]:
    """Text and actions in turn, white space trimmed where ``-`` says so; comments are dropped."""
    position, trim = 0, False
    for found in _ACTION.finditer(text):
        before = text[position : found.start()]
        before = before.lstrip() if trim else before
        yield before.rstrip() if found[1] else before
        content = found[2].strip()
        if not content.startswith("/*"):
            yield _Action(text.count("\n", 0, found.start()) + 1, content)
        position, trim = found.end(), bool(found[3])
    rest = text[position:]
    yield rest.lstrip() if trim else rest
