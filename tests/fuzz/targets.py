"""What is fuzzed: each target takes bytes and may raise only the errors its callers are told of.

Any other exception, a broken invariant, a hang, or memory beyond the limit is a finding.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import msgspec

from quarterdeck.cel import CompileError, EvalError, Limits
from quarterdeck.cel import compile as compile_cel
from quarterdeck.errors import QuarterdeckError
from quarterdeck.mcptypes import headers, jsonrpc, lists
from quarterdeck.snapshot import decode
from quarterdeck.wire.client import ClientConnection, Pool
from quarterdeck.wire.http import Exchange, Server, ServerConnection
from quarterdeck.wire.http import Limits as HttpLimits
from quarterdeck.wire.sse import Event, SseParser

_LOOP = asyncio.new_event_loop()
_VARIABLES = {
    "jwt": {"sub": "ann", "groups": ["a", "b"], "nested": {"n": 1}},
    "request": {"path": "/mcp", "headers": {"x-a": "1"}, "method": "POST"},
    "mcp": {"tool": {"name": "echo", "target": "cheap"}},
}


class Transport(asyncio.Transport):
    """Counts what is written and keeps none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.closing = False

    def write(self, data: Any) -> None:
        assert not self.closing, "wrote to a closed connection"
        self.written += len(data)

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def pieces(data: bytes) -> list[bytes]:
    """The data cut at places that its first byte decides: parsers must not care."""
    if len(data) < 2:
        return [data]
    size = data[0] % 29 + 1
    rest = data[1:]
    return [rest[at : at + size] for at in range(0, len(rest), size)]


async def _turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def http_request(data: bytes) -> None:
    """The server's side of a connection."""
    seen: list[int] = []

    def handler(exchange: Exchange) -> None:
        seen.append(len(exchange.body))
        assert len(exchange.body) <= 1000, "a body larger than the limit reached the handler"
        exchange.respond(200, exchange.body)

    async def run() -> None:
        server = Server(handler, limits=HttpLimits(header_bytes=2000, body_bytes=1000))
        connection, transport = ServerConnection(server), Transport()
        connection.connection_made(transport)
        for piece in pieces(data):
            if transport.closing:
                break
            connection.data_received(piece)
        await _turn()
        connection.connection_lost(None)

    _LOOP.run_until_complete(run())


class Sink:
    """Takes an upstream's answer."""

    def __init__(self) -> None:
        self.ended = 0

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert 100 <= status <= 999
        assert all(b"\r" not in v and b"\n" not in v for _, v in headers), "a header with a line break"

    def on_body(self, data: bytes) -> None:
        assert not self.ended, "a body after the end"

    def on_end(self) -> None:
        self.ended += 1

    def on_error(self, error: QuarterdeckError) -> None:
        self.ended += 1


def http_response(data: bytes) -> None:
    """The client's side: an upstream that answers anything."""

    async def run() -> None:
        connection, transport, sink = ClientConnection(Pool(), ("127.0.0.1", 1)), Transport(), Sink()
        connection.connection_made(transport)
        connection.send(sink, b"GET / HTTP/1.1\r\n\r\n")
        for piece in pieces(data):
            if transport.closing:
                break
            connection.data_received(piece)
        connection.connection_lost(None)
        await _turn()
        assert sink.ended == 1, f"the call ended {sink.ended} times"

    _LOOP.run_until_complete(run())


def message(data: bytes) -> None:
    """A client's JSON-RPC message: what is decided on must be what another reader of JSON would see."""
    try:
        found = jsonrpc.parse(data)
    except jsonrpc.FramingError:
        jsonrpc.id_of(data)
        return
    if found.method == "tools/call":
        try:
            params = jsonrpc.call_params(found)
        except jsonrpc.FramingError:
            return
        clear = jsonrpc.unambiguous(data, b'"method"', b'"name"', b'"params"', b'"arguments"')
        try:
            sent = data if clear else jsonrpc.canonical(data)
        except jsonrpc.FramingError:
            return
        other = json.loads(sent)
        assert other["method"] == found.method and other["params"]["name"] == params.name


def answer(data: bytes) -> None:
    """A server's list, filtered."""
    try:
        kept = lists.filter_message(data, "tools", lambda item: lists.name_of(item).startswith("a"), private=True)
    except msgspec.DecodeError:
        return
    if kept is not data:
        assert all(str(tool.get("name", "")).startswith("a") for tool in json.loads(kept)["result"]["tools"])


def events(data: bytes) -> None:
    """An event stream gives the same events however it is cut."""

    def read(parts: list[bytes]) -> list[Event] | None:
        parser, found = SseParser(4096), list[Event]()
        try:
            for part in parts:
                found += parser.feed(part)
        except QuarterdeckError:
            return None
        return found

    whole, cut = read([data[1:]]), read(pieces(data))
    if whole is not None and cut is not None:
        assert whole == cut


def expression(data: bytes) -> None:
    """CEL that somebody wrote into a rule."""
    try:
        program = compile_cel(data.decode("utf-8", "replace"), limits=Limits(length=2000, nodes=500, steps=20_000))
        program.evaluate(_VARIABLES)
    except (CompileError, EvalError):
        return


def header_value(data: bytes) -> None:
    """Mirrored values: base64 tricks end in one reading."""
    found = headers.decode_value(data)
    if found is not None:
        assert headers.decode_value(headers.encode_value(found)) == found


def snapshot(data: bytes) -> None:
    """What a gateway is told to serve."""
    try:
        decode(data)
    except msgspec.DecodeError:
        return


TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "http_request": (http_request, [
        b"\x07POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\x05POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n",
        b"\x02GET / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ]),
    "http_response": (http_response, [
        b"\x05HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        b"\x09HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ]),
    "message": (message, [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":"\\u0041"}}}',
        b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"a","Name":"b"}}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
    ]),
    "answer": (answer, [b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a1"},{"name":"b"}],"nextCursor":"x"}}']),
    "events": (events, [b"\x03event: message\ndata: {}\nid: 1\n\n: keep\n\ndata: a\r\ndata: b\r\n\r\n"]),
    "expression": (expression, [
        b'jwt.sub == "ann" && mcp.tool.name in ["echo"]', b'request.headers["x-a"].matches("^[0-9]+$")',
        b"jwt.groups.exists(g, g == 'a') ? 1 : 2", b"[1,2,3].map(x, x * 2).filter(x, x > 2)",
    ]),
    "header_value": (header_value, [b"echo", b"=?base64?ZWNobw==?="]),
    "snapshot": (snapshot, [b'{"version":"1","mcp":[{"namespace":"a","name":"b","kind":"Target","path":"/"}]}']),
}  # fmt: skip


def run(name: str) -> Callable[[bytes], None]:
    return cast(Callable[[bytes], None], TARGETS[name][0])
