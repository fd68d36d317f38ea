"""A small MCP client over Streamable HTTP, for agents, tool discovery and ``qd tools``.

Unlike the official SDK it keeps unknown fields, needs a few MB instead of forty and shares our connection pool. It
opens a session (2025-11-25) and falls back to stateless requests (2026-07-28) where a server has no sessions any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from quarterdeck import __version__
from quarterdeck.errors import ConfigError, Denied, QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.malformed import loads
from quarterdeck.mcptypes import LATEST_LEGACY, MODERN_VERSIONS, protocol
from quarterdeck.mcptypes.headers import encode_value
from quarterdeck.wire.client import Origin, Pool, Response
from quarterdeck.wire.http import Header
from quarterdeck.wire.sse import SseParser

_PAGES = 100
_CLIENT = {"name": "quarterdeck", "version": __version__}

HeaderSource = Callable[[], Awaitable[list[Header]]]
"""Headers of each request, asked for anew so that a rotated token is used."""


class RpcError(UpstreamError):
    """The server answered with a JSON-RPC error; ``code`` and ``data`` are its."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class SessionEnded(UpstreamError):
    """The server does not know ``session`` any more: nothing was carried out."""

    def __init__(self, text: str, session: str) -> None:
        super().__init__(text)
        self.session = session


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the server describes it. ``schema`` is its inputSchema."""

    name: str
    description: str
    schema: dict[str, Any]
    raw: dict[str, Any] = field(repr=False)


def split_url(url: str) -> tuple[Origin, str]:
    """Origin and target of an ``http(s)://`` URL; no path means ``/``. Raises ConfigError."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not an http(s) URL")
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return (parts.hostname, port or (443 if secure else 80), secure), target


async def no_headers() -> list[Header]:
    return []


