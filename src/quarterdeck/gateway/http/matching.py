"""Which route a request takes, by Gateway API's rules of precedence, compiled into dictionaries.

More specific host names first (exact, then longer wildcards, then none). Among the routes of one name: exact path,
longest prefix, regular expression; then method, number of headers, number of query parameters; then ``order``. When
nothing of a more specific name matches, the next one is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from urllib.parse import parse_qsl

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot.routing import Match, Route, TextMatch
from quarterdeck.wire.http import Exchange
from quarterdeck.wire.seen import VARYING

from .paths import Path

_MAX_QUERY = 1000
"""Parameters of a query that are looked at."""

R = TypeVar("R", bound="Compiled")


class Compiled(Protocol):
    """A route made ready to serve."""

    @property
    def route(self) -> Route: ...


@dataclass(frozen=True, slots=True)
class Found(Generic[R]):
    """A route, and how many characters of the path its prefix took (0: not matched by a prefix)."""

    route: R
    prefix: int


class _Wanted:
    """What of one request the conditions look at; the query is parsed when a condition first asks for it."""

    __slots__ = ("_query", "_raw_query", "exchange", "headers", "repeated")

    def __init__(self, exchange: Exchange, headers: Mapping[bytes, bytes], query: bytes) -> None:
        self.exchange = exchange
        self.headers = headers
        self.repeated = len(headers) != len(exchange.headers)
        self._raw_query = query
        self._query: dict[str, str] | None = None

    def header(self, name: bytes) -> str | None:
        """All values of a header as one (RFC 9110 §5.3)."""
        if self.repeated:
            values = [value for key, value in self.exchange.headers if key == name]
            return b",".join(values).decode("latin-1") if values else None
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None

    def query(self, name: str) -> str | None:
        """The first value of a query parameter."""
        if self._query is None:
            found: dict[str, str] = {}
            try:
                pairs = parse_qsl(self._raw_query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_QUERY)
            except ValueError:
                pairs = []
            for key, value in pairs:
                found.setdefault(key, value)
            self._query = found
        return self._query.get(name)


_Condition = Callable[[_Wanted], bool]
_Given = Callable[[_Wanted], str | None]


class _Rule(Generic[R]):
    """One match of one route, without its path."""

    __slots__ = ("conditions", "found", "method", "rank")

    def __init__(self, route: R, match: Match, prefix: int, where: str) -> None:
        self.found = Found(route, prefix)
        self.method = match.method.upper()
        self.conditions: tuple[_Condition, ...] = (
            *(_condition(test, where, _header(test.name)) for test in match.headers),
            *(_condition(test, where, _parameter(test.name)) for test in match.query),
        )
        self.rank = (not self.method, -len(match.headers), -len(match.query), route.route.order)

    def holds(self, method: str, wanted: _Wanted | None) -> bool:
        """``wanted`` may be left out when no rule has conditions."""
        if self.method and self.method != method:
            return False
        return wanted is None or all([condition(wanted) for condition in self.conditions])


class _Paths(Generic[R]):
    """The rules of one host name, by path."""

    def __init__(self) -> None:
        self._exact: dict[str, list[_Rule[R]]] = {}
        self._prefixes: dict[str, list[_Rule[R]]] = {}
        self._regexes: list[tuple[int, Callable[[str], bool], _Rule[R]]] = []
        self._lengths: tuple[int, ...] = ()

    def add(self, route: R, match: Match, where: str) -> None:
        value = match.path.value
        if match.path.kind == "exact":
            _insert(self._exact.setdefault(value, []), _Rule(route, match, 0, where))
        elif match.path.kind == "prefix":
            value = value.rstrip("/")
            _insert(self._prefixes.setdefault(value, []), _Rule(route, match, len(value), where))
            self._lengths = tuple(sorted({*self._lengths, len(value)}, reverse=True))
        else:
            rule = _Rule(route, match, 0, where)
            self._regexes.append((-len(value), whole(value, where), rule))
            self._regexes.sort(key=lambda entry: (entry[0], entry[2].rank))

    def find(self, text: str, method: str, wanted: _Wanted | None) -> Found[R] | None:
        rules = self._exact.get(text)
        if rules is not None:
            for rule in rules:
                if rule.holds(method, wanted):
                    return rule.found
        size = len(text)
        for length in self._lengths:
            if length > size or (length < size and text[length] != "/"):
                continue
            for rule in self._prefixes.get(text[:length], ()):
                if rule.holds(method, wanted):
                    return rule.found
        for _, matches, rule in self._regexes:
            if matches(text) and rule.holds(method, wanted):
                return rule.found
        return None


class RouteTable(Generic[R]):
    """The routes of one listener. ``hostname`` is the listener's own: what it does not cover is never asked for."""

    def __init__(self, routes: Iterable[R]) -> None:
        """Raises ConfigError that names the route and the part of it that cannot be used."""
        self._names: dict[str, _Paths[R]] = {}
        self._conditional = False
        self.by_head = True
        """Whether all requests with the same head take the same route."""
        for route in routes:
            for hostname in route.route.hostnames or ("",):
                paths = self._names.setdefault(hostname.lower(), _Paths())
                for match in route.route.matches:
                    paths.add(route, match, f"route {route.route.name}")
                    self._conditional = self._conditional or bool(match.headers or match.query)
                    if any(test.name.lower().encode("latin-1") in VARYING for test in match.headers):
                        self.by_head = False
        self._sole = self._names[""] if list(self._names) == [""] else None
        """The rules, when no route names a host."""

    def find(self, host: str, path: Path, exchange: Exchange, headers: Mapping[bytes, bytes]) -> Found[R] | None:
        """The route of a request. ``host``: lower case, without port. ``headers``: by lower-case name, last value."""
        wanted = _Wanted(exchange, headers, path.query) if self._conditional else None
        text, method = path.text, exchange.method
        if self._sole is not None:
            return self._sole.find(text, method, wanted)
        names = self._names
        if host:
            paths = names.get(host)
            found = paths.find(text, method, wanted) if paths is not None else None
            rest = host
            while found is None and "." in rest:
                rest = rest.partition(".")[2]
                paths = names.get("*." + rest)
                found = paths.find(text, method, wanted) if paths is not None else None
            if found is not None:
                return found
        paths = names.get("")
        return paths.find(text, method, wanted) if paths is not None else None


def whole(pattern: str, where: str) -> Callable[[str], bool]:
    """A predicate: does the RE2 expression match all of a text? Linear in time. Raises ConfigError naming ``where``."""
    from quarterdeck.cel.errors import EvalError  # loaded only where a regular expression is used
    from quarterdeck.cel.regex import compile_match

    try:
        return compile_match(f"^(?:{pattern})$")
    except EvalError as error:
        raise ConfigError(f"{where}: {error}") from error


def _insert(rules: list[_Rule[R]], rule: _Rule[R]) -> None:
    rules.append(rule)
    rules.sort(key=lambda entry: entry.rank)


def _header(name: str) -> _Given:
    key = name.lower().encode("latin-1")
    return lambda wanted: wanted.header(key)


def _parameter(name: str) -> _Given:
    return lambda wanted: wanted.query(name)


def _condition(test: TextMatch, where: str, given: _Given) -> _Condition:
    """``given``: the text that the test is about."""
    value = test.value
    if not test.regex:
        return lambda wanted: given(wanted) == value
    matches = whole(value, where)

    def condition(wanted: _Wanted) -> bool:
        text = given(wanted)
        return text is not None and matches(text)

    return condition
