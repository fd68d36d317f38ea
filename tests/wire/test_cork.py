"""Streamed pieces leave together, in order, and never later than the loop iteration that made them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from quarterdeck.wire.http import Exchange, Server, ServerConnection


class Recorder(asyncio.Transport):
    """Keeps each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.writes.append(b"<aborted>")


def requested(handle: Callable[[Exchange], None]) -> tuple[Exchange, Recorder]:
    seen: list[Exchange] = []

    def handler(exchange: Exchange) -> None:
        seen.append(exchange)
        handle(exchange)

    connection, transport = ServerConnection(Server(handler)), Recorder()
    connection.connection_made(transport)
    connection.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    return seen[0], transport


async def test_head_pieces_and_end_are_one_write() -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"one")
        exchange.write(b"two")
        exchange.finish()

    _, transport = requested(handle)
    assert len(transport.writes) == 1
    assert transport.writes[0].endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_a_piece_waits_no_longer_than_this_iteration() -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"one")

    exchange, transport = requested(handle)
    assert transport.writes == []
    await asyncio.sleep(0)
    assert transport.writes[0].endswith(b"3\r\none\r\n")
    exchange.write(b"two")
    await asyncio.sleep(0)
    assert transport.writes[1:] == [b"3\r\ntwo\r\n"]


async def test_large_pieces_are_written_at_once() -> None:
    exchange, transport = requested(lambda exchange: exchange.start(200, [(b"content-length", b"200000")]))
    exchange.write(b"x" * 100_000)
    assert len(transport.writes) == 1, "memory stays bounded when a producer never yields"


async def test_what_was_sent_before_an_abort_leaves_before_it() -> None:
    exchange, transport = requested(lambda exchange: exchange.start(200))
    exchange.write(b"one")
    exchange.abort()
    assert transport.writes[0].endswith(b"one\r\n")
    assert transport.writes[1:] == [b"<aborted>"]