class McpClient:
    """One session with one server, opened on first use and opened again when the server has forgotten it.

    ``timeout`` is the longest silence of the server in seconds; progress counts as a sign of life.
    ``origin`` is where to connect when that is not what the URL's authority says (a Pod behind a Service).
    """

    def __init__(
        self,
        pool: Pool,
        url: str,
        *,
        headers: HeaderSource = no_headers,
        timeout: float = 30.0,
        origin: Origin | None = None,
    ) -> None:
        self.url = url
        self.server: dict[str, Any] = {}
        self._pool = pool
        named, self._target = split_url(url)
        self._origin = origin or named
        self._host = urlsplit(url).netloc.rpartition("@")[2].encode("latin-1")
        self._headers = headers
        self._timeout = timeout
        self._session: str | None = None
        self._version = LATEST_LEGACY
        self._ready = False
        self._modern = False
        self._opening = asyncio.Lock()
        self._ids = count(1)

    async def list_tools(self) -> list[Tool]:
        """All tools, all pages. Raises RpcError, UpstreamError, TimedOut, Denied."""
        found: list[Tool] = []
        cursor: str | None = None
        for _ in range(_PAGES):
            result = await self.request(protocol.TOOLS_LIST, {"cursor": cursor} if cursor else {})
            for raw in result.get("tools", []):
                if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
                    raise UpstreamError(f"{self.url}: tools/list holds an entry without a name")
                schema = raw.get("inputSchema")
                description = str(raw.get("description") or raw.get("title") or "")
                found.append(Tool(raw["name"], description, schema if isinstance(schema, dict) else {}, raw))
            cursor = result.get("nextCursor")
            if not cursor:
                return found
        raise UpstreamError(f"{self.url}: tools/list has more than {_PAGES} pages")

    async def call_tool(
        self, name: str, arguments: dict[str, Any], *, meta: dict[str, Any] | None = None, repeat: bool = True
    ) -> dict[str, Any]:
        """The ``CallToolResult``. Cancelling the await tells the server. Raises as :meth:`list_tools`.

        ``repeat`` False: where the session was lost, and so nothing carried out, SessionEnded is raised, too.
        """
        params: dict[str, Any] = {"name": name, "arguments": arguments}
        if meta:
            params["_meta"] = meta
        return await self.request(protocol.TOOLS_CALL, params, repeat=repeat)

    async def request(self, method: str, params: dict[str, Any], *, repeat: bool = True) -> dict[str, Any]:
        """One request in the session; a lost session is opened again once, by the next request unless ``repeat``."""
        await self._open()
        try:
            return await self._ask(method, params)
        except SessionEnded as ended:
            if ended.session == self._session:  # else another call has opened the next one already
                self._ready = False
            if not repeat:
                raise
            await self._open()
            return await self._ask(method, params)

    async def listen(self, uris: Sequence[str]) -> AsyncGenerator[dict[str, Any]]:
        """What ``subscriptions/listen`` (2026-07-28) tells of these resources: the acknowledgement, then notifications.

        Until the server ends it. From then on the client asks without a session. Raises as :meth:`list_tools`.
        """
        self._session, self._version, self._modern, self._ready = None, MODERN_VERSIONS[-1], True, True
        params = {"notifications": {"resourceSubscriptions": list(uris)}, "_meta": _modern_meta()}
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": protocol.LISTEN, "params": params}
        response = await self._post(message)
        kind = (response.header(b"content-type") or b"").partition(b";")[0].strip()
        try:
            async for told in _messages(response, kind, self.url):
                if "error" in told:
                    raise _error(told["error"])
                if "method" in told:
                    yield told
        finally:
            response.close()

    @property
    def tells_of_tools(self) -> bool:
        """Whether the server has a session in which it says that its tools have changed."""
        capabilities = self.server.get("capabilities")
        tools = capabilities.get("tools") if isinstance(capabilities, dict) else None
        return self._session is not None and isinstance(tools, dict) and tools.get("listChanged") is True

    async def told(self) -> AsyncGenerator[dict[str, Any]]:
        """What the server says by itself in the session that is open (GET, 2025-11-25), until the stream ends.

        Raises as :meth:`list_tools`; UpstreamError, too, for a server that has no such stream.
        """
        headers = [header for header in await self._request_headers() if header[0] != b"content-type"]
        response = await self._pool.request("GET", self._origin, self._target, headers, b"", timeout=None)
        try:
            kind = (response.header(b"content-type") or b"").partition(b";")[0].strip()
            if response.status != 200 or kind != b"text/event-stream":
                raise UpstreamError(f"{self.url}: GET gave HTTP {response.status}, no stream")
            async for message in _messages(response, kind, self.url):
                yield message
        finally:
            response.close()

    async def close(self) -> None:
        """End the session at the server; never raises for a server that is gone."""
        if self._session is not None:
            with contextlib.suppress(QuarterdeckError):
                response = await self._pool.request(
                    "DELETE", self._origin, self._target, await self._request_headers(), timeout=5.0
                )
                response.close()
        self._session, self._ready = None, False

    async def _open(self) -> None:
        async with self._opening:
            if self._ready:
                return
            self._session, self._version, self._modern = None, LATEST_LEGACY, False
            params = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": _CLIENT}
            try:
                self.server = await self._ask(protocol.INITIALIZE, params)
            except RpcError as refused:
                await self._discover(refused)
                return
            self._version = str(self.server.get("protocolVersion", LATEST_LEGACY))
            await self._notify({"jsonrpc": "2.0", "method": protocol.INITIALIZED})
            self._ready = True

    async def _discover(self, refused: RpcError) -> None:
        """The stateless greeting, for servers that know no ``initialize``. Raises ``refused`` when that fails too."""
        self._version, self._modern = MODERN_VERSIONS[-1], True
        try:
            self.server = await self._ask(protocol.DISCOVER, {})
        except UpstreamError:
            raise refused from None
        self._ready = True

    async def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        if self._modern:
            params = params | {"_meta": {**params.get("_meta", {}), **_modern_meta()}}
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        try:
            async with asyncio.timeout(self._timeout) as silence:
                response = await self._post(message)
                try:
                    return await self._answer(response, number, silence)
                finally:
                    response.close()
        except TimeoutError:
            await self._cancel(number, "timed out")
            raise TimedOut(f"{self.url}: {method} gave no answer within {self._timeout:g} s") from None
        except asyncio.CancelledError:
            await asyncio.shield(self._cancel(number, "the caller gave up"))
            raise

    async def _post(self, message: dict[str, Any]) -> Response:
        body = json.dumps(message).encode()
        headers = await self._request_headers()
        if self._modern and "method" in message:
            headers.append((protocol.H_METHOD, message["method"].encode()))
            params: dict[str, Any] = message.get("params", {})
            name = params.get("uri") if message["method"] == protocol.RESOURCES_READ else params.get("name")
            if isinstance(name, str):
                headers.append((protocol.H_NAME, encode_value(name)))
        sent_in = self._session
        response = await self._pool.request("POST", self._origin, self._target, headers, body, timeout=None)
        if response.status in (200, 202):
            session = response.header(protocol.H_SESSION)
            if session is not None:
                self._session = session.decode("latin-1")
            return response
        detail = (await response.read())[:2000].decode("utf-8", "replace").strip()
        error = _rpc_error(detail)
        if response.status == 404 and sent_in is not None:
            raise SessionEnded(f"{self.url}: the session has ended", sent_in)
        if response.status in (401, 403):
            said = str(error) if error is not None else f"credentials are needed: {detail}"
            raise Denied(f"{self.url}: HTTP {response.status}: {said}")
        if error is not None:
            raise error
        if response.status in (400, 404, 405):
            raise RpcError(0, f"{self.url}: HTTP {response.status}: is this the path of an MCP endpoint? {detail}")
        raise UpstreamError(f"{self.url}: HTTP {response.status}: {detail}")

    async def _answer(self, response: Response, number: int, silence: asyncio.Timeout) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        kind = (response.header(b"content-type") or b"").partition(b";")[0].strip()
        async for message in _messages(response, kind, self.url):
            silence.reschedule(loop.time() + self._timeout)
            if message.get("id") == number and "method" not in message:
                if "error" in message:
                    raise _error(message["error"])
                result = message.get("result")
                if not isinstance(result, dict):
                    raise UpstreamError(f"{self.url}: the answer holds no result object")
                return result
            if "id" in message and "method" in message:
                await self._refuse(message)
        raise UpstreamError(f"{self.url}: the stream ended without an answer")

    async def _refuse(self, message: dict[str, Any]) -> None:
        """Answer a server's question: pings are answered, we declared no other capability."""
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == protocol.PING:
            answer["result"] = {}
        else:
            answer["error"] = {"code": protocol.METHOD_NOT_FOUND, "message": "this client offers no such capability"}
        await self._notify(answer)

    async def _notify(self, message: dict[str, Any]) -> None:
        (await self._post(message)).close()

    async def _cancel(self, number: int, reason: str) -> None:
        if not self._ready:
            return
        params = {"requestId": number, "reason": reason}
        with contextlib.suppress(QuarterdeckError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._notify({"jsonrpc": "2.0", "method": protocol.CANCELLED, "params": params})

    async def _request_headers(self) -> list[Header]:
        headers: list[Header] = [
            (b"host", self._host),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json, text/event-stream"),
            *await self._headers(),
        ]
        if self._ready or self._modern or self._session is not None:
            headers.append((protocol.H_VERSION, self._version.encode()))
        if self._session is not None:
            headers.append((protocol.H_SESSION, self._session.encode("latin-1")))
        return headers


def _modern_meta() -> dict[str, Any]:
    return {
        protocol.META_VERSION: MODERN_VERSIONS[-1],
        protocol.META_CLIENT_CAPABILITIES: {},
        protocol.META_CLIENT_INFO: _CLIENT,
    }


async def _messages(response: Response, kind: bytes, url: str) -> AsyncIterator[dict[str, Any]]:
    """The JSON-RPC messages of a response body, SSE or plain."""
    if kind == b"text/event-stream":
        parser = SseParser()
        async for chunk in response:
            for event in parser.feed(chunk):
                if event.data:
                    yield _decode(event.data, url)
    else:
        yield _decode(await response.read(), url)


def _decode(data: bytes, url: str) -> dict[str, Any]:
    try:
        message = loads(data)
    except (ValueError, RecursionError) as error:
        raise UpstreamError(f"{url}: answered with what is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise UpstreamError(f"{url}: answered with what is not a JSON-RPC message")
    return message


def _rpc_error(text: str) -> QuarterdeckError | None:
    """The JSON-RPC error in an HTTP error body, if there is one."""
    try:
        return _error(loads(text)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _error(error: dict[str, Any]) -> QuarterdeckError:
    """The exception for a JSON-RPC error; a policy's refusal is Denied."""
    code, message = int(error["code"]), str(error["message"])
    return Denied(message) if code == protocol.DENIED else RpcError(code, message, error.get("data"))
