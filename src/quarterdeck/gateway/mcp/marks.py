"""What one process of the gateway has done for a call, told to the one it passes the call to (``peers``): sealed into
a header, bound to the call, and believed on the peers' listener only."""

from __future__ import annotations

from collections.abc import Callable
from time import time

import msgspec

from .call import McpCall
from .session import SessionSealer

_PEERS = "peers"
_LASTS = 60.0
"""Seconds."""


class Marks:
    """``header`` names what was done."""

    def __init__(self, header: bytes, sealer: SessionSealer, clock: Callable[[], float] = time) -> None:
        self._header = header
        self._sealer = sealer
        self._clock = clock

    def put(self, call: McpCall, binding: bytes, said: str = "") -> None:
        """For the process that the call may be passed to."""
        sealed = self._sealer.seal_bytes(msgspec.msgpack.encode((said, self._clock())), binding)
        call.exchange.headers = [*call.exchange.headers, (self._header, sealed)]

    def said(self, call: McpCall, binding: bytes) -> str | None:
        """What the process that passed the call here has said; None: nothing that holds."""
        sealed = call.headers.get(self._header)
        if sealed is None or call.exchange.listener != _PEERS:
            return None
        data = self._sealer.open_bytes(sealed, binding)
        if data is None:
            return None
        said, at = msgspec.msgpack.decode(data, type=tuple[str, float])
        return said if self._clock() <= at + _LASTS else None
