"""Faults that cost memory or time: thousands of slow clients, answers without end, connections closed by halves."""

from __future__ import annotations

import asyncio
import resource
import socket
from pathlib import Path

import pytest

from ..conftest import Rig, snapshot, token

PATH = "/mcp/kagent/peer"
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {}}}
GIB = 1024 * 1024 * 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Source:
    """A server that answers with a head and then sends the same piece for as long as it is let."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self.head, self.piece = head, piece
        self.sent = 0
        self.ended = asyncio.Event()
        self.port = 0

    async def __aenter__(self) -> Source:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self.head)
        try:
            while self.sent < GIB:
                writer.write(self.piece)
                await writer.drain()
                self.sent += len(self.piece)
        except ConnectionError:
            pass
        finally:
            self.ended.set()
            writer.transport.abort()


@pytest.mark.parametrize("media", [b"application/json", b"text/html"])
async def test_an_answer_of_a_gigabyte_is_cut_and_told(bare: Rig, media: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (media, GIB)
    async with Source(head, b" " * 65_536) as source:
        bare.gateway.use(snapshot(source.port))
        before = resident()
        answer = await bare.rpc(PATH, "tools/call", CALL["params"], bearer=token("pod-b"))
        assert answer["error"]["code"] == 4002 and "more than 16777216 bytes" in answer["error"]["message"]
        await asyncio.wait_for(source.ended.wait(), 30)
        assert source.sent < 64 * 1024 * 1024
        assert resident() - before < 64 * 1024 * 1024


async def test_an_event_without_end_is_cut_and_told(bare: Rig) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: "
    async with Source(head, b"x" * 65_536) as source:
        bare.gateway.use(snapshot(source.port))
        response = await bare.request(PATH, CALL, bearer=token("pod-b"))
        received = 0
        last = b""
        async for chunk in response:
            received += len(chunk)
            last = (last + chunk)[-4096:]
        await asyncio.wait_for(source.ended.wait(), 30)
        assert b"is larger than" in last and b"4002" in last
        assert source.sent < 64 * 1024 * 1024


async def test_a_server_that_closes_its_side_after_the_answer_has_answered(bare: Rig) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        writer.write(b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}')
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    bare.gateway.use(snapshot(server.sockets[0].getsockname()[1]))
    answer = await bare.rpc(PATH, "tools/call", CALL["params"], bearer=token("pod-b"))
    assert answer["result"] == {"content": []}
    server.close()


async def test_a_client_that_closes_its_side_has_gone(bare: Rig) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        while await reader.read(4096):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    bare.gateway.use(snapshot(server.sockets[0].getsockname()[1]))
    host, port, _ = bare.origin("local")
    reader, writer = await asyncio.open_connection(host, port)
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"}}'
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % (PATH.encode(), len(body)) + body)
    await asyncio.wait_for(asked.wait(), 30)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 30) == b""
    await asyncio.wait_for(gone.wait(), 30)
    assert bare.records()[-1]["status"] == 499
    assert not bare.gateway.limits.breakers.active
    writer.close()
    server.close()


@pytest.mark.slow
async def test_five_thousand_slow_clients_cost_little_and_keep_nobody_out(bare: Rig, peer: int) -> None:
    count = 5_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} open files are needed, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    bare.gateway.use(snapshot(peer))
    host, port, _ = bare.origin("workloads")
    server = next(s for s in bare.gateway._servers if s.name == "workloads")  # pyright: ignore[reportPrivateUsage]
    before = resident()
    clients: list[socket.socket] = []
    try:
        for number in range(count):
            client = socket.create_connection((host, port))
            client.sendall(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\nx-a: " + b"y" * (number % 900))
            clients.append(client)
            if number % 200 == 0:
                await asyncio.sleep(0)
        while len(server.connections) < count:
            await asyncio.sleep(0.01)
        assert resident() - before < 100 * 1024 * 1024, "20 KiB for each of them"
        started = asyncio.get_running_loop().time()
        assert await bare.initialize(PATH, bearer=token("pod-b"))
        assert asyncio.get_running_loop().time() - started < 10.0
        late = server.clock
        server.clock = lambda: late() + 16.0  # header_timeout
        while len(server.connections) > 10:
            await asyncio.sleep(0.1)
        assert server.held == 0
    finally:
        for client in clients:
            client.close()


async def test_answers_that_are_collected_are_bounded_together(bare: Rig) -> None:
    bare.gateway.upstreams.most_collected = 1024 * 1024
    many, go_on = 12, asyncio.Event()
    begun = asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % 200_046)
        writer.write(b'{"jsonrpc":"2.0","id":1,"result":{"content":[]' + b" " * 150_000)
        begun.release()
        await go_on.wait()
        writer.write(b" " * 49_998 + b"}}")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    bare.gateway.use(snapshot(server.sockets[0].getsockname()[1]))
    calls = [
        asyncio.ensure_future(bare.rpc(PATH, "tools/call", CALL["params"], bearer=token("pod-b"))) for _ in range(many)
    ]
    for _ in range(many):
        await begun.acquire()
    while bare.gateway.upstreams.collected < 6 * 150_000 or not any(call.done() for call in calls):
        await asyncio.sleep(0.01)
    assert bare.gateway.upstreams.collected <= 1024 * 1024
    go_on.set()
    answers = await asyncio.gather(*calls)
    refused = [answer["error"]["message"] for answer in answers if "error" in answer]
    assert 0 < len(refused) <= many - 5 and all("beside the answers of others" in text for text in refused)
    assert bare.gateway.upstreams.collected == 0
    assert not bare.gateway.limits.breakers.active, "that is no failure of the server"
    server.close()
