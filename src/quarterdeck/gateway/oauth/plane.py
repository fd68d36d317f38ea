"""Users' grants at the control plane, as a gateway reads and writes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic

import msgspec
from msgspec import Struct

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.snapshot.sign_in import Kind, Shown
from quarterdeck.snapshot.sign_in import TokenRequest as Request

from .store import Stored

Ask = Callable[[bytes], Awaitable[bytes]]
"""Posts a request below ``/v1/gateways/{namespace}/{name}/user-tokens`` and returns the answer's body."""
_TRUSTED = 60.0
_LONGEST = 3600.0
"""Seconds that a grant is used without asking again, and while nobody answers: a revocation comes with the snapshot."""
_KEPT = 10_000


class Reply(Struct, omit_defaults=True):
    done: bool = False
    stored: Stored | None = None


class PlaneStore:
    """A :class:`.store.Store` that asks the control plane."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[Stored, float]] = {}

    async def get(self, kind: Kind, user: str, name: str) -> Stored | None:
        known = self._known.get((user, name)) if kind == "grant" else None
        if known is not None and self._clock() < known[1]:
            return known[0]
        try:
            found = (await self._request(Request("get", kind, user, name))).stored
        except (UpstreamError, TimedOut):
            if known is not None and self._clock() < known[1] + _LONGEST - _TRUSTED:
                return known[0]
            raise
        if kind == "grant":
            self._note(user, name, found)
        return found

    async def put(
        self,
        kind: Kind,
        user: str,
        name: str,
        value: bytes,
        *,
        after: int | None = None,
        until: float = 0.0,
        shown: Shown | None = None,
    ) -> bool:
        self._known.pop((user, name), None)
        request = Request("put", kind, user, name, value, after, until, shown=shown)
        return (await self._request(request)).done

    async def take(self, kind: Kind, user: str, name: str) -> Stored | None:
        self._known.pop((user, name), None)
        return (await self._request(Request("take", kind, user, name))).stored

    async def lease(self, kind: Kind, user: str, name: str, version: int, seconds: float) -> bool:
        return (await self._request(Request("lease", kind, user, name, after=version, seconds=seconds))).done

    def forget(self, user: str, name: str) -> None:
        """Ask again before this grant is used."""
        self._known.pop((user, name), None)

    def _note(self, user: str, name: str, found: Stored | None) -> None:
        if found is None:
            self._known.pop((user, name), None)
            return
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[user, name] = (found, self._clock() + _TRUSTED)

    async def _request(self, request: Request) -> Reply:
        return msgspec.json.decode(await self._ask(msgspec.json.encode(request)), type=Reply)
