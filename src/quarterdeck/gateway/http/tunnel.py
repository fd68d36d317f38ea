"""Bytes both ways between a client and a backend that have left HTTP for WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class End(asyncio.Protocol):
    """What one side sends goes to the other, which holds it back while it reads slower.

    ``over`` is called once, when this side is gone.
    """

    def __init__(self, own: asyncio.Transport, other: asyncio.Transport, over: Callable[[], None]) -> None:
        self._own = own
        self._other = other
        self._over = over

    def data_received(self, data: bytes) -> None:
        self._other.write(data)

    def pause_writing(self) -> None:
        if not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if not self._other.is_closing():
            self._other.resume_reading()

    def eof_received(self) -> bool:
        if self._other.can_write_eof():
            self._other.write_eof()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._other.close()
        self._over()
