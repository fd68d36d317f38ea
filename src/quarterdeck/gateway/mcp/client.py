"""The gateway as an MCP client: sessions of its own with upstreams, for the aggregated endpoint."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from os import getpid
from secrets import token_hex
from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from quarterdeck import __version__
from quarterdeck.errors import UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import LATEST_LEGACY, MODERN_VERSIONS, jsonrpc, protocol
from quarterdeck.mcptypes.headers import encode_value
from quarterdeck.wire import sse
from quarterdeck.wire.client import Origin, Response
from quarterdeck.wire.http import Header
from quarterdeck.wire.sse import SseParser

from ..oauth.challenge import Challenge
from ..oauth.challenge import read as read_challenge
from .route import Lane, McpRoute

INFO = {"name": "quarterdeck", "version": __version__}
_PAGES = 100
_REFUSAL_BYTES = 64 * 1024
_RETRY = re.compile(rb"^retry: ?(\d{1,9})\r?$", re.MULTILINE)
_LONGEST_WAIT = 60.0
_LIST_BYTES = 16 * 1024 * 1024
"""Bounds of one list, over all its pages: a server's word must not fill the gateway's memory."""
_MODERN_KEYS = frozenset(
    {protocol.META_VERSION, protocol.META_CLIENT_CAPABILITIES, protocol.META_CLIENT_INFO, protocol.META_LOG_LEVEL}
)
_ids = count(1)
_process = f"{getpid()}-{token_hex(4)}"
"""Part of our request ids: several processes may speak in one upstream session, where answers go by these ids."""


class Link(Struct):
    """One upstream session. ``version`` is the negotiated revision; a modern upstream has no session."""

    origin: Origin
    version: str
    session: str = ""
    meta: dict[str, Any] | None = None
    """``_meta`` of requests to a modern upstream; None: our own."""
    extra: bytes = b""
    """Header lines that the rules of a target add, of the newest call."""

    @property
    def modern(self) -> bool:
        return self.version in MODERN_VERSIONS

    def headers(self, method: str, name: str = "") -> bytes:
        """The header lines of a request in this session."""
        lines = self.extra + b"%b: %b\r\n" % (protocol.H_VERSION, self.version.encode())
        if self.session:
            lines += b"%b: %b\r\n" % (protocol.H_SESSION, self.session.encode("latin-1"))
        if self.modern:
            lines += b"%b: %b\r\n" % (protocol.H_METHOD, method.encode())
            if name:
                lines += b"%b: %b\r\n" % (protocol.H_NAME, encode_value(name))
        return lines


class SessionExpired(UpstreamError):
    """The upstream does not know our session any more (404)."""


class NoAnswer(UpstreamError):
    """The upstream answered, but not with JSON-RPC."""

    def __init__(self, status: int) -> None:
        super().__init__(f"sent something that is no MCP answer (HTTP {status})")
        self.status = status


class Unauthorized(NoAnswer):
    """The upstream wants a credential, or a better one."""

    def __init__(self, challenge: Challenge) -> None:
        super().__init__(challenge.status)
        self.args = (
            f"wants {'more than it was shown' if challenge.steps_up else 'a credential'} (HTTP {self.status})",
        )
        self.challenge = challenge


class RpcError(UpstreamError):
    """The upstream answered with a JSON-RPC error."""

    def __init__(self, error: jsonrpc.ErrorObject, data: object = None) -> None:
        super().__init__(error.message or "an error without a message")
        self.code = error.code
        self.data = data


class _Error(jsonrpc.ErrorObject):
    data: Any = None


class _Answer(Struct):
    result: Raw | UnsetType = UNSET
    error: _Error | None = None


class Place(Struct):
    """How far a stream of events was read, to go on there when it breaks (2025-11-25, resumability)."""

    last: bytes = b""
    wait: float = 1.0
    """Seconds that the server wants a client to stay away (``retry``)."""


class _Initialized(Struct, rename="camel"):
    protocol_version: str = LATEST_LEGACY


def modern_meta(
    capabilities: dict[str, Any] | None = None, info: dict[str, Any] | None = None, level: str = ""
) -> dict[str, Any]:
    """The ``_meta`` that each request of 2026-07-28 carries; of the gateway itself when nothing is given."""
    return {
        protocol.META_VERSION: MODERN_VERSIONS[-1],
        protocol.META_CLIENT_CAPABILITIES: capabilities or {},
        protocol.META_CLIENT_INFO: info or INFO,
        **({protocol.META_LOG_LEVEL: level} if level else {}),
    }


def without_modern_meta(raw: Raw) -> dict[str, Raw]:
    """A modern request's ``_meta`` as a legacy server may see it: what speaks of the protocol itself is left out."""
    return {k: v for k, v in msgspec.json.decode(raw, type=dict[str, Raw]).items() if k not in _MODERN_KEYS}


