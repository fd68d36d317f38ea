"""MCP servers of either era that say what tests want, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from quarterdeck import snapshot as s
from quarterdeck.snapshot import routing as r
from quarterdeck.wire import sse
from quarterdeck.wire.client import Response
from quarterdeck.wire.http import Disconnected, Exchange, Server

from ..conftest import Rig

Json = dict[str, Any]
ACCEPT = {"accept": "application/json, text/event-stream"}
ALL = {
    "tools": {"listChanged": True}, "prompts": {}, "resources": {"subscribe": True, "listChanged": True}, "logging": {},
    "completions": {},
}  # fmt: skip

QUESTION: Json = {"message": "sure?", "requestedSchema": {"type": "object", "properties": {}}}


class Upstream:
    """A server of sessions (``modern`` false) or of 2026-07-28. What it was told is in :attr:`told`."""

    def __init__(self, name: str, *, modern: bool = False, version: str = "2025-11-25") -> None:
        self.name = name
        self.modern = modern
        self.version = version
        self.capabilities: Json = dict(ALL)
        self.tools: list[Json] = [{"name": "echo", "inputSchema": {"type": "object"}}]
        self.fresh = 0
        """Milliseconds for which it says that its list of tools may be used again (SEP-2549)."""
        self.told: list[Json] = []
        self.heads: list[dict[bytes, bytes]] = []
        self.sessions: set[str] = set()
        self.opened = 0
        self.streams: list[asyncio.Queue[bytes]] = []
        self.has_stream = True
        self.broken = False
        self.port = 0
        self.holding: set[Exchange] = set()
        self.cancelled = asyncio.Event()
        self.answers: asyncio.Queue[Json] = asyncio.Queue()

    def requests(self, method: str) -> list[Json]:
        return [told for told in self.told if told.get("method") == method]

    async def push(self, message: Json, ident: bytes = b"") -> None:
        """Say something on the GET streams."""
        for queue in self.streams:
            await queue.put(sse.encode(msgspec.json.encode({"jsonrpc": "2.0", **message}), ident=ident))

    async def handle(self, exchange: Exchange) -> None:
        head = dict(exchange.headers)
        if self.broken:
            exchange.respond(503, b"down")
        elif self.modern and head.get(b"mcp-protocol-version") != b"2026-07-28":
            body = {"jsonrpc": "2.0", "id": None, "error": {"code": -32022, "message": "Unsupported protocol version"}}
            exchange.respond(400, msgspec.json.encode(body), [(b"content-type", b"application/json")])
        elif not self.modern and head.get(b"mcp-protocol-version") == b"2026-07-28":
            exchange.respond(400, b"what?")
        elif exchange.method == "GET":
            await self._stream(exchange, head)
        elif exchange.method == "DELETE":
            self.sessions.discard(head.get(b"mcp-session-id", b"").decode())
            self.told.append({"method": "DELETE"})
            exchange.respond(204)
        else:
            await self._post(exchange, head)

    async def _stream(self, exchange: Exchange, head: dict[bytes, bytes]) -> None:
        if not self.has_stream or self.modern:
            exchange.respond(405)
            return
        self.heads.append(head)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.streams.append(queue)
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        await exchange.send(b": hello\n\n")
        try:
            while True:
                await exchange.send(await queue.get())
        except Disconnected:
            return
        finally:
            self.streams.remove(queue)

    async def _post(self, exchange: Exchange, head: dict[bytes, bytes]) -> None:
        message = msgspec.json.decode(exchange.body)
        method = message.get("method", "")
        self.told.append(message)
        self.heads.append(head)
        if method == "initialize":
            self.opened += 1
            session = f"{self.name}-{self.opened}"
            self.sessions.add(session)
            self._result(exchange, message, self._greeting(), [(b"mcp-session-id", session.encode())])
            return
        if not self.modern and head.get(b"mcp-session-id", b"").decode() not in self.sessions:
            exchange.respond(404, b"")
            return
        if "id" not in message or not method:
            if method == "notifications/cancelled":
                self.cancelled.set()
            if not method:
                await self.answers.put(message)
            exchange.respond(202)
            return
        await self._request(exchange, message, method)

    def _greeting(self) -> Json:
        said = {"serverInfo": {"name": self.name, "version": "1"}, "capabilities": self.capabilities}
        return {"protocolVersion": self.version, "instructions": f"I am {self.name}.", **said}

    async def _request(self, exchange: Exchange, message: Json, method: str) -> None:
        params = message.get("params") or {}
        if method == "server/discover":
            said = {"_meta": {"io.modelcontextprotocol/serverInfo": {"name": self.name}}}
            self._result(exchange, message, {**self._greeting(), **said, "supportedVersions": ["2026-07-28"]})
        elif method == "tools/list":
            said = {"ttlMs": self.fresh, "cacheScope": "private"} if self.fresh else {}
            self._result(exchange, message, {"tools": self.tools, **said})
        elif method == "prompts/list":
            self._result(exchange, message, {"prompts": [{"name": "hello"}]})
        elif method == "resources/list":
            self._result(exchange, message, {"resources": [{"uri": "memo://one", "name": "one"}]})
        elif method == "resources/templates/list":
            self._result(exchange, message, {"resourceTemplates": [{"uriTemplate": "memo://{x}", "name": "t"}]})
        elif method == "resources/read":
            self._result(exchange, message, {"contents": [{"uri": params["uri"], "text": self.name}]})
        elif method == "prompts/get":
            self._result(exchange, message, {"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}]})
        elif method == "completion/complete":
            self._result(
                exchange, message, {"completion": {"values": [params["ref"].get("name") or params["ref"]["uri"]]}}
            )
        elif method.startswith("tasks/"):
            self._result(exchange, message, {"taskId": params.get("taskId"), "status": "working"})
        elif method == "subscriptions/listen":
            await self._listen(exchange, message)
        elif method == "tools/call":
            await self._call(exchange, message, params)
        else:
            self._result(exchange, message, {})

    async def _listen(self, exchange: Exchange, message: Json) -> None:
        tag = {"io.modelcontextprotocol/subscriptionId": message["id"]}
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        first = {"method": "notifications/subscriptions/acknowledged", "params": {"_meta": tag}}
        await exchange.send(sse.encode(msgspec.json.encode({"jsonrpc": "2.0", **first})))
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.streams.append(queue)
        try:
            while True:
                await exchange.send(await queue.get())
        except Disconnected:
            return
        finally:
            self.streams.remove(queue)

    async def _call(self, exchange: Exchange, message: Json, params: Json) -> None:
        name = params["name"]
        if name == "echo":
            text = msgspec.json.encode(params.get("arguments") or {}).decode()
            self._result(exchange, message, {"content": [{"type": "text", "text": f"{self.name}: {text}"}]})
        elif name == "task":
            self._result(exchange, message, {"resultType": "task", "taskId": "t1", "status": "working"})
        elif name == "link":
            link = {"type": "resource_link", "uri": "memo://one", "name": "one"}
            self._result(exchange, message, {"content": [link]})
        elif name == "ask" and self.modern:
            self._ask_modern(exchange, message, params)
        elif name == "ask":
            await self._ask(exchange, message)
        elif name == "progress":
            token = (params.get("_meta") or {}).get("progressToken")
            exchange.start(200, [(b"content-type", b"text/event-stream")])
            note = {"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
            await exchange.send(sse.encode(msgspec.json.encode({"jsonrpc": "2.0", **note}), ident=b"e7"))
            done = {"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}}
            await exchange.send(sse.encode(msgspec.json.encode(done)))
            exchange.finish()
        elif name == "hang":
            await self._hang(exchange)

    async def _hang(self, exchange: Exchange) -> None:
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        self.holding.add(exchange)
        exchange.on_disconnect(self.cancelled.set)
        await exchange.send(b": working\n\n")
        await asyncio.Event().wait()

    def _ask_modern(self, exchange: Exchange, message: Json, params: Json) -> None:
        given = params.get("inputResponses")
        if given is None:
            question = {"method": "elicitation/create", "params": dict(QUESTION)}
            self._result(
                exchange,
                message,
                {"resultType": "input_required", "inputRequests": {"sure": question}, "requestState": "s1"},
            )
        else:
            text = f"{given['sure']['action']} {params.get('requestState')}"
            self._result(exchange, message, {"resultType": "complete", "content": [{"type": "text", "text": text}]})

    async def _ask(self, exchange: Exchange, message: Json) -> None:
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        meta = {"progressToken": "up"}
        question = {"id": 5, "method": "elicitation/create", "params": {**QUESTION, "_meta": meta}}
        await exchange.send(sse.encode(msgspec.json.encode({"jsonrpc": "2.0", **question}), ident=b"q1"))
        answer = await self.answers.get()
        text = f"{answer['id']} {answer['result']['action']}"
        done = {"jsonrpc": "2.0", "id": message["id"], "result": {"content": [{"type": "text", "text": text}]}}
        await exchange.send(sse.encode(msgspec.json.encode(done)))
        exchange.finish()

    def _result(self, exchange: Exchange, message: Json, result: Json, headers: Any = ()) -> None:
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": message["id"], "result": result})
        exchange.respond(200, body, [(b"content-type", b"application/json"), *headers])


@asynccontextmanager
async def running(*upstreams: Upstream) -> AsyncIterator[None]:
    servers: list[Server] = []
    for upstream in upstreams:
        server = Server(upstream.handle, name=upstream.name)
        _, upstream.port = await server.listen("127.0.0.1", 0)
        servers.append(server)
    yield
    for server in servers:
        await server.stop(0)


def behind(*upstreams: Upstream, **backend: Any) -> s.Snapshot:
    """All of them behind one route of one listener ``front``, for anybody."""
    servers = tuple(
        s.McpServer("ns", u.name, "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", u.port),), timeout=5.0)
        for u in upstreams
    )
    targets = tuple(r.McpTarget(u.name, f"Target/ns/{u.name}") for u in upstreams)
    destination = r.RouteBackend(mcp=r.McpBackend("all", targets, **backend), policies=r.Policies(open=True))
    route = r.Route("ns/all", policies=r.Policies(open=True), backends=(destination,))
    listener = r.Listener("front", 0, address="127.0.0.1", routes=(route,))
    return s.Snapshot(version="v1", mcp=servers, listeners=(listener,))


class Client:
    """A client of 2025-11-25 with a session, over one or several gateways in turn (as behind a balancer)."""

    def __init__(self, *rigs: Rig, path: str = "/mcp") -> None:
        self.rigs = rigs
        self.path = path
        self.session = ""
        self._turn = 0
        self._id = 0

    async def initialize(self, version: str = "2025-11-25", **capabilities: Any) -> Json:
        params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}}
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        response = await self.post(body)
        answer = msgspec.json.decode(await response.read())
        self.session = (response.header(b"mcp-session-id") or b"").decode()
        return answer

    async def post(self, body: Any, method: str = "POST", **headers: str) -> Response:
        """To the next gateway in turn, on a connection of its own."""
        rig = self.rigs[self._turn % len(self.rigs)]
        self._turn += 1
        sent = {**ACCEPT, **({"mcp-session-id": self.session} if self.session else {})}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await rig.request(self.path, body, method=method, headers=sent, listener="front")

    async def call(self, method: str, **params: Any) -> Json:
        """One request; the whole answer."""
        return (await self.events(method, **params))[-1]

    async def events(self, method: str, **params: Any) -> list[Json]:
        """Everything that comes on the stream of one request."""
        self._id += 1
        response = await self.post({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        return [message async for message in messages(response)]


async def messages(response: Response) -> AsyncIterator[Json]:
    """What comes, as it comes."""
    if not (response.header(b"content-type") or b"").startswith(b"text/event-stream"):
        data = await response.read()
        if data:
            yield msgspec.json.decode(data)
        return
    parser = sse.SseParser()
    async for chunk in response:
        for event in parser.feed(chunk):
            if event.data:
                yield {**msgspec.json.decode(event.data), **({"_id": event.id.decode()} if event.id else {})}


def modern(method: str, capabilities: Json | None = None, ident: Any = 1, **params: Any) -> tuple[Json, dict[str, str]]:
    """Body and headers of a request of 2026-07-28."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities or {},
        **params.pop("_meta", {}),
    }
    headers = {**ACCEPT, "mcp-protocol-version": "2026-07-28", "mcp-method": method}
    name = params.get("name") or params.get("uri")
    if method in ("tools/call", "prompts/get", "resources/read"):
        headers["mcp-name"] = name
    return {"jsonrpc": "2.0", "id": ident, "method": method, "params": {**params, "_meta": meta}}, headers


async def ask(rig: Rig, method: str, capabilities: Json | None = None, path: str = "/mcp", **params: Any) -> Json:
    """One request of 2026-07-28; its answer."""
    body, headers = modern(method, capabilities, **params)
    response = await rig.request(path, body, headers=headers, listener="front")
    return [message async for message in messages(response)][-1]
