"""What is fuzzed: each target takes bytes and may raise only the errors its callers are told of.

Any other exception, a broken invariant, a hang, or memory beyond the limit is a finding.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from tests.gateway.policy.rig import chain, provider, request, token, tokens

from quarterdeck.cel import CompileError, EvalError, Limits
from quarterdeck.cel import compile as compile_cel
from quarterdeck.errors import ConfigError, QuarterdeckError, UpstreamError
from quarterdeck.gateway.a2a.cards import rewrite
from quarterdeck.gateway.config.standalone import FileOptions, load
from quarterdeck.gateway.http import paths
from quarterdeck.gateway.mcp import ids, merge, muxrelay, naming, openapi, virtual
from quarterdeck.gateway.mcp.call import McpCall
from quarterdeck.gateway.mcp.relay import McpRelay
from quarterdeck.gateway.mcp.session import SessionSealer
from quarterdeck.gateway.oauth import challenge, pages
from quarterdeck.gateway.observe import Observer
from quarterdeck.gateway.policy.jwks import parse_keys
from quarterdeck.gateway.policy.principal import Principal
from quarterdeck.gateway.policy.wellknown import no_web_address, registered
from quarterdeck.gateway.upstream import Upstreams
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import headers, jsonrpc, lists, modern
from quarterdeck.snapshot import decode
from quarterdeck.snapshot.policies import ApiKey, ApiKeys, BasicUsers, Cors, Csrf, Jwt, Location
from quarterdeck.snapshot.virtual import ChosenTool
from quarterdeck.telemetry.audit import open_log
from quarterdeck.telemetry.metrics import Registry
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
_CHAINS = [
    *(chain(jwt=tokens(location=Location(*place))) for place in (
        ("header", "authorization", "Bearer "), ("query", "t", ""), ("cookie", "t", ""), ("header", "x-t", ""),
    )),
    chain(jwt=Jwt((provider(),), "permissive")),
    chain(basic=BasicUsers("alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")),
    chain(api_keys=ApiKeys((ApiKey(sha256(b"k").hexdigest()),), "strict", Location("cookie", "t", ""))),
    chain(cors=Cors(("https://*.example",), ("*",)), csrf=Csrf(), open=True),
]  # fmt: skip
_SEALER = SessionSealer(b"k" * 32)
_UPSTREAMS = Upstreams()
_OBSERVER = Observer(open_log(Path("/dev/null")), Registry())
_GROUP = SimpleNamespace(single=None)
_MEMBER = SimpleNamespace(
    name="m", shown="m", mark="m", name_out=lambda name: f"m_{name}", uri_out=lambda uri: f"m+{uri}",
    task_out=lambda task: f"m+{task}",
)  # fmt: skip
_ENTRIES = [
    ChosenTool("s", "t", title="T", defaults={"b": 1}, fixed={"a": "x"}, hidden=("c",)),
    ChosenTool("s", "t", description="D", annotations={"readOnlyHint": True}, fixed={"a": None}),
    ChosenTool("s", "t"),
]


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


def known_request(data: bytes) -> None:
    """A second message reads the same on a server that has seen the first as on one that has seen nothing."""
    first, _, second = data.partition(b"~~")

    async def run() -> None:
        seen: list[Any] = []

        def handler(exchange: Exchange) -> None:
            fields = sorted(exchange.headers)
            seen.append(
                (exchange.method, exchange.target, fields, exchange.body, exchange.keep_alive, exchange.upgrade)
            )
            exchange.respond(200)

        async def given(server: Server, message: bytes) -> tuple[list[Any], bool]:
            connection, transport = ServerConnection(server), Transport()
            connection.connection_made(transport)
            seen.clear()
            connection.data_received(message)
            await _turn()
            found, closing = list(seen), transport.closing
            connection.connection_lost(None)
            return found, closing

        limits = HttpLimits(header_bytes=2000, body_bytes=1000)
        knowing, fresh = Server(handler, limits=limits), Server(handler, limits=limits)
        for message in (first, first):
            await given(knowing, message)
        assert await given(knowing, second) == await given(fresh, second)

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


class Telling(Sink):
    """Keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        super().on_head(status, headers)
        self.told += [status, sorted(headers)]

    def on_body(self, data: bytes) -> None:
        super().on_body(data)
        self.told.append(data)