async def initialize(
    route: McpRoute,
    lane: Lane,
    capabilities: dict[str, Any],
    *,
    info: dict[str, Any] | None = None,
    version: str = LATEST_LEGACY,
    extra: bytes = b"",
) -> tuple[Link, Raw]:
    """A session of the legacy era, for a client that can do so much; and what the server said of itself."""
    link = Link(origin_of(route), version, extra=extra)
    params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": info or INFO}
    result, session = await _exchange(route, lane, link, protocol.INITIALIZE, params)
    link.version = msgspec.json.decode(result, type=_Initialized).protocol_version
    link.session = session
    await notify(route, lane, link, jsonrpc.notification(protocol.INITIALIZED), protocol.INITIALIZED)
    return link, result


def origin_of(route: McpRoute) -> Origin:
    """The next address of the server. Raises UpstreamError when there is none."""
    origin = route.origin()
    if origin is None:
        raise UpstreamError("has no ready endpoint")
    return origin


async def ask(route: McpRoute, lane: Lane, link: Link, method: str, params: dict[str, Any] | None = None) -> Raw:
    """One request; its result. Raises RpcError, SessionExpired, UpstreamError, TimedOut."""
    params = dict(params or {})
    if link.modern:
        params["_meta"] = link.meta or modern_meta()
    return (await _exchange(route, lane, link, method, params))[0]


Ask = Callable[[str, dict[str, Any] | None], Awaitable[Raw]]
"""Sends a request of our own and returns its result."""


async def list_all(ask: Ask, method: str, key: str, first: Raw | None = None) -> list[Raw]:
    """All pages of a list; ``first`` is the first if it is there. Raises as ``ask``, and UpstreamError if too long."""
    found: list[Raw] = []
    cursor: str | None = None
    size = 0
    for _ in range(_PAGES):
        result = first or await ask(method, {"cursor": cursor} if cursor else None)
        first = None
        size += memoryview(result).nbytes
        if size > _LIST_BYTES:
            raise UpstreamError(f"lists more than {_LIST_BYTES} bytes")
        page = msgspec.json.decode(result, type=dict[str, Raw])
        found.extend(msgspec.json.decode(page.get(key, Raw(b"[]")), type=list[Raw]))
        cursor = msgspec.json.decode(page["nextCursor"], type=str | None) if "nextCursor" in page else None
        if not cursor:
            return found
    raise UpstreamError(f"lists more than {_PAGES} pages")


async def notify(route: McpRoute, lane: Lane, link: Link, body: bytes, method: str) -> None:
    """Send a notification; what is answered does not matter."""
    response = await post(route, lane, link, method, body)
    await response.read()


async def close(route: McpRoute, lane: Lane, link: Link) -> None:
    """End the session at the upstream."""
    if link.session:
        head = lines(lane.headers + link.headers("DELETE"))
        response = await route.pool.request("DELETE", link.origin, route.path.decode(), head, timeout=5.0)
        await response.read()


async def _exchange(route: McpRoute, lane: Lane, link: Link, method: str, params: Any) -> tuple[Raw, str]:
    body = jsonrpc.request(f"qd-{_process}-{next(_ids)}", method, params)
    response = await post(route, lane, link, method, body)
    answer = await _answer(response)
    if answer is None or (answer.error is None and answer.result is UNSET):
        if response.status == 404 and link.session:
            raise SessionExpired("does not know the session any more")
        raise NoAnswer(response.status)
    if answer.error is not None:
        if response.status == 404 and link.session and answer.error.code != protocol.METHOD_NOT_FOUND:
            raise SessionExpired("does not know the session any more")
        raise RpcError(answer.error, answer.error.data)
    session = (response.header(protocol.H_SESSION) or b"").decode("latin-1")
    return cast(Raw, answer.result), session  # checked above; pyright cannot narrow on UNSET


