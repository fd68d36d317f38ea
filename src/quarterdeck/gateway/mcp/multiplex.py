"""``/mcp``: every server that the caller may use behind one endpoint, in both eras.

``initialize`` and ``server/discover`` are answered here; upstream sessions are opened when first needed and kept by
this process in a bounded table. The session token names the process (``owner``): after a restart it is unknown (404)
and the client initialises again.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from itertools import count
from os import urandom
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from quarterdeck import __version__
from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcptypes import (
    ERA_MODERN,
    LATEST_LEGACY,
    LEGACY_VERSIONS,
    MODERN_VERSIONS,
    SUPPORTED_VERSIONS,
    era_of,
    jsonrpc,
    lists,
    protocol,
)
from quarterdeck.wire.http import Exchange, Header

from ..call import Call
from ..observe import Observer
from ..policy.authorizer import Decision
from ..policy.principal import Principal
from ..table import Table
from ..upstream import Upstreams
from . import client
from .client import Link
from .names import Names
from .relay import McpRelay, answer_error
from .route import McpRoute
from .session import Session, SessionSealer

_STATES = 20_000
_PAGE = 1_000
_JSON: Header = (b"content-type", b"application/json")
_CAPABILITIES = {"tools": {}, "prompts": {}, "resources": {}}
_INFO = {"name": "quarterdeck", "title": "Quarterdeck gateway", "version": __version__}
_INSTRUCTIONS = "Tools of several MCP servers; the name of each begins with its server's name."
_OWN_RULE = Decision("allow", "gateway/multiplex")
_TOLD = frozenset({"DELETE", protocol.CANCELLED, protocol.INITIALIZED, "notifications/progress"})


class State:
    """The upstream sessions of one client session (legacy), or of one principal (modern)."""

    __slots__ = ("links", "locks")

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self.locks: dict[str, asyncio.Lock] = {}

    async def link(self, route: McpRoute, principal: Principal) -> Link:
        """The session with a server, opened when there is none. Raises UpstreamError, TimedOut."""
        found = self.links.get(route.label)
        if found is not None and route.origin(found.origin[0], found.origin[1]) is not None:
            return found
        async with self.locks.setdefault(route.label, asyncio.Lock()):
            again = self.links.get(route.label)
            if again is not None and again is not found:
                return again
            link = self.links[route.label] = await client.connect(route, route.lane(principal))
            return link

    def drop(self, route: McpRoute, link: Link) -> None:
        if self.links.get(route.label) is link:
            del self.links[route.label]


class MuxCall(Call):
    """A call on the aggregated endpoint."""

    __slots__ = ("message", "modern", "params", "state", "table")

    def __init__(self, exchange: Exchange, table: Table, principal: Principal) -> None:
        super().__init__(exchange, "mcp", "")
        self.table = table
        self.principal = principal
        self.modern = era_of(self.headers.get(protocol.H_VERSION)) == ERA_MODERN
        self.message = jsonrpc.Message()
        self.params: dict[str, Raw] = {}
        self.state = State()


class MultiplexEndpoint:
    """Serves the aggregated endpoint."""

    def __init__(self, upstreams: Upstreams, observer: Observer, sealer: SessionSealer) -> None:
        self._upstreams = upstreams
        self._observer = observer
        self._sealer = sealer
        self._owner = urandom(8).hex()
        self._states: OrderedDict[str, State] = OrderedDict()
        self._names: tuple[Table, Names] | None = None
        self._ids = count(1)
        self._closing: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange, table: Table, principal: Principal) -> Coroutine[Any, Any, None] | None:
        call = MuxCall(exchange, table, principal)
        self._observer.begin(call)
        if not self._read(call):
            return None
        message = call.message
        if exchange.method == "DELETE":
            self._end_session(call)
        elif not message.method:
            exchange.respond(202)  # an answer to a request that we never make
            self._finish_own(call, 202)
        elif message.id is UNSET:
            return self._notified(call)
        elif message.method == protocol.TOOLS_CALL or message.method == protocol.PROMPTS_GET:
            return self._by_name(call, "name", "_")
        elif message.method == protocol.RESOURCES_READ:
            return self._by_name(call, "uri", "+")
        elif message.method in lists.LIST_KEYS:
            return self._list(call, lists.LIST_KEYS[message.method])
        else:
            self._answer_here(call)
        return None

    # -- reading
    def _read(self, call: MuxCall) -> bool:
        exchange = call.exchange
        repeated = call.repeated_header()
        if repeated:
            return self._invalid(call, f"header {repeated} may be sent once only")
        if exchange.method not in ("POST", "DELETE") or (call.modern and exchange.method == "DELETE"):
            exchange.respond(405, b"", [(b"allow", b"POST" if call.modern else b"POST, DELETE")])
            self._observer.finish(call, "error", 405, f"{exchange.method[:16]} is not served here")
            return False
        version = call.headers.get(protocol.H_VERSION, b"").decode("latin-1")
        if version and version not in SUPPORTED_VERSIONS:
            call.raw_id = jsonrpc.id_of(exchange.body)
            data = {"supported": list(MODERN_VERSIONS), "requested": version}
            text = f"unsupported protocol version {version}"
            return self._invalid(call, text, protocol.UNSUPPORTED_VERSION, data=data)
        if exchange.method == "POST":
            try:
                message = call.message = jsonrpc.parse(exchange.body)
                call.method = message.method
                if message.id is not UNSET:
                    call.raw_id = bytes(message.id)
                if message.params is not UNSET:
                    call.params = lists.members(message.params)
            except jsonrpc.FramingError as error:
                return self._invalid(call, str(error), error.code)
            except msgspec.DecodeError as error:
                return self._invalid(call, f"invalid params: {error}", protocol.INVALID_PARAMS)
        return self._find_state(call)

    def _find_state(self, call: MuxCall) -> bool:
        if call.message.method == protocol.INITIALIZE:
            return True
        if call.modern:
            if call.headers.get(protocol.H_METHOD) != call.method.encode():
                return self._invalid(call, "header Mcp-Method does not match the body", protocol.HEADER_MISMATCH)
            key = f"principal:{call.principal.id}"
            if key not in self._states:
                self._remember(key, State())
        else:
            token = call.headers.get(protocol.H_SESSION)
            if token is None:
                return self._invalid(call, "header Mcp-Session-Id is missing; initialize first")
            session = self._sealer.open(token, _binding(call.principal))
            key = session.upstream if session is not None and session.owner == self._owner else ""
            if key not in self._states:
                return self._invalid(call, "unknown session; initialize again", status=404)
        self._states.move_to_end(key)
        call.state = self._states[key]
        return True

    def _remember(self, key: str, state: State) -> None:
        self._states[key] = state
        if len(self._states) > _STATES:
            self._states.popitem(last=False)

    # -- answered by the gateway itself
    def _answer_here(self, call: MuxCall) -> None:
        method = call.method
        call.decision = _OWN_RULE
        headers: list[Header] = [_JSON]
        if method == protocol.INITIALIZE:
            result, token = self._initialize(call)
            headers.append((protocol.H_SESSION, token))
        elif method == protocol.DISCOVER and call.modern:
            result = {
                "resultType": "complete",
                "supportedVersions": list(MODERN_VERSIONS),
                "capabilities": _CAPABILITIES,
                "instructions": _INSTRUCTIONS,
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": {protocol.META_SERVER_INFO: _INFO},
            }
        elif method in (protocol.PING, protocol.SET_LEVEL) and not call.modern:
            result = {}
        else:
            text = f"no server answers {method} on the aggregated endpoint"
            self._invalid(call, text, protocol.METHOD_NOT_FOUND, status=404 if call.modern else 200)
            return
        call.exchange.respond(200, jsonrpc.result_response(call.raw_id, result), headers)
        self._observer.finish(call, "ok", 200)

    def _initialize(self, call: MuxCall) -> tuple[dict[str, Any], bytes]:
        requested = _text(call.params.get("protocolVersion"))
        key = urandom(16).hex()
        self._remember(key, State())
        token = self._sealer.seal(Session(key, owner=self._owner), _binding(call.principal))
        version = requested if requested in LEGACY_VERSIONS else LATEST_LEGACY
        return {
            "protocolVersion": version,
            "capabilities": _CAPABILITIES,
            "serverInfo": _INFO,
            "instructions": _INSTRUCTIONS,
        }, token

    async def _notified(self, call: MuxCall) -> None:
        """Cancellations go to every server of the session: the one that runs the request knows its id."""
        call.exchange.respond(202)
        self._finish_own(call, 202)
        if call.method != protocol.CANCELLED or call.modern:
            return
        for route in call.table.servers:
            link = call.state.links.get(route.label)
            if link is not None:
                lane = route.lane(call.principal)
                try:
                    await client.notify(route, lane, link, call.exchange.body, call.method)
                except (UpstreamError, TimedOut):
                    call.state.drop(route, link)  # the next call opens a new session, or says what is wrong

    def _end_session(self, call: MuxCall) -> None:
        for key, state in list(self._states.items()):
            if state is call.state:
                del self._states[key]
        task = asyncio.get_running_loop().create_task(_close_links(call.table, call.principal, call.state))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        call.exchange.respond(204)
        call.method = "DELETE"
        self._finish_own(call, 204)

    def _finish_own(self, call: MuxCall, status: int) -> None:
        call.decision = _OWN_RULE
        # of what a client only tells us, the name is its own text: it must not become a metric label
        call.method = call.method if call.method in _TOLD else "other"
        self._observer.finish(call, "ok", status)

    # -- lists
    def _routes(self, call: MuxCall, method: str) -> list[tuple[str, McpRoute]]:
        """Prefix and route of the servers that the caller may use, in a fixed order."""
        routes = self._names_of(call.table).routes
        return [(prefix, route) for prefix, route in routes if route.lane(call.principal).decide(method).allow]

    def _names_of(self, table: Table) -> Names:
        if self._names is None or self._names[0] is not table:
            self._names = (table, Names(table.servers, table.snapshot.default_namespace))
        return self._names[1]

    async def _list(self, call: MuxCall, key: str) -> None:
        call.decision = _OWN_RULE
        start = _cursor(call.params.get("cursor"))
        if start is None:
            self._invalid(call, "invalid cursor", protocol.INVALID_PARAMS, status=200)
            return
        routes = self._routes(call, call.method)
        answers = await asyncio.gather(*(self._list_one(call, prefix, route, key) for prefix, route in routes))
        items = [item for answer in answers if isinstance(answer, list) for item in answer]
        dead = [
            {"server": route.label, "error": answer}
            for (_, route), answer in zip(routes, answers, strict=True)
            if isinstance(answer, str)
        ]
        result: dict[str, Any] = {key: items[start : start + _PAGE]}
        if start + _PAGE < len(items):
            result["nextCursor"] = urlsafe_b64encode(b"%d" % (start + _PAGE)).decode()
        if dead:
            result["_meta"] = {"quarterdeck.dev/unavailable": dead}
        if call.modern:
            result |= {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        call.exchange.respond(200, jsonrpc.result_response(call.raw_id, result), [_JSON])
        self._observer.finish(call, "ok", 200)

    async def _list_one(self, call: MuxCall, prefix: str, route: McpRoute, key: str) -> list[Raw] | str:
        """One server's items under their new names, or why there are none."""
        lane = route.lane(call.principal)
        try:
            found = await self._with_link(
                call, route, lambda link: client.list_all(route, lane, link, call.method, key)
            )
            if key == "tools":
                found = [item for item in found if lane.shows(lists.name_of(item))]
            return [_prefixed(item, prefix, key) for item in found]
        except client.RpcError as error:
            # a server without prompts or resources is no failure
            return [] if error.code == protocol.METHOD_NOT_FOUND else str(error)
        except (UpstreamError, TimedOut) as error:
            return str(error)
        except msgspec.DecodeError as error:
            return f"sent a malformed list: {error}"

    async def _with_link(
        self, call: MuxCall, route: McpRoute, use: Callable[[Link], Coroutine[Any, Any, list[Raw]]]
    ) -> list[Raw]:
        """Use the session with a server; one that has expired there is opened anew, once."""
        link = await call.state.link(route, call.principal)
        try:
            return await use(link)
        except client.SessionExpired:
            call.state.drop(route, link)
            return await use(await call.state.link(route, call.principal))

    # -- calls
    def _by_name(self, call: MuxCall, member: str, separator: str) -> Coroutine[Any, Any, None] | None:
        exposed = _text(call.params.get(member))
        resolved = self._names_of(call.table).resolve(exposed, separator)
        if resolved is None:
            call.tool = exposed[:128]
            self._unknown(call, exposed)
            return None
        route, own = resolved
        call.server, call.tool = route.label, own
        arguments = call.params.get("arguments")
        if arguments is not None:
            call.arguments = arguments
        decision = call.decision = route.lane(call.principal).decide(
            call.method, own if call.method == protocol.TOOLS_CALL else ""
        )
        if not decision.allow:
            approval = decision.verdict == "approval"
            code = protocol.APPROVAL_REQUIRED if approval else protocol.DENIED
            data = {"reason": "approval_required" if approval else "denied", "rule": decision.rule}
            answer_error(call, code, decision.reason, data=data)
            self._observer.finish(call, "denied", 200, decision.reason)
            return None
        link = call.state.links.get(route.label)
        if link is not None and route.origin(link.origin[0], link.origin[1]) is not None:
            self._send(call, route, link, member, own, retry=True)
            return None
        return self._connect_and_send(call, route, member, own)

    async def _connect_and_send(self, call: MuxCall, route: McpRoute, member: str, own: str) -> None:
        """Open the upstream's session first. The response is then the relay's, which outlives this coroutine."""
        try:
            link = await call.state.link(route, call.principal)
        except (UpstreamError, TimedOut) as error:
            message = f"MCP server {route.label} failed: {error}; {route.remedy}"
            answer_error(call, protocol.UPSTREAM_FAILED, message)
            self._observer.finish(call, "error", 502, message)
            return
        self._send(call, route, link, member, own, retry=False)

    def _send(self, call: MuxCall, route: McpRoute, link: Link, member: str, own: str, *, retry: bool) -> None:
        lane = route.lane(call.principal)
        params: dict[str, Any] = dict(call.params)
        params[member] = own
        if link.modern and not call.modern:
            params["_meta"] = {**msgspec.json.decode(params.get("_meta", b"{}")), **client.modern_meta()}
        elif call.modern and not link.modern and "_meta" in params:
            params["_meta"] = client.without_modern_meta(params["_meta"])
        # modern clients of one principal share an upstream session: their ids may be equal, so they get ours
        ident: Any = f"qd-c{next(self._ids)}" if call.modern else Raw(call.raw_id)
        body = jsonrpc.request(ident, call.method, params)
        parts = [b"POST %b HTTP/1.1\r\n" % route.path, lane.headers, link.headers(call.method, own)]
        if not route.host_line:
            parts.append(b"host: %b:%d\r\n" % (link.origin[0].encode(), link.origin[1]))
        parts.append(b"accept: application/json, text/event-stream\r\ntraceparent: %b\r\n" % call.traceparent)
        parts.append(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

        def again() -> None:
            call.state.drop(route, link)
            task = asyncio.get_running_loop().create_task(self._connect_and_send(call, route, member, own))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        relay = MuxRelay(
            self._upstreams,
            call.exchange,
            call,
            self._observer,
            timeout=route.server.timeout,
            remedy=route.remedy,
            transform=_restored(call.raw_id) if call.modern else None,
        )
        relay.again = again if retry and link.session else None
        self._upstreams.send(route.pool, link.origin, relay, b"".join(parts))

    def _unknown(self, call: MuxCall, exposed: str) -> None:
        kind = {protocol.TOOLS_CALL: "tool", protocol.PROMPTS_GET: "prompt"}.get(call.method, "resource")
        message = f"Unknown {kind}: {exposed}"
        answer_error(call, protocol.INVALID_PARAMS, message, status=200)
        self._observer.finish(call, "denied", 200, message)

    def _invalid(
        self,
        call: Call,
        message: str,
        code: int = protocol.INVALID_REQUEST,
        *,
        status: int = 400,
        data: object = None,
    ) -> bool:
        answer_error(call, code, message, status=status, data=data)
        self._observer.finish(call, "error", status, message)
        return False


class MuxRelay(McpRelay):
    """A relay that opens an expired upstream session anew: a 404 means that nothing was executed."""

    __slots__ = ("again",)

    again: Callable[[], None] | None

    def on_head(self, status: int, headers: list[Header]) -> None:
        again = self.again
        if status == 404 and again is not None and not self.exchange.started:
            self.abandon()
            again()
        else:
            super().on_head(status, headers)


async def _close_links(table: Table, principal: Principal, state: State) -> None:
    for route in table.servers:
        link = state.links.get(route.label)
        if link is not None:
            try:
                await client.close(route, route.lane(principal), link)
            except (UpstreamError, TimedOut):
                continue  # it is gone already, or forgets the session by itself


def _binding(principal: Principal) -> bytes:
    return f"mcp|{principal.id}".encode()


def _text(raw: Raw | None) -> str:
    """A string member; empty when it is absent or something else."""
    if raw is None:
        return ""
    value = msgspec.json.decode(raw)
    return value if isinstance(value, str) else ""


def _cursor(raw: Raw | None) -> int | None:
    """The position that a cursor of ours stands for; None when it is not one."""
    if raw is None:
        return 0
    try:
        position = int(urlsafe_b64decode(_text(raw)))
    except ValueError:
        return None
    return position if position >= 0 else None


def _prefixed(item: Raw, prefix: str, key: str) -> Raw:
    fields: dict[str, Any] = dict(lists.members(item))
    member, separator = {"resources": ("uri", "+"), "resourceTemplates": ("uriTemplate", "+")}.get(key, ("name", "_"))
    if member in fields:
        fields[member] = f"{prefix}{separator}{msgspec.json.decode(fields[member])}"
    return Raw(msgspec.json.encode(fields))


def _restored(raw_id: bytes) -> Callable[[bytes], bytes]:
    """For modern clients: their own id again, and the ``resultType`` that legacy servers do not know."""

    def transform(body: bytes) -> bytes:
        top = lists.members(body)
        top["id"] = Raw(raw_id)
        if "result" in top:
            result = lists.members(top["result"])
            result.setdefault("resultType", Raw(b'"complete"'))
            top["result"] = Raw(msgspec.json.encode(result))
        return msgspec.json.encode(top)

    return transform