def known_response(data: bytes) -> None:
    """The same for answers: what a pool has seen before changes nothing of what is read of the next."""
    first, _, second = data.partition(b"~~")

    async def given(pool: Pool, answer: bytes) -> tuple[Any, ...]:
        connection, transport, sink = ClientConnection(pool, ("127.0.0.1", 1, False)), Transport(), Telling()
        connection.connection_made(transport)
        connection.send(sink, b"GET / HTTP/1.1\r\n\r\n")
        connection.data_received(answer)
        ended, reusable = sink.ended, not connection.closed and not transport.closing
        connection.connection_lost(None)
        await _turn()
        body = b"".join(part for part in sink.told[2:] if isinstance(part, bytes))
        return sink.told[:2], body, ended, reusable

    async def run() -> None:
        knowing = Pool()
        for answer in (first, first):
            await given(knowing, answer)
        assert await given(knowing, second) == await given(Pool(), second)

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


def configuration(data: bytes) -> None:
    """A file that people write, of either generation."""
    text = data[1:].decode("utf-8", "replace")
    with contextlib.suppress(ConfigError):
        load(FileOptions(inline=text, compat="now" if data[:1] < b"\x80" else "oct"), {"A": "b"}, Path("/nonexistent"))


def openapi_document(data: bytes) -> None:
    """An API's description, and arguments for its first operation."""
    try:
        document, arguments = msgspec.json.decode(data, type=tuple[dict[str, Any], dict[str, Any]])
    except MALFORMED:
        return
    with contextlib.suppress(ConfigError, openapi.ArgumentError):
        for operation in openapi.operations(document).values():
            prepared = openapi.prepare(operation, arguments)
            assert " " not in prepared.target and "\n" not in prepared.target
            assert not any(b"\r" in line or b"\n" in line for header in prepared.headers for line in header)


def credential(data: bytes) -> None:
    """What callers show: tokens, keys, passwords, cookies, parameters, origins."""
    given = data[1:].replace(b"\n", b"").replace(b"\r", b"")
    call = request("POST")
    call.exchange.target = b"/mcp?t=" + given.replace(b"#", b"").replace(b" ", b"")
    names = (b"authorization", b"x-t", b"origin", b"host", b"x-forwarded-for", b"x-forwarded-host")
    lines = [*((name, given) for name in names), (b"cookie", b"t=" + given), (b"cookie", given)]
    call.exchange.headers[:] = lines
    call.exchange.context.clear()
    call.exchange.context.update(lines)
    which = _CHAINS[data[0] % len(_CHAINS)] if data else _CHAINS[0]
    outcome = which.admit(call)
    if inspect.iscoroutine(outcome):
        outcome.close()
    else:
        assert outcome is None or outcome.status in (200, 400, 401, 403, 503), outcome
        which.outgoing(call, list(lines))


def card(data: bytes) -> None:
    """An agent's card: every address in it is the gateway's afterwards."""
    base = "http://gw/a2a/ns/a"
    try:
        made = rewrite(data, base, bearer=len(data) % 2 == 1)
    except MALFORMED:
        return
    shown: list[Any] = [made]
    for key in ("supportedInterfaces", "additionalInterfaces"):
        listed: Any = made.get(key)
        shown += listed if isinstance(listed, list) else []
    for item in shown:
        if isinstance(item, dict) and "url" in item:
            assert item["url"] == base or item["url"].startswith((base + "/", base + "?")), item


def virtual_tool(data: bytes) -> None:
    """A server's tool and a virtual server's entry for it: what is closed is neither shown nor taken."""
    try:
        data[1:].decode()
        item, arguments = msgspec.json.decode(data[1:], type=tuple[msgspec.Raw, dict[str, msgspec.Raw]])
        entry = _ENTRIES[data[0] % len(_ENTRIES)]
        shown = json.loads(bytes(virtual._tool_out(cast(Any, _MEMBER), item, "n", entry)))
    except (*MALFORMED, IndexError):
        return
    properties = (shown.get("inputSchema") or {}).get("properties")
    assert shown["name"] == "n" and not (isinstance(properties, dict) and properties.keys() & set(entry.closed))
    try:
        sent = json.loads(virtual._Fill(entry).apply(arguments))
    except msgspec.ValidationError:
        return
    assert all(sent[name] == value for name, value in entry.fixed.items())


def server_says(data: bytes) -> None:
    """Definitions, results and notices of one of several servers, on their way to the client."""
    raw, member = msgspec.Raw(data), cast(Any, _MEMBER)
    for key in ("tools", "prompts", "resources", "resourceTemplates"):
        with contextlib.suppress(*MALFORMED):
            naming.item_out(member, key, raw)
    for method in ("tools/call", "prompts/get", "resources/read", "completion/complete", "tasks/get"):
        change = naming.result_out(member, method, "m_x", "x")
        with contextlib.suppress(*MALFORMED, UpstreamError):
            if change is not None:
                change(data)
    for method in ("notifications/progress", "notifications/resources/updated", "notifications/message"):
        with contextlib.suppress(*MALFORMED, UpstreamError):
            naming.notice_out(member, method, raw)
    with contextlib.suppress(*MALFORMED, UpstreamError):
        muxrelay.outgoing(member, data)
    with contextlib.suppress(*MALFORMED, ValueError):
        schema = msgspec.json.decode(data)
        mapping = modern.mirrored(schema)
        if mapping:
            given = modern.param_headers(mapping, schema)
            assert not any(b"\r" in part or b"\n" in part for header in given for part in header)
            assert modern.param_problem(mapping, schema, given) == ""
    merge.position(data.decode("latin-1"))


