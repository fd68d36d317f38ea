"""The server against raw sockets: framing, limits, pipelining, slow clients, errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Limits, Server


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    servers: list[Server] = []

    async def start(handler: Any, **options: Any) -> int:
        server = Server(handler, **options)
        servers.append(server)
        return (await server.listen("127.0.0.1", 0))[1]

    yield start
    for server in servers:
        await server.stop(0)


async def talk(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer


def echo(exchange: Exchange) -> None:
    exchange.respond(200, exchange.method.encode() + b" " + exchange.target + b" " + exchange.body)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", 400),
        (b"\x16\x03\x01\x00", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 101\r\n\r\n", 413),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n",
            413,
        ),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 2000 + b"\r\n\r\n", 431),
    ],
)
async def test_bad_requests_are_refused_and_the_connection_ends(serve: Any, data: bytes, status: int) -> None:
    port = await serve(echo, limits=Limits(header_bytes=1000, body_bytes=100))
    answer = await talk(port, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1") == 1


async def test_pipelined_requests_are_answered_in_order(serve: Any) -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0)
        echo(exchange)

    port = await serve(slow)
    requests = b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % i for i in range(40))
    answer = await talk(port, requests + b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    found = [line for line in answer.split(b"\r\n") if line.startswith(b"GET ")]
    assert [f.split()[1].split(b"HTTP")[0] for f in found] == [b"/%d" % i for i in range(40)] + [b"/last"]


async def test_a_slow_client_is_closed(serve: Any) -> None:
    port = await serve(echo, limits=Limits(header_timeout=0.05))
    assert await talk(port, b"GET / HTTP/1.1\r\n") == b""


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_broken_handler_is_reported_and_answered(serve: Any, asynchronous: bool) -> None:
    def broken(exchange: Exchange) -> Any:
        async def later() -> None:
            raise ValueError("x")

        if asynchronous:
            return later()
        raise ValueError("x")

    reported: list[Exception] = []
    port = await serve(broken, on_error=lambda _, error: reported.append(error))
    answer = await talk(port, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert isinstance(reported[0], ValueError)


@given(st.binary(max_size=3000), st.lists(st.integers(1, 3000), max_size=4))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_bodies_arrive_whole_however_they_are_cut(serve: Any, body: bytes, cuts: list[int]) -> None:
    port = await serve(echo)
    data = b"POST /p HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        writer.write(data[start:end])
        await writer.drain()
    answer = await reader.read()
    writer.close()
    assert answer.endswith(b"POST /p " + body)


async def test_pool_reuses_connections_and_reads_to_the_end_of_the_stream(serve: Any) -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
        writer.close()

    server = await asyncio.start_server(old, "127.0.0.1", 0)
    pool = Pool()
    response = await pool.request("GET", ("127.0.0.1", server.sockets[0].getsockname()[1], False), "/")
    assert await response.read() == b"until the end"
    server.close()

    origin = ("127.0.0.1", await serve(echo), False)
    await (await pool.request("GET", origin, "/")).read()
    connection = pool.idle(origin)
    assert connection is not None
    pool.release(connection)
    await (await pool.request("GET", origin, "/")).read()
    assert pool.idle(origin) is connection
    pool.close()


async def test_an_old_idle_connection_is_not_used(serve: Any) -> None:
    origin = ("127.0.0.1", await serve(echo), False)
    pool = Pool(max_idle_seconds=-1.0)
    await (await pool.request("GET", origin, "/")).read()
    assert pool.idle(origin) is None


async def test_a_unix_socket_goes_with_its_server(tmp_path: Any) -> None:
    path = tmp_path / "s.sock"
    server = Server(echo)
    await server.listen_unix(str(path))
    answer = await Pool().request("GET", (str(path), 0, False), "/x")
    assert await answer.read() == b"GET /x "
    await server.stop(0)
    assert not path.exists()


async def test_trailers_are_no_headers(serve: Any) -> None:
    def names(exchange: Exchange) -> None:
        exchange.respond(200, b" ".join(name for name, _ in exchange.headers))

    port = await serve(names)
    head = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await talk(port, head + b"1\r\na\r\n0\r\nx-user-id: root\r\nauthorization: Bearer x\r\n\r\n")
    assert answer.endswith(b"host connection transfer-encoding")


@pytest.mark.parametrize("flood", [b"1;" + b"e" * 4000 + b"\r\na\r\n", b"0\r\n" + b"t: " + b"v" * 4000 + b"\r\n"])
async def test_framing_without_end_is_cut_off(serve: Any, flood: bytes) -> None:
    port = await serve(echo)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    last = flood if flood.startswith(b"1;") else flood[3:]
    writer.write(flood)
    with pytest.raises(ConnectionError):
        for _ in range(10_000):
            writer.write(last)
            await writer.drain()
        assert await asyncio.wait_for(reader.read(), 30) == b"", "all of it was taken"


async def test_a_bad_request_does_not_break_into_the_answer_before_it(serve: Any) -> None:
    ready = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"one")
        await ready.wait()
        exchange.write(b"two")
        exchange.finish()

    port = await serve(slow)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n\x00 nonsense\r\n\r\n")
    await reader.readuntil(b"one\r\n")
    ready.set()
    assert await asyncio.wait_for(reader.read(), 30) == b"3\r\ntwo\r\n0\r\n\r\n"
    writer.close()


async def test_an_upgrade_nobody_takes_ends_the_connection(serve: Any) -> None:
    port = await serve(echo)
    ask = b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    answer = await talk(port, ask + b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n" + b"z" * 100_000)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer


@pytest.mark.parametrize("status", [204, 304])
async def test_nothing_follows_the_head_of_an_answer_without_body(serve: Any, status: int) -> None:
    def none(exchange: Exchange) -> None:
        exchange.start(status)
        exchange.write(b"body")
        exchange.finish()

    answer = await talk(await serve(none), b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"chunked" not in answer
    assert answer.count(b"\r\n\r\n") == 1
