"""Tool discovery: ask MCP servers which tools they have, straight at their endpoints, with back-off per server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quarterdeck import __version__
from quarterdeck.errors import ConfigError, QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.kube.resource import Key, Object
from quarterdeck.mcptypes import protocol
from quarterdeck.snapshot import McpServer
from quarterdeck.wire.client import Pool, Response
from quarterdeck.wire.http import Header
from quarterdeck.wire.sse import SseParser
from quarterdeck.wire.tls import client_context

DISABLED = "kagent.dev/discovery"
_PAGES = 100
_META = "io.modelcontextprotocol/"
_CLIENT = {"name": "quarterdeck-discovery", "version": __version__}
_DESCRIPTION_LIMIT = 2048


class RpcError(UpstreamError):
    """The server answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


@dataclass(slots=True)
class Found:
    """What a server said last. ``again_in``: seconds until it is asked again."""

    tools: list[Object] = field(default_factory=list[Object])
    error: str = ""
    again_in: float = 0.0

    def listed(self) -> list[Object]:
        """As status.discoveredTools: sorted, descriptions cut to a size a status can carry."""
        tools = [
            {"name": str(tool.get("name", "")), "description": str(tool.get("description") or "")[:_DESCRIPTION_LIMIT]}
            for tool in self.tools
        ]
        return sorted(tools, key=lambda tool: tool["name"])


@dataclass(slots=True)
class _Known:
    server: McpServer
    found: Found
    due: float
    failures: int


class Discovery:
    """Remembers each server's answer; asks again after ``interval`` seconds, or 2, 4, … up to that after failures."""

    def __init__(self, clock: Callable[[], float], interval: float = 60.0) -> None:
        self._clock = clock
        self._interval = interval
        self._known: dict[tuple[str, str, str], _Known] = {}

    def forget(self, kind: str, key: Key) -> None:
        self._known.pop((kind, key.namespace, key.name), None)

    async def tools(self, server: McpServer) -> Found:
        """The server's tools; from memory while nothing about the server changed and it is not due again."""
        slot = (server.kind, server.namespace, server.name)
        known = self._known.get(slot)
        now = self._clock()
        if known is not None and known.server == server and now < known.due:
            return Found(known.found.tools, known.found.error, known.due - now)
        failures = known.failures if known is not None and known.server == server else 0
        try:
            found = Found(await list_tools(server))
            failures = 0
            wait = self._interval
        except QuarterdeckError as error:
            found = Found(error=f"{server.kind} {server.namespace}/{server.name}: {error}")
            wait = min(2.0 * 2**failures, self._interval)
            failures += 1
        found.again_in = wait
        self._known[slot] = _Known(server, found, self._clock() + wait, failures)
        return found


async def list_tools(server: McpServer) -> list[Object]:
    """All tools of a server, every page. Raises UpstreamError or TimedOut saying what failed."""
    if not server.endpoints:
        raise UpstreamError("has no ready endpoints")
    if server.protocol == "SSE":
        raise ConfigError("protocol SSE cannot be discovered; use STREAMABLE_HTTP")
    context: ssl.SSLContext | None = None
    if server.tls:
        context = client_context(insecure=server.tls_insecure, ca_pem=server.tls_ca, where=server.name)
    name = server.authority.rsplit(":", 1)[0] if server.tls else None
    pool = Pool(tls=context, server_hostname=name, body_limit=16 * 1024 * 1024)
    try:
        async with asyncio.timeout(server.timeout):
            return await _Conversation(pool, server).tools()
    except TimeoutError as error:
        raise TimedOut(f"did not answer within {server.timeout:g} s") from error
    finally:
        pool.close()


