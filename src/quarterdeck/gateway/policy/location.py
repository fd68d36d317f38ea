"""Where a credential is in a request, and how it is taken out before the request goes on."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from quarterdeck.cel.errors import EvalError
from quarterdeck.snapshot.policies import Location
from quarterdeck.wire.http import Header
from quarterdeck.wire.seen import VARYING

from .admission import Admission

LONGEST = 16 * 1024
"""Bytes of a credential; longer ones are not looked at."""


class Place:
    """A :class:`Location` compiled."""

    def __init__(self, location: Location, where: str) -> None:
        """Raises ConfigError when the expression does not compile."""
        self.kind = location.kind
        self.name = location.name.lower() if location.kind == "header" else location.name
        self.header = self.name.encode("latin-1", "replace") if location.kind == "header" else b""
        self._prefix = location.prefix.lower().encode() if location.kind == "header" else b""
        self._expression: Any = None
        if location.kind == "expression":
            from .expressions import compile_expression

            self._expression = compile_expression(location.name, f"{where}: location")

    @property
    def by_head(self) -> bool:
        """Whether requests with the same head have the same credential."""
        return self.kind != "expression" and self.header not in VARYING

    def find(self, admission: Admission) -> bytes | None:
        """The credential without its prefix; None when there is none of this kind."""
        if self.header:
            value = admission.headers.get(self.header)
            if value is None or not self._prefix:
                return value
            at = len(self._prefix)
            return value[at:].strip() or None if value[:at].lower() == self._prefix else None
        if self.kind == "query":
            return _encoded(_last(_pairs(admission.exchange.target), self.name))
        if self.kind == "cookie":
            return _encoded(_last(_cookies(admission.headers.get(b"cookie", b"")), self.name))
        return self._computed(admission)

    def repeated(self, admission: Admission) -> bool:
        """Whether it is there more than once, so that we and a backend could take different ones."""
        if self.header:
            return sum(name == self.header for name, _ in admission.exchange.headers) > 1
        if self.kind == "query":
            return sum(name == self.name for name, _ in _pairs(admission.exchange.target)) > 1
        if self.kind == "cookie":
            return sum(name == self.name for name, _ in _cookies(admission.headers.get(b"cookie", b""))) > 1
        return False

    def _computed(self, admission: Admission) -> bytes | None:
        from .attributes import variables

        try:
            value = self._expression.evaluate(variables(admission))
        except EvalError:
            return None
        return value.encode() if isinstance(value, str) and value else None


def _encoded(value: str | None) -> bytes | None:
    return value.encode("utf-8", "surrogateescape") if value else None


def _last(pairs: list[tuple[str, str]], name: str) -> str | None:
    return next((value for key, value in reversed(pairs) if key == name), None)


def _pairs(target: bytes) -> list[tuple[str, str]]:
    return parse_qsl(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)


def _cookies(header: bytes) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for part in header.decode("latin-1").split(";"):
        name, mark, value = part.strip().partition("=")
        if mark:
            found.append((name, value.strip('"')))
    return found


def without_parameters(target: bytes, names: frozenset[str]) -> bytes:
    """A request target without some query parameters; the others stay byte for byte."""
    path, mark, query = target.partition(b"?")
    if not mark:
        return target
    kept = [p for p in query.split(b"&") if unquote_plus(p.partition(b"=")[0].decode("latin-1")) not in names]
    return path + b"?" + b"&".join(kept) if kept else path


def without_cookies(headers: list[Header], names: frozenset[str]) -> list[Header]:
    """Headers without some cookies."""
    result: list[Header] = []
    for name, value in headers:
        if name != b"cookie":
            result.append((name, value))
            continue
        kept = [p for p in value.split(b";") if p.strip().partition(b"=")[0].decode("latin-1") not in names]
        if kept:
            result.append((name, b";".join(kept).strip()))
    return result
