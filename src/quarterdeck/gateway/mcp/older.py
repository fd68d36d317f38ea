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
from time import monotonic
from typing import Any

import msgspec
from msgspec import Raw

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import MODERN_VERSIONS, jsonrpc, lists, modern, protocol
from quarterdeck.wire.http import Disconnected

from ..observe import Observer
from ..policy.principal import Principal
from ..upstream import Upstreams
from . import client, naming
from .answers import EVENTS, GONE, Answers, departure, event, first, sight
from .call import McpCall, text_of
from .client import RpcError
from .conversation import Conversation, Event, Flight, Running
from .peers import Peers
from .relay import answer_error
from .session import Session, SessionSealer
from .shared import Conversations, Refused
from .subscriptions import Subscription

HOLD = 600.0
"""Seconds a call waits for its client's answers."""
_HELD = 2_000
_HELD_EACH = 64
_QUESTIONS, _QUESTION_BYTES = 32, 256 * 1024
"""Calls held in all and for one caller; a server's questions in one call, and their bytes."""
_CACHEABLE = frozenset({*lists.LIST_KEYS, protocol.RESOURCES_READ, protocol.DISCOVER})
_NOT_FOUND_BEFORE = -32002
_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_INPUT_KEY = "dev.quarterdeck/inputKey"
"""``_meta`` member by which a server of the older era may name the key of its question."""


class Held:
    """A call that waits for its client. ``binding`` is what the retry must be the same as."""

    def __init__(
        self, conversation: Conversation, flight: Flight, requests: dict[str, Any], binding: bytes, until: float
    ) -> None:
        self.conversation = conversation
        self.flight = flight
        self.requests = requests
        self.binding = binding
        self.until = until
        self.principal: Principal = conversation.lane.principal
        self.target = ("mcp", conversation.route.label)

    def give_up(self, error: UpstreamError) -> None:
        """The gateway ends the call: its retry finds it gone, its server hears of it when the session is closed."""
        del error
        self.conversation.end(self.flight)


