"""Heads that are taken as known must give what the parser gives, and nothing else may be taken so."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.wire.client import Pool
from quarterdeck.wire.connection import ServerConnection
from quarterdeck.wire.http import Exchange, Limits, Server
from quarterdeck.wire.seen import Head, Seen

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name == "peername" else None


class Served:
    """A server without sockets, and what its handler got."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.got: list[tuple[str, bytes, frozenset[tuple[bytes, bytes]], bytes]] = []
        self.known: list[bool] = []
        self.server = Server(self._handle, limits=limits)

    def _handle(self, exchange: Exchange) -> None:
        self.known.append(exchange.head is not None)
        self.got.append((exchange.method, exchange.target, frozenset(exchange.headers), exchange.body))
        if exchange.head is not None:
            assert exchange.context == dict(exchange.headers)
        exchange.respond(200)

    def connection(self) -> tuple[ServerConnection, Wire]:
        connection, wire = ServerConnection(self.server), Wire()
        connection.connection_made(wire)  # type: ignore[arg-type]
        return connection, wire


def request(body: bytes, *lines: bytes, path: bytes = b"/mcp") -> bytes:
    head = b"\r\n".join([b"POST %b HTTP/1.1" % path, b"host: a", *lines, b"content-length: %d" % len(body)])
    return head + b"\r\n\r\n" + body


async def test_the_second_of_the_same_is_known_and_reads_the_same() -> None:
    served = Served()
    connection, _ = served.connection()
    for _ in range(3):
        connection.data_received(request(b"hello", b"x-a: 1"))
    assert served.known == [False, True, True]
    assert len(set(served.got)) == 1


async def test_other_lengths_and_traces_are_the_same_head() -> None:
    served = Served()
    connection, _ = served.connection()
    connection.data_received(request(b"hello", b"traceparent: " + TRACE, b"x-a: 1"))
    connection.data_received(request(b"", b"traceparent: " + TRACE[::-1].replace(b"-", b"0"), b"x-a: 1"))
    connection.data_received(request(b"x" * 5000, b"x-a: 1"))
    assert served.known == [False, True, True]
    assert (b"content-length", b"5000") in served.got[2][2]
    assert dict(served.got[1][2])[b"traceparent"] == TRACE[::-1].replace(b"-", b"0")
    assert b"traceparent" not in dict(served.got[2][2])