async def speaks_modern(route: McpRoute, lane: Lane, extra: bytes = b"") -> bool:
    """Whether a server answers 2026-07-28. Raises UpstreamError, TimedOut when it answers nothing at all."""
    link = Link(origin_of(route), MODERN_VERSIONS[-1], extra=extra)
    try:
        try:
            await ask(route, lane, link, protocol.DISCOVER)
        except RpcError as error:
            if error.code != protocol.UNSUPPORTED_VERSION or not _supports(error.data, link.version):
                return False
            await ask(route, lane, link, protocol.DISCOVER)  # it refused the version, and names it as one it supports
    except RpcError:
        return False
    except NoAnswer as error:
        if error.status >= 500 or error.status in (401, 403):
            raise
        return False  # an HTTP refusal is what older servers say to a version they do not know
    return True


def _supports(data: object, version: str) -> bool:
    supported: object = cast(dict[str, object], data).get("supported") if isinstance(data, dict) else None
    return isinstance(supported, list) and version in cast(list[object], supported)


async def listen(route: McpRoute, lane: Lane, link: Link, last_event: bytes = b"") -> Response:
    """The GET stream of a session, of which nothing but the head must come in time."""
    head = [*lines(lane.headers + link.headers("GET")), (b"accept", b"text/event-stream")]
    if last_event:
        head.append((protocol.H_LAST_EVENT, last_event))
    return await route.pool.request("GET", link.origin, route.path.decode(), head, timeout=route.server.timeout or None)


async def messages(response: Response, place: Place | None = None) -> AsyncIterator[jsonrpc.Message]:
    """The JSON-RPC messages of a response, JSON or SSE; anything else among them is left out.

    ``place`` is kept up to date with the events read.
    """
    content = (response.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if content == b"text/event-stream":
        parser = SseParser()
        async for chunk in response:
            for event in parser.feed(chunk):
                if place is not None:
                    _note(place, event)
                message = jsonrpc.read(event.data)
                if message is not None:
                    yield message
        return
    message = jsonrpc.read(await response.read())
    if message is not None:
        yield message


def _note(place: Place, event: sse.Event) -> None:
    place.last = event.id or place.last
    match = _RETRY.search(event.raw)
    if match is not None:
        place.wait = min(int(match[1]) / 1000, _LONGEST_WAIT)


async def post(
    route: McpRoute,
    lane: Lane,
    link: Link,
    method: str,
    body: bytes,
    *,
    name: str = "",
    extra: Sequence[Header] = (),
) -> Response:
    """Send one message; the response head. ``name``: what a modern server wants mirrored. Raises Unauthorized."""
    head = lines(lane.headers + (link.headers(method, name) if method != protocol.INITIALIZE else link.extra))
    head.extend(extra)
    head.append((b"content-type", b"application/json"))
    head.append((b"accept", b"application/json, text/event-stream"))
    response = await route.pool.request(
        "POST", link.origin, route.path.decode(), head, body, timeout=route.server.timeout or None
    )
    if response.status in (401, 403) and response.header(b"www-authenticate") is not None:
        await response.read(_REFUSAL_BYTES)
        raise Unauthorized(read_challenge(response.status, response.headers))
    return response


async def _answer(response: Response) -> _Answer | None:
    """The JSON-RPC answer in a response, JSON or SSE."""
    content = (response.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if content == b"text/event-stream":
        parser = SseParser()
        async for chunk in response:
            for event in parser.feed(chunk):
                answer = _decode(event.data)
                if answer is not None and (answer.result is not UNSET or answer.error is not None):
                    response.close()
                    return answer
        return None
    return _decode(await response.read())


def _decode(data: bytes) -> _Answer | None:
    try:
        return msgspec.json.decode(data, type=_Answer)
    except MALFORMED:
        return None


def lines(head: bytes) -> list[Header]:
    """Header lines as pairs."""
    pairs = (line.partition(b": ") for line in head.split(b"\r\n") if line)
    return [(name, value) for name, _, value in pairs]