class OlderServers:
    """Serves modern requests to legacy servers."""

    def __init__(
        self, upstreams: Upstreams, observer: Observer, sealer: SessionSealer, peers: Peers, shared: Conversations
    ) -> None:
        self._upstreams = upstreams
        self._observer = observer
        self._sealer = sealer
        self._peers = peers
        self._shared = shared
        self._answers = Answers(observer)
        self._numbers = count(1)
        self._tokens = count(1)
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
        try:
            conversation = self._shared.of(call.route, call.principal, envelope, call.added(call.member))
        except Refused as error:
            self._refuse(call, error.code, str(error))
            return
        try:
            if message.method == protocol.DISCOVER:
                await conversation.open()
                self._respond(call, _discovered(conversation))
            elif message.method == "subscriptions/listen":
                await Subscription(call, self._upstreams, self._answers).serve([(call.member, conversation)])
            else:
                await self._request(call, conversation, envelope)
        except (UpstreamError, TimedOut) as error:
            self._failed(call, error)
        except MALFORMED as error:
            self._failed(call, UpstreamError(f"sent what MCP does not know: {error}"))

    # -- calls
    async def _request(self, call: McpCall, conversation: Conversation, envelope: modern.Envelope) -> None:
        assert call.message is not None
        params = lists.members(call.message.params) if isinstance(call.message.params, Raw) else {}
        state, answers = params.pop("requestState", None), params.pop("inputResponses", None)
        binding = sha256(msgspec.json.encode([call.method, params.get("name"), params.get("uri")])).digest()
        if state is not None:
            await self._resume(call, conversation, envelope, text_of(state), answers, binding)
            return
        problem = await self._mirrored(call, conversation, params)
        if problem:
            self._refuse(call, protocol.HEADER_MISMATCH, problem)
            return
        meta: dict[str, Any] = dict(client.without_modern_meta(params["_meta"]))
        token = meta.get("progressToken")
        if token is not None:  # callers of one session may have chosen the same
            meta["progressToken"] = f"qd-p{next(self._tokens)}"
        sent: dict[str, Any] = {k: v for k, v in params.items() if k != "_meta"} | ({"_meta": meta} if meta else {})
        await self._set_level(conversation, envelope.log_level)
        flight = await conversation.send(call.method, sent)
        if token is not None:
            flight.token, flight.own_token = token, meta["progressToken"]
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
        session = self._sealer.open(state.encode(), state_of(call))
        if session is not None and session.owner != self._peers.owner:
            await self._peers.pass_on(call, session.owner)
            return
        held = self._held.get(session.upstream) if session is not None else None
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
        self._take(session.upstream)
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
        running = Running(call, flight)
        self._upstreams.held.add(running)
        try:
            await self._pass_on(call, conversation, flight, envelope, binding, given or {})
        except asyncio.CancelledError:  # the connection is gone
            self._spawn(conversation.cancel(flight, GONE))
            self._observer.finish(call, "error", 499, GONE)
            raise
        except BaseException:
            conversation.end(flight)
            raise
        finally:
            self._upstreams.held.discard(running)

    async def _pass_on(
        self,
        call: McpCall,
        conversation: Conversation,
        flight: Flight,
        envelope: modern.Envelope,
        binding: bytes,
        given: dict[str, Raw],
    ) -> None:
        gone = departure(call.exchange)
        timeout = conversation.route.server.timeout
        while True:
            said = await first(flight.next(timeout), gone)
            if said is None:
                await conversation.cancel(flight, GONE)
                self._observer.finish(call, "error", 499, GONE)
                return
            if said.kind == "notice":
                await self._notice(call, flight, said.message, envelope)
            elif said.kind == "question":
                requests = await self._questions(conversation, flight, said, envelope)
                known = {key: value for key, value in given.items() if key in requests}
                await conversation.answer(flight, known)
                requests = {key: value for key, value in requests.items() if key not in known}
                if requests:
                    self._hold(call, Held(conversation, flight, requests, binding, monotonic() + HOLD))
                    return
            elif said.kind == "answer":
                self._answered(call, conversation, said.message)
                return
            else:
                if said.error is not None and isinstance(said.error, TimedOut):
                    await conversation.cancel(flight, "timed out")
                raise said.error or UpstreamError("ended before it answered")

    async def _questions(
        self, conversation: Conversation, flight: Flight, begun: Event, envelope: modern.Envelope
    ) -> dict[str, Any]:
        """The server's questions as ``inputRequests``; what the client cannot answer is refused on its behalf."""
        requests: dict[str, Any] = {}
        size = 0
        for said in await flight.burst(begun):
            message = said.message
            capability = message.method.partition("/")[0]
            if capability not in envelope.capabilities:
                await conversation.refuse(message, f"the client did not declare {capability}")
                continue
            size += said.size
            if size > _QUESTION_BYTES or len(flight.asked) >= _QUESTIONS:
                await conversation.refuse(message, f"at most {_QUESTIONS} questions of {_QUESTION_BYTES} bytes in all")
                continue
            params = lists.members(message.params) if isinstance(message.params, Raw) else {}
            meta = _object(params.get("_meta"))
            key = str(meta.get(_INPUT_KEY) or flight.key_of(message) or f"{capability}-{len(requests) + 1}")
            requests[key] = {"method": message.method, "params": params}
            flight.asked[key] = message
        return requests

    def _hold(self, call: McpCall, held: Held) -> None:
        self._expire()
        key = f"{next(self._numbers)}"
        self._held[key] = held
        self._upstreams.held.add(held)
        caller = call.principal.id
        mine = [k for k, other in self._held.items() if other.principal.id == caller]
        if len(mine) > _HELD_EACH or len(self._held) > _HELD:
            oldest = self._take(mine[0] if len(mine) > _HELD_EACH else next(iter(self._held)))
            self._spawn(oldest.conversation.cancel(oldest.flight, "too many calls wait for answers"))
        self._ask(call, held, key)

    def _take(self, key: str) -> Held:
        held = self._held.pop(key)
        self._upstreams.held.discard(held)
        return held

    def _ask(self, call: McpCall, held: Held, key: str = "") -> None:
        key = key or next(k for k, v in self._held.items() if v is held)
        state = self._sealer.seal(Session(key, owner=self._peers.owner), state_of(call)).decode()
        self._respond(call, {"resultType": "input_required", "inputRequests": held.requests, "requestState": state})

    def _expire(self) -> None:
        now = monotonic()
        for key, held in list(self._held.items()):
            if held.until > now:
                break
            self._take(key)
            self._spawn(held.conversation.cancel(held.flight, "the client did not answer in time"))

    # -- answers
    async def _notice(self, call: McpCall, flight: Flight, message: jsonrpc.Message, envelope: modern.Envelope) -> None:
        if message.method == "notifications/message" and not envelope.log_level:
            return  # log lines are for those who asked for them
        accept = call.headers.get(b"accept", b"")
        if b"text/event-stream" not in accept:
            return
        if not call.exchange.started:
            call.exchange.start(200, EVENTS)
        params: Any = naming.notice_out(call.member, message.method, message.params)
        if flight.token is not None and message.method == "notifications/progress" and isinstance(params, Raw):
            params = {**lists.members(params), "progressToken": flight.token}
        with contextlib.suppress(Disconnected):
            await call.exchange.send(event(jsonrpc.notification(message.method, params)))

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
        if key is not None and key in result:
            kept = filter(sight(call, call.member, key), lists.items(result[key]))
            result[key] = [naming.item_out(call.member, key, item) for item in kept]
        if call.method in _CACHEABLE:
            result |= {"ttlMs": 0, "cacheScope": "private"}
        meta = _object(result.get("_meta"))
        result["_meta"] = {protocol.META_SERVER_INFO: conversation.greeting.server_info, **meta}
        outcome = "tool_error" if result.get("isError") == Raw(b"true") else "ok"
        self._respond(call, {"resultType": "complete", **result}, outcome)

    def _respond(self, call: McpCall, result: dict[str, Any], outcome: Any = "ok") -> None:
        body = jsonrpc.result_response(call.raw_id, result)
        if call.transform is not None and result.get("resultType") != "input_required":
            body = call.transform(body)
        self._answers.message(call, 200, body)
        self._observer.finish(call, outcome, 200)

    def _refuse(self, call: McpCall, code: int, text: str, data: object = None) -> None:
        status = modern.status_of(code)
        self._answers.message(call, status, jsonrpc.error_response(call.raw_id, code, text, data))
        self._observer.finish(call, "error", status, text)

    def _failed(self, call: McpCall, error: UpstreamError | TimedOut) -> None:
        if isinstance(error, RpcError):
            self._refuse(call, error.code, str(error), error.data)
            return
        code = protocol.TIMED_OUT if isinstance(error, TimedOut) else protocol.UPSTREAM_FAILED
        text = f"MCP server {call.server} {error}; {call.route.remedy}"
        if call.exchange.started:
            self._answers.message(call, 200, jsonrpc.error_response(call.raw_id, code, text))
        else:
            answer_error(call, code, text)
        self._observer.finish(call, "error", 504 if isinstance(error, TimedOut) else 502, text)

    # -- sessions
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
        await conversation.open()
        if conversation.mirrored is None:
            tools: list[Raw] = []
            with contextlib.suppress(RpcError):  # a server without tools has none that mirror arguments
                tools = await client.list_all(conversation.ask, protocol.TOOLS_LIST, "tools")
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


def state_of(call: McpCall) -> bytes:
    """What the ``requestState`` of a call held here is bound to."""
    user = call.principal.on_behalf_of.encode()
    return call.group.binding(call.principal) + b"|state|" + call.member.name.encode() + b"|" + user


def _object(raw: Raw | None) -> dict[str, Any]:
    """A JSON object, decoded; empty where there is none. Raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(raw, type=dict[str, Any] | None) or {} if raw is not None else {}


def _objects(raw: Raw | None) -> dict[str, Raw]:
    """``inputResponses``: those members that are objects."""
    if raw is None or bytes(raw).lstrip()[:1] != b"{":
        return {}
    return {k: v for k, v in lists.members(raw).items() if bytes(v).lstrip()[:1] == b"{"}