class _Conversation:
    """One exchange with a server: a session where it has sessions, stateless requests where it does not."""

    def __init__(self, pool: Pool, server: McpServer) -> None:
        self._pool = pool
        self._server = server
        endpoint = server.endpoints[0]
        self._origin = (endpoint.host, endpoint.port, server.tls)
        self._session: bytes | None = None
        self._version = protocol.LATEST_LEGACY
        self._ident = 0

    async def tools(self) -> list[Object]:
        modern = False
        try:
            await self._initialize()
        except UpstreamError as first:
            if not isinstance(first, RpcError):
                raise
            self._version, modern = protocol.MODERN_VERSIONS[-1], True
            try:
                await self._call(protocol.DISCOVER, {}, modern=True)
            except UpstreamError:
                raise first from None
        try:
            return await self._pages(modern)
        finally:
            await self._end()

    async def _initialize(self) -> None:
        params = {"protocolVersion": self._version, "capabilities": {}, "clientInfo": _CLIENT}
        result = await self._call(protocol.INITIALIZE, params)
        self._version = str(result.get("protocolVersion") or self._version)
        response = await self._post({"jsonrpc": "2.0", "method": protocol.INITIALIZED})
        await response.read()

    async def _pages(self, modern: bool) -> list[Object]:
        tools: list[Object] = []
        cursor: str | None = None
        for _ in range(_PAGES):
            result = await self._call(protocol.TOOLS_LIST, {"cursor": cursor} if cursor else {}, modern=modern)
            page = result.get("tools")
            if not isinstance(page, list):
                raise UpstreamError("tools/list: the answer has no list of tools")
            tools += [tool for tool in page if isinstance(tool, dict)]
            following = result.get("nextCursor")
            if not following or following == cursor:
                break
            cursor = str(following)
        return tools

    async def _call(self, method: str, params: dict[str, Any], *, modern: bool = False) -> Object:
        self._ident += 1
        if modern:
            meta = {"protocolVersion": self._version, "clientCapabilities": {}, "clientInfo": _CLIENT}
            params = params | {"_meta": {_META + key: value for key, value in meta.items()}}
        body = {"jsonrpc": "2.0", "id": self._ident, "method": method, "params": params}
        response = await self._post(body)
        session = response.header(b"mcp-session-id")
        if session is not None:
            self._session = session
        message = await _message(response, self._ident)
        if message is None:
            raise _refusal(response, method)
        failure = message.get("error")
        if isinstance(failure, dict):
            raise RpcError(int(failure.get("code") or 0), f"{method}: {failure.get('message') or 'error'}")
        result = message.get("result")
        return result if isinstance(result, dict) else {}

    async def _post(self, body: dict[str, Any]) -> Response:
        headers: list[Header] = [
            (b"content-type", b"application/json"),
            (b"accept", b"application/json, text/event-stream"),
            (b"host", (self._server.authority or f"{self._origin[0]}:{self._origin[1]}").encode()),
        ]
        if body["method"] != protocol.INITIALIZE:
            headers.append((b"mcp-protocol-version", self._version.encode()))
        if self._version in protocol.MODERN_VERSIONS:
            headers.append((b"mcp-method", body["method"].encode()))
        if self._session is not None:
            headers.append((b"mcp-session-id", self._session))
        headers += [(header.name.lower().encode(), header.value.encode()) for header in self._server.headers]
        data = msgspec.json.encode(body)
        return await self._pool.request("POST", self._origin, self._server.path, headers, data, timeout=None)

    async def _end(self) -> None:
        """End the session; a server that refuses or is gone has nothing left to end."""
        if self._session is None:
            return
        headers: list[Header] = [
            (b"mcp-session-id", self._session),
            (b"mcp-protocol-version", self._version.encode()),
            (b"host", (self._server.authority or f"{self._origin[0]}:{self._origin[1]}").encode()),
        ]
        headers += [(header.name.lower().encode(), header.value.encode()) for header in self._server.headers]
        try:
            response = await self._pool.request("DELETE", self._origin, self._server.path, headers, timeout=5.0)
            await response.read()
        except (UpstreamError, TimedOut):
            return


async def _message(response: Response, ident: int) -> Object | None:
    """The JSON-RPC answer to ``ident`` from a JSON body or an event stream; None when there is none."""
    kind = response.header(b"content-type") or b""
    if kind.startswith(b"text/event-stream"):
        parser = SseParser()
        async for chunk in response:
            for event in parser.feed(chunk):
                message = _decode(event.data)
                if message is not None and message.get("id") == ident:
                    return message
        return None
    body = await response.read()
    return _decode(body) if kind.startswith(b"application/json") else None


def _decode(data: bytes) -> Object | None:
    if not data.strip():
        return None
    try:
        message = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise UpstreamError(f"answered something that is not JSON: {data[:60]!r}") from error
    known = isinstance(message, dict) and ("result" in message or "error" in message)
    return message if known else None


def _refusal(response: Response, method: str) -> UpstreamError:
    if response.status in (401, 403):
        return UpstreamError(f"{method}: HTTP {response.status}: credentials are needed; see headersFrom")
    if response.status in (400, 404, 405):
        return RpcError(response.status, f"{method}: HTTP {response.status}: is this the path of an MCP endpoint?")
    return UpstreamError(f"{method}: HTTP {response.status} without a JSON-RPC answer")
