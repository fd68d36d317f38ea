"""Bytes both ways between a client and a backend that have left HTTP for WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class End(asyncio.Protocol):
    """What one side sends goes to the other, which holds it back while it reads slower."""

    def __init__(self, own: asyncio.Transport, over: Callable[[], None]) -> None:
        self._own = own
        self._over = over
        self._other = self
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._other._own.write(data)

    def pause_writing(self) -> None:
        if not self._other._own.is_closing():
            self._other._own.pause_reading()

    def resume_writing(self) -> None:
        if not self._other._own.is_closing():
            self._other._own.resume_reading()

    def eof_received(self) -> bool:
        """One side may have said all and still listen; when both have, it is over."""
        self._ended = True
        other = self._other
        if other._ended or not other._own.can_write_eof():
            other._own.close()
            return False
        other._own.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._other._own.close()
        self._over()


def join(one: asyncio.Transport, two: asyncio.Transport, over: Callable[[], None]) -> tuple[End, End]:
    """The protocols of both sides; ``over`` is called when one is gone, and again when the other is."""
    first, second = End(one, over), End(two, over)
    first._other, second._other = second, first  # pyright: ignore[reportPrivateUsage]
    return first, second
