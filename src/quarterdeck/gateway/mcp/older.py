"""Clients of 2026-07-28 in front of servers that speak only the older revisions.

Stateless requests of one caller share a session with the server (:class:`Conversation`). What a server asks of the
client in the middle of a call becomes an ``input_required`` result; the call is held here meanwhile, and the sealed
``requestState`` finds it again. Specification: 2026-07-28, basic (multi-round-trip requests, SEP-2322).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from hashlib import sha256
from itertools import count
from os import urandom
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcptypes import MODERN_VERSIONS, jsonrpc, lists, modern, protocol
from quarterdeck.wire import sse
from quarterdeck.wire.http import Disconnected, Exchange, Header

from ..observe import Observer
from . import client
from .client import RpcError
from .conversation import Conversation, Event, Flight
from .relay import answer_error
from .session import Session, SessionSealer

if TYPE_CHECKING:
    from .endpoint import McpCall

_CONVERSATIONS = 5_000
_VARIANTS = 8
_CAPABILITIES_BYTES = 4096
"""Sessions of one caller with one server: clients choose the capabilities that tell them apart; and those' bytes."""
_IDLE = 1800.0
"""Seconds without a call after which a session with a server is given up."""
HOLD = 600.0
"""Seconds a call waits for its client's answers."""
_HELD = 2_000
_HELD_EACH = 64
_QUESTIONS, _QUESTION_BYTES = 32, 256 * 1024
"""Calls held in all and for one caller; a server's questions in one call, and their bytes."""
_NOTICE_BYTES = 64 * 1024
_JSON: Header = (b"content-type", b"application/json")
_SSE: list[Header] = [
    (b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"),
]  # fmt: skip
_KEEP_ALIVE = 15.0
_CACHEABLE = frozenset({*lists.LIST_KEYS, protocol.RESOURCES_READ, protocol.DISCOVER})
_NOT_FOUND_BEFORE = -32002
_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_GONE = "the client closed the connection"
_INPUT_KEY = "dev.quarterdeck/inputKey"
"""``_meta`` member by which a server of the older era may name the key of its question."""
_CHANGES = {
    "notifications/tools/list_changed": "toolsListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
    "notifications/resources/list_changed": "resourcesListChanged",
}

Key = tuple[str, str, str]


class Held(msgspec.Struct):
    """A call that waits for its client. ``binding`` is what the retry must be the same as."""

    conversation: Conversation
    flight: Flight
    requests: dict[str, Any]
    binding: bytes
    until: float


class OlderServers:
    """Serves modern requests to legacy servers."""

    def __init__(self, observer: Observer, sealer: SessionSealer) -> None:
        self._observer = observer
        self._sealer = sealer
        self._owner = urandom(8).hex()
        self._numbers = count(1)
        self._conversations: OrderedDict[Key, tuple[Conversation, float]] = OrderedDict()
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, call: McpCall) -> None:
        """Answer one request."""
        message = call.message
        assert message is not None
        if not call.raw_id:
            call.exchange.respond(202)  # a stateless client has nothing to notify of
            self._observer.finish(call, "ok", 202)
            return
        try:
            envelope = modern.envelope(message)
        except msgspec.ValidationError as error:
            self._refuse(call, protocol.INVALID_PARAMS, f"the request is not one of {MODERN_VERSIONS[-1]}: {error}")
            return
        if envelope.version.encode() != call.headers.get(protocol.H_VERSION):
            self._refuse(call, protocol.HEADER_MISMATCH, "header MCP-Protocol-Version does not match the body")
            return
        if message.method in modern.REMOVED:
            self._refuse(call, protocol.METHOD_NOT_FOUND, f"{message.method} is no method of {envelope.version}")
            return
        conversation = self._conversation(call, envelope)
        if conversation is None:
            return
        try:
            if message.method == protocol.DISCOVER:
                await conversation.open()
                self._respond(call, _discovered(conversation))
            elif message.method == "subscriptions/listen":
                await self._listen(call, conversation)
            else:
                await self._request(call, conversation, envelope)
        except (UpstreamError, TimedOut) as error:
            self._failed(call, error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._failed(call, UpstreamError(f"sent what MCP does not know: {error}"))

    # -- calls
    async def _request(self, call: McpCall, conversation: Conversation, envelope: modern.Envelope) -> None:
        assert call.message is not None
        params = lists.members(call.message.params) if isinstance(call.message.params, Raw) else {}
        state, answers = params.pop("requestState", None), params.pop("inputResponses", None)
        binding = sha256(msgspec.json.encode([call.method, params.get("name"), params.get("uri")])).digest()
        if state is not None:
            await self._resume(call, conversation, envelope, _text(state), answers, binding)
            return
        problem = await self._mirrored(call, conversation, params)
        if problem:
            self._refuse(call, protocol.HEADER_MISMATCH, problem)
            return
        meta = client.without_modern_meta(params["_meta"])
        sent: dict[str, Any] = {k: v for k, v in params.items() if k != "_meta"} | ({"_meta": meta} if meta else {})
        await self._set_level(conversation, envelope.log_level)
        flight = await conversation.send(call.method, sent)
        await self._follow(call, conversation, flight, envelope, binding, _objects(answers))

    async def _resume(
        self,
        call: McpCall,
        conversation: Conversation,
        envelope: modern.Envelope,
        state: str,
        answers: Raw | None,
        binding: bytes,
    ) -> None:
        self._expire()
        session = self._sealer.open(state.encode(), call.lane.binding + b"|state")
        held = self._held.get(session.upstream) if session is not None and session.owner == self._owner else None
        if session is None or (held is not None and held.binding != binding):
            self._refuse(call, protocol.INVALID_PARAMS, "requestState is not one that this request was given")
            return
        if held is None or held.flight.over:
            self._refuse(call, protocol.INVALID_PARAMS, "the call behind requestState has ended; send the request anew")
            return
        given = _objects(answers)
        if not held.requests.keys() <= given.keys():
            self._ask(call, held)  # answers are missing: the same questions once more
            return
        del self._held[session.upstream]
        await held.conversation.answer(held.flight, {k: v for k, v in given.items() if k in held.requests})
        await self._follow(call, held.conversation, held.flight, envelope, binding)

    async def _follow(
        self,
        call: McpCall,
        conversation: Conversation,
        flight: Flight,
        envelope: modern.Envelope,
        binding: bytes,
        given: dict[str, Raw] | None = None,
    ) -> None:
        """Pass on what the server says until it has answered, or asks what the client has not answered yet."""
        try:
            await self._pass_on(call, conversation, flight, envelope, binding, given or {})
        except asyncio.CancelledError:  # the connection is gone
            self._spawn(conversation.cancel(flight, _GONE))
            self._observer.finish(call, "error", 499, _GONE)
            raise
        except BaseException:
            conversation.end(flight)
            raise

    async def _pass_on(
        self,
        call: McpCall,
        conversation: Conversation,
        flight: Flight,
        envelope: modern.Envelope,
        binding: bytes,
        given: dict[str, Raw],
    ) -> None:
        gone = _departure(call.exchange)
        timeout = conversation.route.server.timeout
        while True:
            event = await _first(flight.next(timeout), gone)
            if event is None:
                await conversation.cancel(flight, _GONE)
                self._observer.finish(call, "error", 499, _GONE)
                return
            if event.kind == "notice":
                await self._notice(call, event.message, envelope)
            elif event.kind == "question":
                requests = await self._questions(conversation, flight, event, envelope)
                known = {key: value for key, value in given.items() if key in requests}
                await conversation.answer(flight, known)
                requests = {key: value for key, value in requests.items() if key not in known}
                if requests:
                    self._hold(call, Held(conversation, flight, requests, binding, monotonic() + HOLD))
                    return
            elif event.kind == "answer":
                self._answered(call, conversation, event.message)
                return
            else:
                if event.error is not None and isinstance(event.error, TimedOut):
                    await conversation.cancel(flight, "timed out")
                raise event.error or UpstreamError("ended before it answered")

    async def _questions(
        self, conversation: Conversation, flight: Flight, first: Event, envelope: modern.Envelope
    ) -> dict[str, Any]:
        """The server's questions as ``inputRequests``; what the client cannot answer is refused on its behalf."""
        requests: dict[str, Any] = {}
        size = 0
        for event in await flight.burst(first):
            message = event.message
            capability = message.method.partition("/")[0]
            if capability not in envelope.capabilities:
                await conversation.refuse(message, f"the client did not declare {capability}")
                continue
            size += event.size
            if size > _QUESTION_BYTES or len(flight.asked) >= _QUESTIONS:
                await conversation.refuse(message, f"at most {_QUESTIONS} questions of {_QUESTION_BYTES} bytes in all")
                continue
            params = lists.members(message.params) if isinstance(message.params, Raw) else {}
            meta = _object(params.get("_meta"))
            key = str(meta.get(_INPUT_KEY) or f"{capability}-{len(requests) + 1}")
            requests[key] = {"method": message.method, "params": params}
            flight.asked[key] = message
        return requests

    def _hold(self, call: McpCall, held: Held) -> None:
        self._expire()
        key = f"{next(self._numbers)}"
        self._held[key] = held
        caller = call.principal.id
        mine = [k for k, other in self._held.items() if other.conversation.lane.principal.id == caller]
        if len(mine) > _HELD_EACH or len(self._held) > _HELD:
            oldest = self._held.pop(mine[0] if len(mine) > _HELD_EACH else next(iter(self._held)))
            self._spawn(oldest.conversation.cancel(oldest.flight, "too many calls wait for answers"))
        self._ask(call, held, key)

    def _ask(self, call: McpCall, held: Held, key: str = "") -> None:
        key = key or next(k for k, v in self._held.items() if v is held)
        state = self._sealer.seal(Session(key, owner=self._owner), call.lane.binding + b"|state").decode()
        self._respond(call, {"resultType": "input_required", "inputRequests": held.requests, "requestState": state})

    def _expire(self) -> None:
        now = monotonic()
        for key, held in list(self._held.items()):
            if held.until > now:
                break
            del self._held[key]
            self._spawn(held.conversation.cancel(held.flight, "the client did not answer in time"))

    # -- subscriptions
    async def _listen(self, call: McpCall, conversation: Conversation) -> None:
        """Lists that change, told on the stream of this request; resources are subscribed to at the server."""
        assert call.message is not None and isinstance(call.message.params, Raw)
        wanted = _object(lists.members(call.message.params).get("notifications"))
        named = wanted.get("resourceSubscriptions")
        uris = [u for u in named if isinstance(u, str)][:1000] if isinstance(named, list) else []
        if not call.lane.decide("resources/subscribe").allow:
            uris = []
        await conversation.open()
        for uri in uris:
            await conversation.ask("resources/subscribe", {"uri": uri})
        exchange = call.exchange
        identity = Raw(call.raw_id)
        queue: asyncio.Queue[bytes] = asyncio.Queue(256)

        def tell(message: jsonrpc.Message) -> None:
            raw = message.params if isinstance(message.params, Raw) else None
            if raw is not None and memoryview(raw).nbytes > _NOTICE_BYTES:
                return  # these notices say little; the queue holds many
            try:
                params = _object(raw)
            except msgspec.DecodeError:
                return
            flag = _CHANGES.get(message.method)
            if (flag and wanted.get(flag)) or (flag is None and params.get("uri") in uris):
                meta = params.get("_meta")
                params["_meta"] = {**(meta if isinstance(meta, dict) else {}), protocol.META_SUBSCRIPTION: identity}
                with contextlib.suppress(asyncio.QueueFull):  # a client that does not read loses notices, as told
                    queue.put_nowait(jsonrpc.notification(message.method, params))

        honored = {flag: True for flag in _CHANGES.values() if wanted.get(flag)}
        acknowledged = {
            "notifications": honored | ({"resourceSubscriptions": uris} if uris else {}),
            "_meta": {protocol.META_SUBSCRIPTION: identity},
        }
        exchange.start(200, _SSE)
        exchange.write(_event(jsonrpc.notification("notifications/subscriptions/acknowledged", acknowledged)))
        gone = _departure(exchange)
        conversation.listeners.add(tell)
        try:
            while not gone.done():
                body = await _first(_soon(queue), gone)
                if body is not None:
                    await exchange.send(_event(body) if body else b": keep-alive\n\n")
        except Disconnected:
            pass
        finally:
            conversation.listeners.discard(tell)
            self._observer.finish(call, "ok", 200)

    # -- answers
    async def _notice(self, call: McpCall, message: jsonrpc.Message, envelope: modern.Envelope) -> None:
        if message.method == "notifications/message" and not envelope.log_level:
            return  # log lines are for those who asked for them
        accept = call.headers.get(b"accept", b"")
        if b"text/event-stream" not in accept:
            return
        if not call.exchange.started:
            call.exchange.start(200, _SSE)
        with contextlib.suppress(Disconnected):
            await call.exchange.send(_event(jsonrpc.notification(message.method, message.params)))

    def _answered(self, call: McpCall, conversation: Conversation, message: jsonrpc.Message) -> None:
        if isinstance(message.error, Raw):
            error = _object(message.error)
            code = error.get("code")
            if not isinstance(code, int):
                code = protocol.INTERNAL_ERROR
            if code == _NOT_FOUND_BEFORE and call.method == protocol.RESOURCES_READ:
                code = protocol.INVALID_PARAMS
            self._refuse(call, code, str(error.get("message", "")), error.get("data"))
            return
        if not isinstance(message.result, Raw):
            raise UpstreamError("sent an answer without a result")
        result: dict[str, Any] = dict(lists.members(message.result))
        key = lists.LIST_KEYS.get(call.method)
        if key == "tools" and key in result and call.lane.filters:
            result[key] = [item for item in lists.items(result[key]) if call.lane.shows(lists.name_of(item))]
        if call.method in _CACHEABLE:
            result |= {"ttlMs": 0, "cacheScope": "private"}
        meta = _object(result.get("_meta"))
        result["_meta"] = {protocol.META_SERVER_INFO: conversation.greeting.server_info, **meta}
        outcome = "tool_error" if result.get("isError") == Raw(b"true") else "ok"
        self._respond(call, {"resultType": "complete", **result}, outcome)

    def _respond(self, call: McpCall, result: dict[str, Any], outcome: Any = "ok") -> None:
        body = jsonrpc.result_response(call.raw_id, result)
        self._finish(call, 200, body)
        self._observer.finish(call, outcome, 200)

    def _refuse(self, call: McpCall, code: int, text: str, data: object = None) -> None:
        status = modern.status_of(code)
        self._finish(call, status, jsonrpc.error_response(call.raw_id, code, text, data))
        self._observer.finish(call, "error", status, text)

    def _finish(self, call: McpCall, status: int, body: bytes) -> None:
        exchange = call.exchange
        if exchange.disconnected:
            return
        if exchange.started:
            exchange.write(_event(body))
            exchange.finish()
        else:
            exchange.respond(status, body, [_JSON])

    def _failed(self, call: McpCall, error: UpstreamError | TimedOut) -> None:
        if isinstance(error, RpcError):
            self._refuse(call, error.code, str(error))
            return
        code = protocol.TIMED_OUT if isinstance(error, TimedOut) else protocol.UPSTREAM_FAILED
        text = f"MCP server {call.server} {error}; {call.route.remedy}"
        if call.exchange.started:
            self._finish(call, 200, jsonrpc.error_response(call.raw_id, code, text))
        else:
            answer_error(call, code, text)
        self._observer.finish(call, "error", 504 if isinstance(error, TimedOut) else 502, text)

    # -- sessions
    def _conversation(self, call: McpCall, envelope: modern.Envelope) -> Conversation | None:
        """The caller's session with the server, for a client that can do so much; None when that was refused."""
        capabilities = {k: v for k, v in envelope.capabilities.items() if k != "extensions"}
        encoded = msgspec.json.encode(capabilities, order="deterministic").decode()
        if len(encoded) > _CAPABILITIES_BYTES:
            text = f"the client's capabilities are larger than {_CAPABILITIES_BYTES} bytes"
            self._refuse(call, protocol.INVALID_PARAMS, text)
            return None
        key = (f"{call.route.server.kind} {call.route.label}", call.principal.id, encoded)
        if key not in self._conversations and not self._make_room(key):
            text = f"{_VARIANTS} sets of capabilities are in use with this server already"
            self._refuse(call, protocol.INVALID_REQUEST, text)
            return None
        now = monotonic()
        for old, (conversation, used) in list(self._conversations.items()):
            if now - used < _IDLE and len(self._conversations) <= _CONVERSATIONS:
                break
            if not conversation.busy:
                del self._conversations[old]
                self._end(conversation)
        found = self._conversations.pop(key, None)
        conversation = found[0] if found is not None else Conversation(call.route, call.lane, capabilities)
        conversation.route, conversation.lane = call.route, call.lane  # of the newest configuration
        self._conversations[key] = (conversation, now)
        return conversation

    def _make_room(self, key: Key) -> bool:
        """Give up the oldest of the caller's sessions with the server when there are too many; False: all are used."""
        mine = [other for other in self._conversations if other[:2] == key[:2]]
        if len(mine) < _VARIANTS:
            return True
        for other in mine:
            conversation, _ = self._conversations[other]
            if not conversation.busy:
                del self._conversations[other]
                self._end(conversation)
                return True
        return False

    def _end(self, conversation: Conversation) -> None:
        link = conversation.link
        conversation.close()
        if link is not None:
            self._spawn(_closed(conversation, link))

    async def _set_level(self, conversation: Conversation, level: str) -> None:
        """The level of log lines is the session's in the older era: the last request that names one sets it."""
        await conversation.open()
        if level in _LEVELS and level != conversation.level and "logging" in conversation.greeting.capabilities:
            await conversation.ask(protocol.SET_LEVEL, {"level": level})
            conversation.level = level

    async def _mirrored(self, call: McpCall, conversation: Conversation, params: dict[str, Raw]) -> str:
        """What is wrong with the ``Mcp-Param-*`` headers of a tool call; empty when nothing is."""
        if call.method != protocol.TOOLS_CALL:
            return ""
        link = await conversation.open()
        if conversation.mirrored is None:
            tools: list[Raw] = []
            with contextlib.suppress(RpcError):  # a server without tools has none that mirror arguments
                tools = await client.list_all(call.route, call.lane, link, protocol.TOOLS_LIST, "tools")
            found = ((lists.name_of(tool), modern.mirrored(_object(tool).get("inputSchema"))) for tool in tools)
            conversation.mirrored = {name: mapping for name, mapping in found if mapping}
        mapping = conversation.mirrored.get(call.tool)
        if not mapping:
            return ""
        arguments = msgspec.json.decode(params["arguments"]) if "arguments" in params else None
        return modern.param_problem(mapping, arguments, call.exchange.headers)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _discovered(conversation: Conversation) -> dict[str, Any]:
    greeting = conversation.greeting
    return {
        "resultType": "complete",
        "supportedVersions": list(MODERN_VERSIONS),
        "capabilities": greeting.capabilities,
        **({"instructions": greeting.instructions} if greeting.instructions else {}),
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {protocol.META_SERVER_INFO: greeting.server_info},
    }


async def _closed(conversation: Conversation, link: client.Link) -> None:
    try:
        await client.close(conversation.route, conversation.lane, link)
    except (UpstreamError, TimedOut):
        return  # it forgets the session by itself


def _departure(exchange: Exchange) -> asyncio.Future[None]:
    """Done when the client has gone."""
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def leave() -> None:
        if not gone.done():
            gone.set_result(None)

    exchange.on_disconnect(leave)
    return gone


async def _soon(queue: asyncio.Queue[bytes]) -> bytes:
    """The next message, or nothing when it is time for a sign of life."""
    try:
        async with asyncio.timeout(_KEEP_ALIVE):
            return await queue.get()
    except TimeoutError:
        return b""


async def _first(work: Any, gone: asyncio.Future[None]) -> Any:
    """The result of ``work``; None when the client left first."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()


def _event(body: bytes) -> bytes:
    return sse.encode(body, event=b"message")


def _object(raw: Raw | None) -> dict[str, Any]:
    """A JSON object, decoded; empty where there is none. Raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(raw, type=dict[str, Any] | None) or {} if raw is not None else {}


def _objects(raw: Raw | None) -> dict[str, Raw]:
    """``inputResponses``: those members that are objects."""
    if raw is None or bytes(raw).lstrip()[:1] != b"{":
        return {}
    return {k: v for k, v in lists.members(raw).items() if bytes(v).lstrip()[:1] == b"{"}


def _text(raw: Raw) -> str:
    value = msgspec.json.decode(raw)
    return value if isinstance(value, str) else ""
