"""Which era a server speaks, asked once and remembered."""

from __future__ import annotations

from time import monotonic

from quarterdeck.snapshot import Endpoint

from . import client
from .route import Lane, McpRoute

_TTL = 300.0
"""Seconds until a server is asked anew: another version may run behind the same address."""
_REMEMBERED = 10_000

Key = tuple[tuple[str, str, str], tuple[Endpoint, ...]]


class Eras:
    """Remembers by server and addresses, so that a new configuration does not ask again."""

    def __init__(self) -> None:
        self._known: dict[Key, tuple[bool, float]] = {}
        self._newer: dict[Key, float] = {}

    def modern(self, route: McpRoute) -> bool:
        """Whether the server is known to speak 2026-07-28."""
        return route.modern_until > monotonic() or self._recall(route) is True

    async def speaks_modern(self, route: McpRoute, lane: Lane, extra: bytes = b"") -> bool:
        """The same, asked when it is not known. Raises UpstreamError, TimedOut when the server does not answer."""
        known = self._recall(route)
        if known is None:
            known = await client.speaks_modern(route, lane, extra)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[route.target, route.server.endpoints] = (known, monotonic() + _TTL)
            self._recall(route)
        return known

    def newer(self, route: McpRoute) -> bool:
        """Whether the server is known to speak nothing older than 2026-07-28."""
        return bool(self._newer) and self._newer.get((route.target, route.server.endpoints), 0.0) > monotonic()

    def refused_older(self, route: McpRoute) -> None:
        """The server speaks 2026-07-28 and has refused ``initialize``."""
        if len(self._newer) >= _REMEMBERED:
            self._newer.clear()
        self._newer[route.target, route.server.endpoints] = monotonic() + _TTL

    def _recall(self, route: McpRoute) -> bool | None:
        """What was found out under any configuration; None when the server has to be asked."""
        modern, until = self._known.get((route.target, route.server.endpoints), (False, 0.0))
        if until <= monotonic():
            return None
        route.modern_until = until if modern else 0.0
        return modern
