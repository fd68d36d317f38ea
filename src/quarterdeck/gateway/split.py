"""Which backend of a route gets a request: conversations first, then matches, then weights.

1. A conversation that began on a backend stays there: its id says so (``snapshot.conversation``), or this process saw
   it begin. An id of ours with the tag of a backend that is gone belongs to the backend without a tag.
2. A request that meets a backend's ``matches`` goes there (A/B).
3. A conversation whose id says nothing lies at a point between 0 and 1 that is the same in every process. Backends
   share that line by weight, the first has its end: growing weights of the later ones move no conversation off them.
4. What belongs to no conversation is dealt out by weight, smoothly: 10 of 100 is one of every ten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quarterdeck.snapshot import Backend, Endpoint, Split, ValueMatch
from quarterdeck.snapshot.conversation import point, tag_of

KEPT = 50_000
"""Conversations remembered by one process, the latest ones."""
_VALUE_LIMIT = 4096  # characters of a header or claim that a match looks at
_Predicate = Callable[[Mapping[bytes, bytes], Mapping[str, Any]], bool]


class Conversations:
    """Where conversations began whose ids do not say so; of one process, and bounded."""

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._backends: OrderedDict[tuple[str, str], str] = OrderedDict()

    def get(self, route: str, conversation: str) -> str:
        """Name of the backend; empty when it is not known."""
        return self._backends.get((route, conversation), "")

    def keep(self, route: str, conversation: str, backend: str) -> None:
        self._backends[route, conversation] = backend
        if len(self._backends) > self._limit:
            self._backends.popitem(last=False)


class Splits:
    """The splitters of successive snapshots; conversations and turns outlive a snapshot."""

    def __init__(self) -> None:
        self._conversations = Conversations()
        self._splitters: dict[str, Splitter] = {}

    def compile(self, routes: Mapping[str, Split]) -> dict[str, Splitter]:
        """By route. Raises QuarterdeckError for a regular expression that is none."""
        made: dict[str, Splitter] = {}
        for route, split in routes.items():
            before = self._splitters.get(route)
            same = before is not None and before.split == split
            made[route] = before if before is not None and same else Splitter(split, route, self._conversations, before)
        self._splitters = made
        return made


class Destination:
    """A backend compiled; :meth:`endpoint` gives its addresses in turn."""

    __slots__ = ("_next", "backend", "current", "matches")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.matches: tuple[_Predicate, ...] = tuple(_all(conditions) for conditions in backend.matches)
        self.current = 0
        self._next = -1

    @property
    def name(self) -> str:
        return self.backend.name

    def endpoint(self) -> Endpoint | None:
        endpoints = self.backend.endpoints
        if not endpoints:
            return None
        self._next = (self._next + 1) % len(endpoints)
        return endpoints[self._next]


class Splitter:
    """Deals the requests of one route out. ``route`` names it; conversations of another route are others."""

    def __init__(self, split: Split, route: str, conversations: Conversations, before: Splitter | None = None) -> None:
        """``before``: the one this one takes the place of; whose turn it is goes on from there."""
        self.route = route
        self.split = split
        self._conversations = conversations
        self._all = [Destination(backend) for backend in split.backends]
        self._named = {destination.name: destination for destination in self._all}
        if before is not None:
            for destination in self._all:
                earlier = before._named.get(destination.name)
                destination.current = earlier.current if earlier is not None else 0
        self._tagged = {d.backend.tag: d for d in self._all if d.backend.tag}
        self._untagged = next((d for d in self._all if not d.backend.tag), self._all[0])

    def choose(
        self, headers: Mapping[bytes, bytes], claims: Mapping[str, Any], conversations: Sequence[str] = ()
    ) -> Destination:
        """The destination of a request. ``headers``: by lower-case name. ``conversations``: ids that tell where it
        belongs, the first one known decides."""
        sticky = self.split.sticky
        chosen = self._began(conversations) if sticky else None
        if chosen is None:
            chosen = self._matching(headers, claims)
        if chosen is None:
            chosen = self._at(point(conversations[0])) if sticky and conversations else self._deal()
        return chosen if chosen.backend.endpoints or self.split.strict else self._other(chosen)

    def began(self, conversation: str, destination: Destination) -> None:
        """Remember that a conversation is at home there."""
        if self.split.sticky and tag_of(conversation, self.route) is None:
            self._conversations.keep(self.route, conversation, destination.name)

    def _began(self, conversations: Sequence[str]) -> Destination | None:
        for conversation in conversations:
            tag = tag_of(conversation, self.route)
            if tag is not None:
                return self._tagged.get(tag, self._untagged)
            known = self._named.get(self._conversations.get(self.route, conversation))
            if known is not None:
                return known
        return None

    def _matching(self, headers: Mapping[bytes, bytes], claims: Mapping[str, Any]) -> Destination | None:
        for destination in self._all:
            for matches in destination.matches:
                if matches(headers, claims):
                    return destination
        return None

    def _at(self, where: float) -> Destination:
        """Later backends take the line from 0 on, so that the first gives up what they gain."""
        total = sum(d.backend.weight for d in self._all)
        at = where * total
        for destination in reversed(self._all[1:]):
            at -= destination.backend.weight
            if at < 0:
                return destination
        return self._all[0]

    def _deal(self) -> Destination:
        """Smooth weighted round robin: over any ``sum(weights)`` requests each has exactly its share."""
        best, total = self._all[0], 0
        for destination in self._all:
            weight = destination.backend.weight
            destination.current += weight
            total += weight
            if destination.current > best.current:
                best = destination
        best.current -= total
        return best

    def _other(self, chosen: Destination) -> Destination:
        """One with endpoints in place of ``chosen``, the heaviest; ``chosen`` when there is none."""
        able = [d for d in self._all if d.backend.endpoints]
        return max(able, key=lambda d: d.backend.weight) if able else chosen


def _all(conditions: Sequence[ValueMatch]) -> _Predicate:
    tests = [_test(condition) for condition in conditions]
    return lambda headers, claims: all(test(headers, claims) for test in tests)


def _test(match: ValueMatch) -> _Predicate:
    accepts = _value_test(match)
    if match.source == "header":
        name = match.name.lower().encode("latin-1", "replace")

        def header(headers: Mapping[bytes, bytes], claims: Mapping[str, Any]) -> bool:
            value = headers.get(name)
            return value is not None and accepts(value.decode("latin-1")[:_VALUE_LIMIT])

        return header
    path = match.name

    def claim(headers: Mapping[bytes, bytes], claims: Mapping[str, Any]) -> bool:
        found = _claim(claims, path)
        values = found if isinstance(found, list) else [found]
        return any(accepts(_text(value)[:_VALUE_LIMIT]) for value in values if isinstance(value, str | int | float))

    return claim


def _value_test(match: ValueMatch) -> Callable[[str], bool]:
    if match.exact is not None:
        exact = match.exact
        return lambda value: value == exact
    from quarterdeck.cel.regex import compile_match  # linear time; loaded only where a regex is used

    return compile_match(f"^(?:{match.regex})$")


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its whole name (they may have dots), else by a path of names."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
