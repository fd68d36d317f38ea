"""Expressions of the configuration, compiled: what they read is known before the first request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from quarterdeck import cel
from quarterdeck.cel.agentgateway import LIBRARY, Secret, plain
from quarterdeck.cel.syntax import Call, Ident, Literal, Node, Select
from quarterdeck.errors import ConfigError

from . import attributes

_LIMITS = cel.Limits(steps=100_000)
_BODY = frozenset({"body", "bodyPrefix"})
_IMPURE = ("random", "uuid")
_BY_HEAD = frozenset({"jwt", "apiKey", "basicAuth", "mcp", "proxy", "env"})
_OF_HEAD = frozenset({"method", "host", "path", "pathAndQuery", "version"})

EXPOSED = "exposedName"
"""Field beside ``name``: what clients call the tool."""


@dataclass(frozen=True, slots=True)
class Expression:
    """``evaluate(variables)`` gives the value or raises EvalError."""

    source: str
    evaluate: Callable[[Mapping[str, Any]], Any]
    references: frozenset[tuple[str, ...]]

    @property
    def reads_body(self) -> bool:
        """Whether the request's body must be complete before it can be evaluated."""
        return self._reads_body("request")

    @property
    def reads_response_body(self) -> bool:
        return self._reads_body("response")

    @property
    def reads_token(self) -> bool:
        return any(not path or path == ("jwt",) or path[:2] == ("jwt", "rawToken") for path in self.references)

    @property
    def by_head(self) -> bool:
        """Whether it gives the same for all calls of one name whose requests have the same head, on one route.

        Headers are no part of that: some are others in every request (``wire.seen.VARYING``).
        """
        if any(impure in self.source for impure in _IMPURE):
            return False
        return all(
            path[:1] and (path[0] in _BY_HEAD or (path[0] == "request" and path[1:2] and path[1] in _OF_HEAD))
            for path in self.references
        )

    def _reads_body(self, root: str) -> bool:
        # request.headers["x"] is known as ("request", "headers"): a bare ("request",) means all of it
        return any(not path or (path[0] == root and (len(path) == 1 or path[1] in _BODY)) for path in self.references)


def compile_expression(source: str, where: str, rewrite: Callable[[Node], Node] | None = None) -> Expression:
    """Raises ConfigError naming ``where``, the expression and what is wrong with it."""
    try:
        program = cel.compile(source, limits=_LIMITS, library=LIBRARY, rewrite=rewrite)
    except cel.CompileError as error:
        raise ConfigError(f"{where}: {error} (character {error.position} of {source!r})") from error
    for reference in sorted(program.references):
        problem = attributes.unknown(reference)
        if problem:
            raise ConfigError(f"{where}: {problem} (in {source!r})")
    return Expression(source, program.evaluate, program.references)


def as_text(value: Any) -> str:
    """A value as a header holds it: strings as they are, other values as JSON. Raises EvalError for null."""
    if type(value) is str:
        return value
    if type(value) is Secret:
        return value.value
    if value is None:
        raise cel.EvalError("the expression gives null")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return as_json(value).decode()


def as_bytes(value: Any) -> bytes:
    """A value as a body: bytes and strings as they are, other values as JSON."""
    return value if isinstance(value, bytes) else as_text(value).encode()


def as_json(value: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(plain(value))


# -- names of tools
_COMPARED = frozenset({"_==_", "_in_"})
_TESTED = frozenset({"startsWith", "endsWith", "contains", "matches"})


def on_either_name(tree: Node) -> Node:
    """Allow and require: a literal that ``mcp.tool.name`` is compared with may be the exposed name, too."""
    return _either(tree, tests=False)


def on_any_test_of_either(tree: Node) -> Node:
    """Deny: every test of ``mcp.tool.name`` holds when it holds for one of the two names."""
    return _either(tree, tests=True)


def _is_name(node: Any) -> bool:
    return (
        isinstance(node, Select)
        and node.field == "name"
        and isinstance(node.operand, Select)
        and node.operand.field in ("tool", "prompt", "resource", "task")
        and isinstance(node.operand.operand, Ident)
        and node.operand.operand.name == "mcp"
        and not node.test
        and not node.optional
    )


def _exposed(node: Any) -> Any:
    return replace(node, field=EXPOSED)


def _either(node: Any, *, tests: bool) -> Any:
    if isinstance(node, Call) and node.target is None and len(node.args) == 2:
        left, right = node.args
        plain_test = node.name in _COMPARED or node.name == "_!=_"
        if plain_test and _is_name(left) and (node.name == "_in_" or isinstance(right, Literal)):
            return _both(node, replace(node, args=[_exposed(left), right]))
        if plain_test and node.name != "_in_" and _is_name(right) and isinstance(left, Literal):
            return _both(node, replace(node, args=[left, _exposed(right)]))
    if tests and isinstance(node, Call) and node.name in _TESTED and _is_name(node.target):
        return _both(node, replace(node, target=_exposed(node.target)))
    if not hasattr(node, "pos"):
        return node
    changes: dict[str, Any] = {}
    for field in fields(node):
        value: Any = getattr(node, field.name)
        if isinstance(value, list):
            changes[field.name] = [
                tuple(_either(part, tests=tests) for part in item)
                if isinstance(item, tuple)
                else _either(item, tests=tests)
                for item in value
            ]
        elif hasattr(value, "pos"):
            changes[field.name] = _either(value, tests=tests)
    return replace(node, **changes) if changes else node


def _both(node: Call, other: Call) -> Call:
    return Call("_&&_" if node.name == "_!=_" else "_||_", None, [node, other], node.pos)