def sign_in_form(data: bytes) -> None:
    """Queries, forms and cookies of a sign-in, and challenges of servers."""
    text = data.decode("latin-1")
    found = pages._form(text)
    assert all(isinstance(value, str) for value in found.values())
    exchange = SimpleNamespace(headers=[(b"cookie", data)])
    pages._same(pages._hash(pages._cookie_of(cast(Any, exchange), "qd-sign-in")), text)
    said = challenge.read(401, [(b"www-authenticate", data)])
    assert len(said.scope) <= len(data) and len(said.resource_metadata) <= len(data)


def path(data: bytes) -> None:
    """A request target: what is matched is what is sent on, and stays so when it is read again."""
    try:
        found = paths.parse(data)
    except paths.BadPath:
        return
    again = paths.parse(found.target)
    assert (again.raw, again.text) == (found.raw, found.text)
    assert ".." not in found.text.split("/") and found.text.startswith("/") and found.raw.isascii()


def handle(data: bytes) -> None:
    """Session ids, cursors, event and request ids: made up ones are unknown."""
    assert _SEALER.open(data, b"route") is None and _SEALER.open_bytes(data, b"route") is None
    ids.event_in(data)
    ids.request_in(msgspec.Raw(data))
    ids.own_in(msgspec.Raw(data))


def metadata(data: bytes) -> None:
    """Documents of authorization servers and clients that register."""
    for read in (parse_keys, lambda given: registered(given, "id")):
        with contextlib.suppress(ValueError, *MALFORMED):
            read(data)
    with contextlib.suppress(*MALFORMED):
        no_web_address(msgspec.json.decode(data, type=dict[str, Any]))


