"""Headers and bodies computed by expressions.

An expression that has no value for a request sets nothing: with ``set`` the header is then removed, so that nobody
can send what the gateway would have computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quarterdeck.cel.errors import EvalError
from quarterdeck.errors import ConfigError
from quarterdeck.snapshot.policies import Transform
from quarterdeck.wire.http import Header

from .admission import Admission
from .attributes import Lazy, Maker, body_value, headers_of, variables
from .expressions import Expression, as_bytes, as_text, compile_expression

_FRAMING = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"}
)
_PSEUDO = {":path", ":authority"}


class HeaderTransform:
    """One direction of a transformation, compiled."""

    def __init__(self, transform: Transform, where: str) -> None:
        """Raises ConfigError when an expression does not compile or a header may not be changed."""
        self._add = [(_name(name, where), compile_expression(source, where)) for name, source in transform.add]
        self._set = [(_name(name, where), compile_expression(source, where)) for name, source in transform.set]
        self._remove = {_name(name, where) for name in transform.remove}
        self.body = compile_expression(transform.body, f"{where}: body") if transform.body else None
        self.path = next((e for name, e in self._set if name == b":path"), None)
        self._dropped = self._remove | {name for name, _ in self._set} | ({b"host"} & {_plain(n) for n, _ in self._set})

    @property
    def expressions(self) -> list[Expression]:
        own = [e for _, e in self._add] + [e for _, e in self._set]
        return [*own, self.body] if self.body is not None else own

    @property
    def headers(self) -> bool:
        return bool(self._add or self._set or self._remove)

    def apply(self, values: Mapping[str, Any], headers: list[Header]) -> list[Header]:
        """The headers after it. ``values`` are the variables of the request (and response)."""
        result = [header for header in headers if header[0] not in self._dropped]
        result.extend(self.added(values))
        return result

    def added(self, values: Mapping[str, Any]) -> list[Header]:
        """What is added and set."""
        found: list[Header] = []
        for name, expression in (*self._set, *self._add):
            if name == b":path":
                continue
            value = text_of(expression, values)
            if value is not None:
                found.append((_plain(name), value))
        return found


def text_of(expression: Expression, values: Mapping[str, Any]) -> bytes | None:
    """The value as a header holds it; None when there is none, or it would break the framing."""
    try:
        value = as_text(expression.evaluate(values)).encode("utf-8")
    except EvalError:
        return None
    return None if any(c in value for c in b"\r\n\0") else value


def body_of(expression: Expression, values: Mapping[str, Any]) -> bytes | None:
    """The value as a body; None when there is none."""
    try:
        return as_bytes(expression.evaluate(values))
    except EvalError:
        return None


def with_response(admission: Admission, status: int, headers: list[Header], body: bytes | None) -> Mapping[str, Any]:
    """The variables of the request and, as ``response``, those of its answer."""
    values = variables(admission)
    makers: dict[str, Maker] = {
        "code": lambda a: status,
        "headers": lambda a: headers_of([(name.lower(), value) for name, value in headers]),
    }
    if body is not None:
        makers["body"] = lambda a: body_value(body)
    values["response"] = Lazy(makers, admission)
    return values


def _plain(name: bytes) -> bytes:
    return b"host" if name == b":authority" else name


def _name(name: str, where: str) -> bytes:
    lower = name.lower()
    if lower in _PSEUDO:
        return lower.encode()
    if (
        lower in _FRAMING
        or not lower
        or not all(c.isascii() and (c.isalnum() or c in "-_.!#$%&'*+^`|~") for c in lower)
    ):
        raise ConfigError(f"{where}: header {name!r} may not be changed by a transformation")
    return lower.encode()
