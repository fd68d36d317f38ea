"""Clients that take their answers slowly or not at all, and those that send slowly: bounded in time and in memory."""

from __future__ import annotations

import asyncio
from typing import Any

from quarterdeck.wire.http import Exchange, Limits, Server, ServerConnection

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


class Pipe(asyncio.Transport):
    """A transport whose other end takes only what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.unsent = 0
        self.state = "open"
        self.protocol: ServerConnection | None = None

    def write(self, data: Any) -> None:
        assert self.state == "open", "nothing is written to a connection that closes"
        before, self.unsent = self.unsent, self.unsent + len(data)
        if before <= 100 < self.unsent and self.protocol is not None:
            self.protocol.pause_writing()

    def take(self, size: int) -> None:
        before, self.unsent = self.unsent, max(0, self.unsent - size)
        if self.unsent <= 25 < before and self.protocol is not None:
            self.protocol.resume_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.state != "open"

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.state = "closing" if self.unsent else "closed"

    def abort(self) -> None:
        self.state = "aborted"


class Rig:
    def __init__(self, body: bytes, **limits: Any) -> None:
        self.now = 1000.0
        self.body = body
        self.server = Server(self.handle, limits=Limits(**{"write_timeout": 60.0, **limits}))
        self.server.clock = lambda: self.now

    def handle(self, exchange: Exchange) -> None:
        exchange.respond(200, self.body)

    def connect(self, data: bytes = REQUEST) -> tuple[ServerConnection, Pipe]:
        connection, pipe = ServerConnection(self.server), Pipe()
        pipe.protocol = connection
        connection.connection_made(pipe)
        connection.data_received(data)
        return connection, pipe

    def later(self, seconds: float, connection: ServerConnection) -> None:
        self.now += seconds
        if 0.0 < connection.deadline < self.now:
            connection.expire()


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    rig = Rig(b"x" * 1000)
    connection, pipe = rig.connect()
    rig.later(59, connection)
    assert pipe.state == "open"
    rig.later(2, connection)
    assert pipe.state == "aborted"


async def test_without_such_a_limit_a_client_may_pause() -> None:
    rig = Rig(b"x" * 1000, write_timeout=0.0)
    connection, pipe = rig.connect()
    rig.later(86_400, connection)
    assert pipe.state == "open"
    pipe.take(10_000)
    rig.later(76, connection)
    assert pipe.state == "closed", "it is idle now"


async def test_a_client_that_takes_a_little_is_waited_for() -> None:
    rig = Rig(b"x" * 1000)
    connection, pipe = rig.connect()
    for _ in range(5):
        pipe.take(100)
        rig.later(61, connection)
        assert pipe.state == "open"
    pipe.take(10_000)
    assert rig.server.unsent == 0
    rig.later(61, connection)
    assert pipe.state == "open", "it has caught up: now it is idle"
    rig.later(76, connection)
    assert pipe.state == "closed"


async def test_a_small_answer_that_is_never_taken_does_not_keep_the_connection() -> None:
    rig = Rig(b"")
    connection, pipe = rig.connect()
    assert 0 < pipe.unsent <= 100
    rig.later(76, connection)
    rig.later(61, connection)
    assert pipe.state == "aborted"


async def test_requests_on_top_win_no_time_and_get_no_answer_yet() -> None:
    rig = Rig(b"x" * 1000)
    connection, pipe = rig.connect()
    waiting = pipe.unsent
    for _ in range(2):
        rig.later(25, connection)
        connection.data_received(REQUEST[:20])
        connection.data_received(REQUEST[20:] + REQUEST)
    assert pipe.unsent == waiting, "what waits for a slow client does not grow"
    rig.later(11, connection)
    assert pipe.state == "aborted"


async def test_requests_on_top_are_answered_when_the_client_has_caught_up() -> None:
    rig = Rig(b"x" * 1000)
    connection, pipe = rig.connect()
    one = pipe.unsent
    connection.data_received(REQUEST * 2)
    for _ in range(3):
        assert pipe.unsent == one
        pipe.take(one)
    assert pipe.unsent == 0
    rig.later(76, connection)
    assert pipe.state == "closed"


async def test_the_last_answer_of_a_connection_is_not_waited_for_without_end() -> None:
    rig = Rig(b"x" * 1000)
    connection, pipe = rig.connect(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert pipe.state == "closing"
    rig.later(61, connection)
    assert pipe.state == "aborted"


async def test_all_answers_that_slow_clients_leave_are_bounded_together() -> None:
    rig = Rig(b"x" * 1000, unsent_bytes=3500)
    pipes = [rig.connect() for _ in range(4)]
    assert [pipe.state for _, pipe in pipes] == ["open", "open", "open", "aborted"]
    for connection, pipe in pipes:
        if pipe.state == "aborted":
            connection.connection_lost(None)
    assert rig.server.unsent <= 3500
    pipes[0][1].take(10_000)
    assert rig.connect()[1].state == "open"


async def test_heads_that_come_slowly_count_as_what_is_held() -> None:
    rig = Rig(b"", bodies_bytes=3000)
    slow = [rig.connect(b"GET / HTTP/1.1\r\nx-filler: " + b"y" * 900) for _ in range(5)]
    held = [connection for connection, pipe in slow if pipe.state == "open"]
    assert len(held) == 3 and rig.server.held <= 3000
    assert rig.connect()[1].state == "open", "whole requests are served meanwhile"
    for connection in held:
        connection.connection_lost(None)
    assert rig.server.held == 0


async def test_nothing_is_written_after_a_refused_head() -> None:
    rig = Rig(b"")
    connection, pipe = rig.connect(b"POST /0HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
    connection.data_received(b"more\r\n\r\n")
    assert pipe.state in ("closing", "closed")