class Answered(Transport):
    """Keeps what a client gets."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: Any) -> None:
        super().write(data)
        self.data += bytes(data)


def upstream_answer(data: bytes) -> None:
    """What an MCP server answers to a call, as JSON or as a stream: the client gets one answer to its own request."""

    async def run() -> None:
        relays: list[McpRelay] = []

        def handler(exchange: Exchange) -> None:
            exchange.context = dict(exchange.headers)
            call = McpCall(exchange, cast(Any, _GROUP), Principal("x"))
            _OBSERVER.begin(call)
            call.raw_id, call.method, call.tool, call.server = b"7", "tools/call", "t", "ns/s"
            call.route = cast(Any, SimpleNamespace(remedy="see"))
            relays.append(McpRelay(_UPSTREAMS, exchange, call, _OBSERVER, timeout=0.0))

        server = Server(handler)
        connection, transport = ServerConnection(server), Answered()
        connection.connection_made(transport)
        connection.data_received(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        relay = relays[0]
        stream = bool(data) and data[0] & 1 == 0
        relay.on_head(200, [(b"content-type", b"text/event-stream" if stream else b"application/json")])
        for piece in pieces(data[1:]):
            relay.on_body(piece)
        relay.on_end()
        await _turn()
        connection.connection_lost(None)
        assert relay.finished
        if not stream:
            body = transport.data.partition(b"\r\n\r\n")[2]
            said = json.loads(body)
            assert said.get("id") == 7 or (said.get("id") is None and "error" in said), said

    _LOOP.run_until_complete(run())


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
    "known_request": (known_request, [
        b"POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntraceparent: 00-1-2-01\r\n\r\nhi"
        b"~~POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nx-request-id: 7\r\ntraceparent: 00-1-3-01\r\n\r\nyou",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
        b"~~POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx~~GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        b"~~POST / HTTP/1.1\r\nhost: a\r\n\r\n",
    ]),
    "known_response": (known_response, [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi~~HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyou",
        b"HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n~~HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx~~HTTP/1.0 200 OK\r\n\r\nx",
    ]),
    "message": (message, [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":"\\u0041"}}}',
        b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"a","Name":"b"}}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"x"}]',
    ]),
    "answer": (answer, [b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a1"},{"name":"b"}],"nextCursor":"x"}}']),
    "events": (events, [b"\x03event: message\ndata: {}\nid: 1\n\n: keep\n\ndata: a\r\ndata: b\r\n\r\n"]),
    "expression": (expression, [
        b'jwt.sub == "ann" && mcp.tool.name in ["echo"]', b'request.headers["x-a"].matches("^[0-9]+$")',
        b"jwt.groups.exists(g, g == 'a') ? 1 : 2", b"[1,2,3].map(x, x * 2).filter(x, x > 2)",
    ]),
    "header_value": (header_value, [b"echo", b"=?base64?ZWNobw==?="]),
    "configuration": (configuration, [
        b"\x00binds:\n- port: 3000\n  listeners:\n  - routes:\n    - policies: {cors: {allowOrigins: ['*']}}\n"
        b"      backends: [{mcp: {targets: [{name: a, mcp: {host: 'http://h/mcp'}}, {name: b, stdio: {cmd: x}}]}}]\n",
        b'\xffbinds: [{port: 1, listeners: [{routes: [{matches: [{path: {regex: ["a", 1]}}],'
        b' backends: [{host: "h:1"}]}]}]}]',
        b'\x00{"mcpServers": {"a": {"command": "x", "args": ["${A}"]}, "b": {"url": "http://h/mcp"}}}',
        b"\x00a: &a [1, *a]\nb: !!python/object:os.system x\n<<: {c: 1}\n",
    ]),
    "openapi_document": (openapi_document, [
        b'[{"openapi":"3.0.0","paths":{"/p/{id}":{"get":{"operationId":"g","parameters":[{"name":"id","in":"path"},'
        b'{"name":"X-A","in":"header"},{"name":"q","in":"query","style":"deepObject",'
        b'"schema":{"$ref":"#/components/x"}}]}}}},'
        b'{"path":{"id":"a/b"},"header":{"X-A":"v"},"query":{"q":{"a":[1]}}}]',
    ]),
    "credential": (credential, [
        b"\x00Bearer " + token().encode(), b"\x05Basic YWxpY2U6c2VjcmV0", b"\x01" + token().encode(),
        b"\x06k; t=k; a=\"b",
        b"\x07https://a.example", b"\x00Bearer e30.e30.", b"\x00Bearer ey.ey.ey, Basic x",
    ]),
    "card": (card, [
        b'{"name":"a","url":"http://x/rpc","supportedInterfaces":[{"url":"//evil/x","protocolBinding":"JSONRPC"}],'
        b'"additionalInterfaces":[{"url":"javascript:x","transport":"HTTP+JSON"}],"preferredTransport":"GRPC"}',
    ]),
    "virtual_tool": (virtual_tool, [
        b'\x00[{"name":"t","inputSchema":{"type":"object","properties":{"a":{"type":"string"},"b":{}},"required":["a","b"]}},'
        b'{"c":1}]',
        b'\x01[{"name":"t","annotations":{"x":1},"inputSchema":{"properties":[1]}},{"A":1}]',
    ]),
    "server_says": (server_says, [
        b'{"name":"t","uri":"memo://x","_meta":{"ui":{"resourceUri":"ui://x"}},"properties":{"a":{"type":"string","x-mcp-header":"R"}}}',
        b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"resource_link","uri":"a://b"},{"resource":{"uri":"c"}}],'
        b'"contents":[{"uri":"x"}],"taskId":"t","resultType":"task"}}',
        b'{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"_meta":{"progressToken":1}}}',
        b'{"uri":"memo://x","progressToken":"qd.MQ.m"}',
    ]),
    "sign_in_form": (sign_in_form, [
        b"code=c&state=s&iss=https%3A%2F%2Fa&state=t", b"qd-sign-in=abc; other=1",
        b'Bearer error="insufficient_scope", scope="a b", resource_metadata="https://a/x", Basic realm="\\"x"',
    ]),
    "path": (path, [b"/a/../b/%2e%2e/c%2Fd//e;x=1?q=1", b"/%C3%A9/..;/x", b"//h/p"]),
    "handle": (handle, [b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", b"one~12", b'"qd.MQ.one"', b'"qd!7"']),
    "metadata": (metadata, [
        b'{"issuer":"https://a","token_endpoint":"https://a/t","mtls_endpoint_aliases":{"token_endpoint":"x"},'
        b'"redirect_uris":["https://a/cb","cursor://x"],"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}',
    ]),
    "upstream_answer": (upstream_answer, [
        b'\x01{"jsonrpc":"2.0","id":7,"result":{"content":[]}}',
        b'\x02\x07event: message\ndata: {"jsonrpc":"2.0","method":"notifications/progress"}\nid: 1\n\n'
        b'data: {"jsonrpc":"2.0","id":7,"result":{"isError":true}}\n\n',
        b'\x01{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"x"}}',
    ]),
    "snapshot": (snapshot, [b'{"version":"1","mcp":[{"namespace":"a","name":"b","kind":"Target","path":"/"}]}']),
}  # fmt: skip


def run(name: str) -> Callable[[bytes], None]:
    return cast(Callable[[bytes], None], TARGETS[name][0])
