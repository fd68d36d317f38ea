"""Runs a parsed template on data; what a chart uses and this does not know is an error, never left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quarterdeck.errors import ConfigError

from .functions import FUNCTIONS, text, truth
from .syntax import Block, Group, Literal, Name, Node, Operand, Output, Pipeline, Text

_DEPTH = 100
"""Of ``include`` in ``include``, as a template may include itself."""


class TemplateError(ConfigError):
    """Says where in which template."""


class Templates:
    """The files of a chart together: any may include what another defines."""

    def __init__(self, defines: Mapping[str, list[Node]]) -> None:
        self._defines = defines

    def render(self, source: str, nodes: list[Node], data: Any, depth: int = 0) -> str:
        """Raises ConfigError naming file and line."""
        if depth > _DEPTH:
            raise ConfigError(f"{source}: includes go deeper than {_DEPTH}")
        out: list[str] = []
        _Run(self, source, data, depth, out).nodes(nodes, data, [{"": data}])
        return "".join(out)

    def include(self, name: str, data: Any, depth: int) -> str:
        nodes = self._defines.get(name)
        if nodes is None:
            raise ConfigError(f"no template {name!r} is defined")
        return self.render(name, nodes, data, depth + 1)


class _Run:
    def __init__(self, templates: Templates, source: str, root: Any, depth: int, out: list[str]) -> None:
        self._templates = templates
        self._source = source
        self._root = root
        self._depth = depth
        self._out = out

    def nodes(self, nodes: list[Node], dot: Any, scopes: list[dict[str, Any]]) -> None:
        scopes = [*scopes, {}]
        for node in nodes:
            if isinstance(node, Text):
                self._out.append(node.text)
                continue
            try:
                if isinstance(node, Output):
                    self._output(node, dot, scopes)
                else:
                    self._block(node, dot, scopes)
            except TemplateError:
                raise
            except (ConfigError, TypeError, ValueError, KeyError) as error:
                raise TemplateError(f"{self._source}: line {node.line}: {error}") from error

    def _output(self, node: Output, dot: Any, scopes: list[dict[str, Any]]) -> None:
        value = self._value(node.pipeline, dot, scopes)
        if not node.pipeline.declares:
            self._out.append(text(value))
        elif node.pipeline.assigns:
            self._scope_of(node.pipeline.declares[0], scopes)[node.pipeline.declares[0]] = value
        else:
            scopes[-1][node.pipeline.declares[0]] = value

    def _block(self, node: Block, dot: Any, scopes: list[dict[str, Any]]) -> None:
        value = self._value(node.pipeline, dot, scopes)
        names = node.pipeline.declares
        if not truth(value):
            self.nodes(node.otherwise, dot, scopes)
        elif node.keyword == "range":
            for key, item in _elements(value):
                given = (key, item) if len(names) > 1 else (item,)
                self.nodes(node.body, item, [*scopes, dict(zip(names, given, strict=False))])
        else:
            inner = value if node.keyword == "with" else dot
            self.nodes(node.body, inner, [*scopes, dict.fromkeys(names, value)])

    def _value(self, pipeline: Pipeline, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        value: Any = None
        for index, command in enumerate(pipeline.commands):
            value = self._command(command, dot, scopes, [value] if index else [])
        return value

    def _command(self, command: tuple[Operand, ...], dot: Any, scopes: list[dict[str, Any]], last: list[Any]) -> Any:
        first, *rest = command
        arguments = [self._operand(operand, dot, scopes) for operand in rest] + last
        if not isinstance(first, Name):
            value = self._operand(first, dot, scopes)
            if callable(value):
                return value(*arguments)
            if arguments:
                raise ConfigError("only a function takes arguments")
            return value
        if first.name == "include":
            name, data = arguments
            return self._templates.include(name, data, self._depth)
        if first.name not in FUNCTIONS:
            raise ConfigError(f"function {first.name!r} is not known here")
        return FUNCTIONS[first.name](*arguments)

    def _operand(self, operand: Operand, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Name):
            return self._command((operand,), dot, scopes, [])
        if isinstance(operand, Group):
            return _fields(self._value(operand.pipeline, dot, scopes), operand.fields)
        start = dot if operand.name == "." else self._scope_of(operand.name, scopes)[operand.name]
        return _fields(start, operand.fields)

    def _scope_of(self, name: str, scopes: list[dict[str, Any]]) -> dict[str, Any]:
        for scope in reversed(scopes):
            if name in scope:
                return scope
        raise ConfigError(f"variable ${name} is not set")


def _fields(value: Any, names: tuple[str, ...]) -> Any:
    """Members of maps; one that a map lacks is nil, and nil has no members."""
    for name in names:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name!r} is asked of {text(value) or 'nil'!r}, which has no fields")
        value = value.get(name)
    return value


def _elements(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return sorted(value.items())
    return list(enumerate(value))