@pytest.mark.parametrize(
    "other",
    [
        request(b"hello", b"x-a: 2"),
        request(b"hello", b"X-A: 1"),
        request(b"hello", b"x-a: 1", path=b"/mcp2"),
        request(b"hello", b"x-a: 1").replace(b"POST", b"PUT"),
        request(b"hello", b"x-a: 1", b"x-request-id: a b"),
        request(b"hello", b"x-a: 1", b"x-request-id: " + b"a" * 65),
        request(b"hello", b"x-a: 1", b"x-request-id: 1", b"X-Request-ID: 2"),
        request(b"hello", b"x-a: 1", b"x-request-id:1"),
        request(b"hello", b"x-a: 1", b"traceparent: " + TRACE[:-1] + b";"),
        request(b"hello", b"x-a: 1", b"traceparent: 00\r\nx-hidden: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ],
)
async def test_any_other_head_is_parsed(other: bytes) -> None:
    served = Served()
    connection, _ = served.connection()
    connection.data_received(request(b"hello", b"x-a: 1"))
    connection.data_received(other)
    assert served.known == [False, False]


async def test_what_is_no_whole_message_is_parsed() -> None:
    served = Served()
    connection, _ = served.connection()
    whole = request(b"hello", b"x-a: 1")
    connection.data_received(whole)
    connection.data_received(whole[:-2])
    connection.data_received(whole[-2:])
    connection.data_received(whole + whole)
    connection.data_received(whole)
    assert served.known == [False, False, False, False, True]
    assert len(set(served.got)) == 1


async def test_a_part_that_is_as_long_as_the_message_would_be() -> None:
    """Without its blank line the head alone must not be taken for the message."""
    served = Served()
    connection, _ = served.connection()
    size = len(request(b"", b"x-a: 1")) - 5
    whole = request(b"y" * size, b"x-a: 1")
    connection.data_received(whole)
    connection.data_received(whole)
    head, _, body = whole.partition(b"\r\n\r\n")
    assert len(head + b"\r") - -1 - 4 == len(body)
    connection.data_received(head + b"\r")
    connection.data_received(b"\n\r\n" + body)
    assert served.known == [False, True, False]
    assert len(set(served.got)) == 1


async def test_chunked_old_and_closing_requests_are_not_remembered() -> None:
    served = Served()
    for raw in (
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ):
        for _ in range(2):
            connection, _ = served.connection()
            connection.data_received(raw)
    assert served.known == [False] * 6


async def test_a_known_head_does_not_get_round_the_limits() -> None:
    served = Served(Limits(body_bytes=10, bodies_bytes=1000))
    connection, wire = served.connection()
    connection.data_received(request(b"hello", b"x-a: 1"))
    connection.data_received(request(b"x" * 11, b"x-a: 1"))
    assert served.known == [False]
    assert b"413" in wire.sent
    served.server.held = 990
    connection, wire = served.connection()
    connection.data_received(request(b"hello", b"x-a: 1"))
    assert b"503" in wire.sent


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"content-length",
                    b"Content-Length",
                    b"x-content-length",
                    b"traceparent",
                    b"x-request-id",
                    b"X-Request-ID",
                ]
            ),
            st.sampled_from([b"0", b"5", b"05", b"+5", b"5 ", b"", b"99999999999", TRACE, TRACE + b"-x", b"\t5"]),
        ),
        max_size=4,
    ),
    st.sampled_from([b"", b"hello", b"hello\r\n\r\n"]),
)
def test_known_or_not_a_request_reads_the_same(lines: list[tuple[bytes, bytes]], body: bytes) -> None:
    """The differential: a server that has seen a well-formed head, and one that has seen nothing."""

    async def run() -> None:
        raw = b"\r\n".join([b"POST / HTTP/1.1", b"host: a", *(b"%b: %b" % line for line in lines)]) + b"\r\n\r\n" + body
        before, fresh = Served(), Served()
        for name in (b"content-length", b"Content-Length"):
            connection, _ = before.connection()
            connection.data_received(b"POST / HTTP/1.1\r\nhost: a\r\n%b: 5\r\n\r\nhello" % name)
            connection.data_received(b"POST / HTTP/1.1\r\nhost: a\r\n%b: 5\r\n\r\nhello" % name)
        connection, _ = before.connection()
        connection.data_received(b"POST / HTTP/1.1\r\nhost: a\r\n\r\n")
        connection.data_received(raw)
        before.got.clear()
        connection, _ = before.connection()
        connection.data_received(raw)
        other, _ = fresh.connection()
        other.data_received(raw)
        assert before.got == fresh.got

    asyncio.run(run())


def test_what_is_remembered_is_bounded() -> None:
    seen = Seen()
    for number in range(5000):
        data = b"POST /%d HTTP/1.1\r\nhost: a\r\n\r\n" % number
        seen.keep(data, 0, Head([(b"host", b"a")], method="POST"))
        assert seen.find(data, data.find(b"\r\n\r\n")) is not None
    data = b"POST /0 HTTP/1.1\r\nhost: a\r\n\r\n"
    assert seen.find(data, data.find(b"\r\n\r\n")) is None


class _Sink:
    def __init__(self) -> None:
        self.events: list[object] = []

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.events.append((status, frozenset(headers)))

    def on_body(self, data: bytes) -> None:
        self.events.append(data)

    def on_end(self) -> None:
        self.events.append("end")

    def on_error(self, error: Exception) -> None:
        self.events.append(str(error))


@pytest.mark.parametrize(
    ("second", "known"),
    [
        (b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nno", True),
        (b"HTTP/1.1 200 OK\r\nDate: y\r\nContent-Length: 2\r\n\r\nno", False),
        (b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nno", False),
    ],
)
async def test_responses(second: bytes, known: bool) -> None:
    from quarterdeck.wire.client import ClientConnection

    pool = Pool()
    seen: list[bool] = []
    events: list[list[object]] = []
    for warm in (True, False):
        pool = pool if warm else Pool()
        connection = ClientConnection(pool, ("a", 1, False))
        connection.connection_made(Wire())  # type: ignore[arg-type]
        for data in (b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\n\r\nhello", second)[0 if warm else 1 :]:
            sink = _Sink()
            connection.send(sink, b"")
            seen.append(pool.seen.find(data, data.find(b"\r\n\r\n")) is not None)
            connection.data_received(data)
        events.append(sink.events)
    assert events[0] == events[1]
    assert seen[1] == known
