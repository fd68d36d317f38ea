"""``/mcp/{namespace}/{server}``: one MCP server, both protocol eras, passed through under policy.

A request goes through :attr:`McpEndpoint.stages` in order; a stage that has answered returns False.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import UNSET

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcptypes import ERA_MODERN, MODERN_VERSIONS, SUPPORTED_VERSIONS, era_of, jsonrpc, lists, protocol
from quarterdeck.mcptypes.headers import decode_value, encode_value
from quarterdeck.wire.client import Origin
from quarterdeck.wire.http import Exchange

from ..call import Call
from ..observe import Observer
from ..policy.principal import Principal
from ..upstream import Upstreams
from .eras import Eras
from .older import OlderServers
from .relay import McpRelay, Transform, answer_error
from .route import Lane, McpRoute
from .session import Session, SessionSealer

_VERSIONS = frozenset(v.encode() for v in SUPPORTED_VERSIONS) | {b"2024-11-05"}
_NAMED = {protocol.TOOLS_CALL: "name", protocol.PROMPTS_GET: "name", protocol.RESOURCES_READ: "uri"}
_FORWARD = b"x-quarterdeck-forward-"
_ACCEPT = b"application/json, text/event-stream"


class McpCall(Call):
    """A call to one MCP server."""

    __slots__ = ("body", "lane", "later", "message", "modern", "origin", "route", "session")

    def __init__(self, exchange: Exchange, route: McpRoute, principal: Principal) -> None:
        super().__init__(exchange, "mcp", route.label)
        self.principal = principal
        self.route = route
        self.lane: Lane = route.lane(principal)
        self.body = exchange.body
        self.message: jsonrpc.Message | None = None
        self.modern = era_of(self.headers.get(protocol.H_VERSION)) == ERA_MODERN
        self.session: Session | None = None
        self.origin: Origin | None = None
        self.later: Coroutine[Any, Any, None] | None = None
        """What goes on with the call when a stage has to wait."""


class McpEndpoint:
    """Serves the calls to single MCP servers."""

    def __init__(self, upstreams: Upstreams, observer: Observer, sealer: SessionSealer) -> None:
        self._upstreams = upstreams
        self._observer = observer
        self._sealer = sealer
        self._eras = Eras()
        self._older = OlderServers(observer, sealer)
        # limits and the circuit breaker take their place between authorize and the eras
        self.stages: tuple[Callable[[McpCall], bool], ...] = (
            self._read, self._authorize, self._same_era, self._locate, self._forward,
        )  # fmt: skip

    def handle(self, exchange: Exchange, route: McpRoute, principal: Principal) -> Coroutine[Any, Any, None] | None:
        call = McpCall(exchange, route, principal)
        self._observer.begin(call)
        for stage in self.stages:
            if not stage(call):
                return call.later
        return None

    # -- stages
    def _read(self, call: McpCall) -> bool:
        """Parse and check the framing: method, headers, JSON-RPC."""
        method = call.exchange.method
        repeated = call.repeated_header()
        if repeated:
            return self._invalid(call, f"header {repeated} may be sent once only")
        version = call.headers.get(protocol.H_VERSION)
        if version is not None and version not in _VERSIONS:
            requested = version.decode("latin-1")
            call.raw_id = jsonrpc.id_of(call.body)
            data = {"supported": list(MODERN_VERSIONS), "requested": requested}
            text = f"unsupported protocol version {requested}"
            return self._invalid(call, text, protocol.UNSUPPORTED_VERSION, data=data)
        if method == "POST":
            return self._read_message(call)
        if method in ("GET", "DELETE") and not call.modern:
            call.method = method
            return True
        call.exchange.respond(405, b"", [(b"allow", b"POST" if call.modern else b"GET, POST, DELETE")])
        self._observer.finish(call, "error", 405, f"{method[:16]} is not served here")
        return False

    def _read_message(self, call: McpCall) -> bool:
        content = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content != b"application/json":
            return self._invalid(call, "the content type must be application/json", status=415)
        try:
            message = call.message = jsonrpc.parse(call.body)
            if message.id is not UNSET:
                call.raw_id = bytes(message.id)
            call.method = message.method
            if message.method == protocol.TOOLS_CALL:
                self._read_tool_call(call, message)
            elif not jsonrpc.unambiguous(call.body, b'"method"'):
                # an answer too: a server that ignores letter case would read "Method" in it as a call
                call.body = jsonrpc.canonical(call.body)
            return self._check_modern(call, message) if call.modern else True
        except jsonrpc.FramingError as error:
            return self._invalid(call, str(error), error.code)

    def _read_tool_call(self, call: McpCall, message: jsonrpc.Message) -> None:
        params = jsonrpc.call_params(message)
        call.tool = params.name
        if params.arguments is not UNSET:
            call.arguments = params.arguments
        if not jsonrpc.unambiguous(call.body, b'"method"', b'"name"', b'"params"', b'"arguments"'):
            call.body = jsonrpc.canonical(call.body)

    def _check_modern(self, call: McpCall, message: jsonrpc.Message) -> bool:
        """2026-07-28: the mirrored headers must say what the body says."""
        if not message.method:
            return self._invalid(call, "clients send no responses in this protocol version")
        if call.headers.get(protocol.H_METHOD) != message.method.encode():
            return self._invalid(call, "header Mcp-Method does not match the body", protocol.HEADER_MISMATCH)
        if message.method in _NAMED:
            given = call.headers.get(protocol.H_NAME)
            if given is None or decode_value(given) != _mirrored(message):
                return self._invalid(call, "header Mcp-Name does not match the body", protocol.HEADER_MISMATCH)
        return True

    def _authorize(self, call: McpCall) -> bool:
        decision = call.decision = call.lane.decide(call.method, call.tool)
        if decision.allow:
            return True
        code = protocol.APPROVAL_REQUIRED if decision.verdict == "approval" else protocol.DENIED
        data = {"reason": "approval_required" if decision.verdict == "approval" else "denied", "rule": decision.rule}
        # a JSON-RPC answer to a request is HTTP 200; a notification or a GET has no answer to carry the refusal
        status = 200 if call.raw_id else 403
        answer_error(call, code, decision.reason, status=status, data=data)
        self._observer.finish(call, "denied", status, decision.reason)
        return False

    def _same_era(self, call: McpCall) -> bool:
        """Hand over what is said in an era that the server does not speak, or may not."""
        if not call.modern or not call.route.server.endpoints or self._eras.modern(call.route):
            return True
        call.later = self._across_eras(call)
        return False

    async def _across_eras(self, call: McpCall) -> None:
        try:
            modern = await self._eras.speaks_modern(call.route, call.lane)
        except (UpstreamError, TimedOut) as error:
            code, status = (protocol.TIMED_OUT, 504) if isinstance(error, TimedOut) else (protocol.UPSTREAM_FAILED, 502)
            message = f"MCP server {call.server} failed: {error}; {call.route.remedy}"
            answer_error(call, code, message, status=200 if call.raw_id else status)
            self._observer.finish(call, "error", status, message)
            return
        if not modern:
            await self._older.handle(call)
        elif self._locate(call):
            self._forward(call)

    def _locate(self, call: McpCall) -> bool:
        """Find the upstream's address, and its session behind the client's token."""
        token = None if call.modern else call.headers.get(protocol.H_SESSION)
        if token is not None:
            session = call.session = self._sealer.open(token, call.lane.binding)
            if session is None:
                return self._invalid(call, "unknown session; initialize again", protocol.INVALID_REQUEST, status=404)
            call.origin = call.route.origin(session.host, session.port)
            if call.origin is None and call.route.server.endpoints:
                text = f"MCP server {call.server} no longer runs where this session lives; initialize again"
                return self._invalid(call, text, status=404)
        else:
            call.origin = call.route.origin()
        if call.origin is None:
            message = f"MCP server {call.server} has no ready endpoint; {call.route.remedy}"
            answer_error(call, protocol.UPSTREAM_FAILED, message, status=200 if call.raw_id else 503)
            self._observer.finish(call, "error", 503, message)
            return False
        return True

    def _forward(self, call: McpCall) -> bool:
        origin = call.origin
        assert origin is not None
        relay = McpRelay(
            self._upstreams,
            call.exchange,
            call,
            self._observer,
            timeout=0.0 if call.method in ("GET", "subscriptions/listen") else call.route.server.timeout,
            remedy=call.route.remedy,
            transform=_filter(call) if call.method == protocol.TOOLS_LIST and call.lane.filters else None,
            seal=self._sealing(call, origin) if call.method == protocol.INITIALIZE else None,
        )
        self._upstreams.send(call.route.pool, origin, relay, request_bytes(call, origin))
        return True

    # -- inside
    def _sealing(self, call: McpCall, origin: Origin) -> Callable[[bytes], bytes]:
        def seal(upstream: bytes) -> bytes:
            session = Session(upstream.decode("latin-1"), origin[0], origin[1])
            return self._sealer.seal(session, call.lane.binding)

        return seal

    def _invalid(
        self,
        call: McpCall,
        message: str,
        code: int = protocol.INVALID_REQUEST,
        *,
        status: int = 400,
        data: object = None,
    ) -> bool:
        answer_error(call, code, message, status=status, data=data)
        self._observer.finish(call, "error", status, message)
        return False


def _mirrored(message: jsonrpc.Message) -> str:
    params = jsonrpc.mirror_params(message)
    return params.uri if message.method == protocol.RESOURCES_READ else params.name


def _filter(call: McpCall) -> Transform:
    shows = call.lane.shows
    private = call.modern

    def transform(body: bytes) -> bytes:
        return lists.filter_message(body, "tools", shows, private=private)

    return transform


def _start_of_head(call: McpCall, origin: Origin) -> bytes:
    """The lines that are the same for every request of one client in one session."""
    parts = [b"%b %b HTTP/1.1\r\n" % (call.exchange.method.encode(), call.route.path), call.lane.headers]
    if not call.route.host_line:
        parts.append(b"host: %b:%d\r\n" % (origin[0].encode(), origin[1]))
    accept = call.headers.get(b"accept")
    parts.append(b"accept: %b\r\n" % (accept if accept is not None and accept != b"*/*" else _ACCEPT))
    version = call.headers.get(protocol.H_VERSION)
    if version is not None:
        parts.append(b"%b: %b\r\n" % (protocol.H_VERSION, version))
    if call.session is not None:
        parts.append(b"%b: %b\r\n" % (protocol.H_SESSION, call.session.upstream.encode("latin-1")))
    return b"".join(parts)


def request_bytes(call: McpCall, origin: Origin) -> bytes:
    """The request towards the upstream: only headers we know, those configured, and the body that was decided on."""
    lane = call.lane
    headers = call.headers
    key = (
        call.exchange.method, origin, headers.get(b"accept"), headers.get(protocol.H_VERSION),
        call.session.upstream if call.session is not None else "",
    )  # fmt: skip
    start = lane.starts.get(key)
    if start is None:
        start = lane.remember(key, _start_of_head(call, origin))
    parts = [start]
    last_event = headers.get(protocol.H_LAST_EVENT)
    if last_event is not None:
        parts.append(b"%b: %b\r\n" % (protocol.H_LAST_EVENT, last_event))
    if call.modern and call.message is not None:
        parts.append(b"%b: %b\r\n" % (protocol.H_METHOD, call.method.encode()))
        if call.method in _NAMED:
            parts.append(b"%b: %b\r\n" % (protocol.H_NAME, encode_value(_mirrored(call.message))))
        parts.extend(b"%b: %b\r\n" % (k, v) for k, v in call.exchange.headers if k.startswith(protocol.H_PARAM_PREFIX))
    for name in lane.forward:
        value = headers.get(_FORWARD + name)
        if value is not None:
            parts.append(b"%b: %b\r\n" % (name, value))
    parts.append(b"traceparent: %b\r\n" % call.traceparent)
    if call.exchange.method == "POST":
        parts.append(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(call.body))
        parts.append(call.body)
    else:
        parts.append(b"\r\n")
    return b"".join(parts)
