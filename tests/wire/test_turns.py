"""A peer that floods us is read a piece at a time, so that others have their turns."""

from __future__ import annotations

import asyncio
from typing import Any

from quarterdeck.wire.client import ClientConnection, Pool

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n"


class Reading(asyncio.Transport):
    """Knows whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.on = True

    def pause_reading(self) -> None:
        self.on = False

    def resume_reading(self) -> None:
        self.on = True

    def write(self, data: Any) -> None: ...
    def abort(self) -> None: ...


class Sink:
    def on_head(self, status: int, headers: Any) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_error(self, error: Exception) -> None: ...


async def test_after_much_data_others_come_first() -> None:
    connection, transport = ClientConnection(Pool(), ("127.0.0.1", 1, False)), Reading()
    connection.connection_made(transport)
    connection.send(Sink(), b"GET / HTTP/1.1\r\n\r\n")
    connection.data_received(HEAD + b"x" * 100)
    assert transport.on, "small pieces are no flood"
    for _ in range(3):
        connection.data_received(b"x" * 100_000)
        assert not transport.on
        await asyncio.sleep(0)
        assert transport.on, "the next turn has come"
    connection.data_received(b"x" * 100_000)
    connection.pause()
    await asyncio.sleep(0)
    assert not transport.on, "a slow client holds its server back longer than that"
    connection.resume()
    assert transport.on
    connection.pause()
    connection.data_received(b"x" * 100_000)
    await asyncio.sleep(0)
    assert not transport.on
    connection.abort()
    await asyncio.sleep(0)
