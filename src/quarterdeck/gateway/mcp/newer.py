"""Servers that speak nothing older than 2026-07-28, for a client's session of an older revision.

What such a server asks comes as an ``input_required`` result: it becomes questions to the client, and the request is
made again with the answers and the server's ``requestState``, until there is a result (SEP-2322). Changes of lists and
resources come on one ``subscriptions/listen`` for each client session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import LATEST_LEGACY, MODERN_VERSIONS, jsonrpc, lists, modern, protocol

from . import client, naming
from .call import text_of
from .client import Link, RpcError
from .conversation import Conversation, Event, Flight, Greeting
from .route import Lane, McpRoute

_ROUNDS = 32
_QUESTIONS = 32
"""How often a call may ask its client, and for how many things at a time."""
_WATCHED = 1000
_RETRY = 1.0
_MODERN_ONLY = ("resultType", "ttlMs", "cacheScope")
_ids = count(1)


class _Discovered(msgspec.Struct, rename="camel"):
    """Result of ``server/discover``."""

    capabilities: dict[str, Any] = {}
    instructions: str = ""
    meta: dict[str, Any] = msgspec.field(name="_meta", default_factory=dict[str, Any])


def greeting_of(result: Raw) -> Greeting:
    """What a modern server says of itself. Raises msgspec.DecodeError."""
    found = msgspec.json.decode(result, type=_Discovered)
    info = found.meta.get(protocol.META_SERVER_INFO)
    said = cast(dict[str, Any], info) if isinstance(info, dict) else {}
    return Greeting(capabilities=found.capabilities, server_info=said, instructions=found.instructions)


class NewerConversation(Conversation):
    """One client's session with a modern server: nothing at the server, all of it here."""

    kept_here = frozenset({protocol.PING, protocol.SET_LEVEL, naming.SUBSCRIBE, naming.UNSUBSCRIBE})

    def __init__(
        self,
        route: McpRoute,
        lane: Lane,
        capabilities: dict[str, Any],
        *,
        info: dict[str, Any] | None = None,
        version: str = LATEST_LEGACY,
    ) -> None:
        super().__init__(route, lane, capabilities, info=info, version=version)
        self._watched: set[str] = set()
        self._dropped: set[str] = set()
        """Tools that cannot be called as their annotations break the rules."""
        self._subscription: asyncio.Task[None] | None = None

    async def _begin(self) -> Link:
        link = Link(client.origin_of(self.route), MODERN_VERSIONS[-1], meta=self._meta(), extra=self.extra)
        result = await client.ask(self.route, self.lane, link, protocol.DISCOVER)
        self.greeting = greeting_of(result)
        self.link = link
        return link

    def close(self) -> None:
        super().close()
        self._stop_listening()

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> Raw:
        link = await self.open()
        if method not in self.kept_here:
            result = await client.ask(self.route, self.lane, link, method, params)
            return self._usable(result) if method == protocol.TOOLS_LIST else result
        if method == protocol.SET_LEVEL:
            self.level = _text(params, "level")
            link.meta = self._meta()
        elif method != protocol.PING:
            self._watch(_text(params, "uri"), method == naming.SUBSCRIBE)
        return Raw(b"{}")

    async def send(self, method: str, params: dict[str, Any]) -> Flight:
        flight = Flight(next(_ids))
        await self.open()
        self._flights[flight.id] = flight
        flight.task = asyncio.get_running_loop().create_task(self._rounds(flight, method, params))
        return flight

    async def answer(self, flight: Flight, answers: dict[str, Raw]) -> None:
        for key, result in answers.items():
            if flight.asked.pop(key, None) is not None:
                flight.given[key] = result
        if not flight.asked:
            flight.answered.set()

    async def refuse(self, question: jsonrpc.Message, text: str) -> None:
        """The server has no way to hear of it: the call ends."""
        flight = self._flights.get(text_of(cast(Raw, question.id)).partition("/")[0])
        if flight is not None:
            error = {"code": protocol.MISSING_CAPABILITY, "message": f"{question.method} was not answered: {text}"}
            flight.put(Event("answer", jsonrpc.Message(error=Raw(msgspec.json.encode(error)))))
            if flight.task is not None:
                flight.task.cancel()

    async def cancel(self, flight: Flight, reason: str) -> None:
        del reason
        self.end(flight)  # closing the stream of a request is its cancellation

    async def tell(self, body: bytes, method: str) -> None:
        del body, method  # nothing but requests is said to a modern server

    # -- calls
    async def _rounds(self, flight: Flight, method: str, params: dict[str, Any]) -> None:
        more: dict[str, Any] = {}
        try:
            for number in range(_ROUNDS):
                answer = await self._round(flight, number, method, {**params, **more})
                asked = _asked(answer)
                if asked is None:
                    flight.put(Event("answer", _as_before(answer)))
                    return
                given = await self._put(flight, asked.get("inputRequests"))
                more = {"inputResponses": given}
                if asked.get("requestState") is not None:
                    more["requestState"] = asked["requestState"]
            flight.put(Event("end", error=UpstreamError(f"asked its client more than {_ROUNDS} times")))
        except (UpstreamError, TimedOut) as error:
            flight.put(Event("end", error=error))
        except MALFORMED as error:
            flight.put(Event("end", error=UpstreamError(f"sent what MCP does not know: {error}")))
        finally:
            self._flights.pop(flight.id, None)

    async def _round(self, flight: Flight, number: int, method: str, params: dict[str, Any]) -> jsonrpc.Message:
        link = await self.open()
        meta = params.get("_meta")
        known = dict(lists.members(meta)) if isinstance(meta, Raw) else {}
        params["_meta"] = {**known, **self._meta()}
        label = _text(params, "uri" if method == protocol.RESOURCES_READ else "name")
        body = jsonrpc.request(f"{flight.id}-{number}", method, params)
        extra = await self._params_as_headers(label, params) if method == protocol.TOOLS_CALL else []
        named = label if method in (protocol.TOOLS_CALL, protocol.PROMPTS_GET, protocol.RESOURCES_READ) else ""
        response = await client.post(self.route, self.lane, link, method, body, name=named, extra=extra)
        try:
            async for message in client.messages(response):
                if not message.method:
                    return message
                if message.id is UNSET:
                    flight.put(Event("notice", message))
                    await flight.room()
        finally:
            response.close()
        raise UpstreamError(f"ended before it answered (HTTP {response.status})")

    async def _put(self, flight: Flight, requests: object) -> dict[str, Raw]:
        """Put the server's questions to the client; its answers."""
        if not isinstance(requests, dict) or not requests:
            return {}
        questions = cast(dict[str, Any], requests)
        if len(questions) > _QUESTIONS:
            raise UpstreamError(f"asks for more than {_QUESTIONS} things at a time")
        flight.given, flight.answered = {}, asyncio.Event()
        messages: dict[str, jsonrpc.Message] = {}
        for key, question in questions.items():
            asked = cast(dict[str, Any], question) if isinstance(question, dict) else {}
            ident = Raw(msgspec.json.encode(f"{flight.id}/{key}"))
            params = Raw(msgspec.json.encode(asked.get("params") or {}))
            messages[key] = jsonrpc.Message(id=ident, method=str(asked.get("method", "")), params=params)
        flight.asked.update(messages)
        for message in messages.values():
            flight.put(Event("question", message))
        await flight.answered.wait()
        return flight.given

    def _usable(self, result: Raw) -> Raw:
        """A page of tools without those whose ``x-mcp-header`` annotations break the rules: clients must drop them."""
        if b"x-mcp-header" not in bytes(result):
            return result
        page: dict[str, Any] = dict(lists.members(result))
        kept: list[Raw] = []
        for tool in lists.items(page.get("tools", Raw(b"[]"))):
            if modern.mirrored(msgspec.json.decode(tool).get("inputSchema")) is None:
                self._dropped.add(lists.name_of(tool))
            else:
                kept.append(tool)
        return Raw(msgspec.json.encode({**page, "tools": kept}))

    async def _params_as_headers(self, tool: str, params: dict[str, Any]) -> list[tuple[bytes, bytes]]:
        """Arguments that the tool wants mirrored into ``Mcp-Param-*`` headers."""
        if self.mirrored is None:
            tools: list[Raw] = []
            with contextlib.suppress(RpcError):
                tools = await client.list_all(self.ask, protocol.TOOLS_LIST, "tools")
            found = (
                (lists.name_of(item), modern.mirrored(msgspec.json.decode(item).get("inputSchema"))) for item in tools
            )
            self.mirrored = {name: mapping for name, mapping in found if mapping}
        if tool in self._dropped:
            raise RpcError(jsonrpc.ErrorObject(protocol.INVALID_PARAMS, f"Unknown tool: {tool}"))
        mapping = self.mirrored.get(tool)
        arguments = params.get("arguments")
        if not mapping or not isinstance(arguments, Raw):
            return []
        return modern.param_headers(mapping, msgspec.json.decode(arguments))

    def _meta(self) -> dict[str, Any]:
        return client.modern_meta(self.capabilities, self.info, self.level)

    # -- changes
    def attach(self, listener: Callable[[jsonrpc.Message], None]) -> None:
        super().attach(listener)
        self._listen_again()

    def detach(self, listener: Callable[[jsonrpc.Message], None]) -> None:
        super().detach(listener)
        if not self.listeners:
            self._stop_listening()

    def _watch(self, uri: str, wanted: bool) -> None:
        before = set(self._watched)
        if wanted and len(before) < _WATCHED:
            self._watched.add(uri)
        elif not wanted:
            self._watched.discard(uri)
        if self.listeners and self._watched != before:
            self._listen_again()

    def _listen_again(self) -> None:
        """One subscription at a time, for all that is wanted now."""
        self._stop_listening()
        self._subscription = asyncio.get_running_loop().create_task(self._follow_changes())

    def _stop_listening(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()
            self._subscription = None

    async def _follow_changes(self) -> None:
        while True:
            try:
                link = await self.open()
                async for message in changes(self.route, self.lane, link, wanted(self.greeting, self._watched)):
                    self._tell(message)
            except (UpstreamError, TimedOut):
                pass  # asked again below, for as long as somebody listens
            await asyncio.sleep(_RETRY)


def _text(params: dict[str, Any] | None, key: str) -> str:
    """A string among params, decoded or not."""
    value = (params or {}).get(key)
    return text_of(value) if isinstance(value, Raw) else str(value or "")


def wanted(greeting: Greeting, uris: set[str]) -> dict[str, Any]:
    """The filter of a subscription to everything that the server says it tells of."""
    found: dict[str, Any] = {
        f"{kind}ListChanged": True
        for kind in ("tools", "prompts", "resources")
        if isinstance(greeting.capabilities.get(kind), dict) and greeting.capabilities[kind].get("listChanged")
    }
    return found | ({"resourceSubscriptions": sorted(uris)} if uris else {})


async def changes(route: McpRoute, lane: Lane, link: Link, filter_: dict[str, Any]) -> AsyncIterator[jsonrpc.Message]:
    """The notifications of one ``subscriptions/listen``, without the server's subscription id."""
    body = jsonrpc.request(
        f"qd-l{next(_ids)}", "subscriptions/listen",
        {"notifications": filter_, "_meta": link.meta or client.modern_meta()},
    )  # fmt: skip
    response = await client.post(route, lane, link, "subscriptions/listen", body)
    try:
        async for message in client.messages(response):
            if not message.method or message.id is not UNSET:
                return
            if message.method == "notifications/subscriptions/acknowledged":
                continue
            yield jsonrpc.Message(method=message.method, params=_untagged(message.params))
    finally:
        response.close()


def _untagged(params: Any) -> Any:
    if not isinstance(params, Raw):
        return params
    fields: dict[str, Any] = dict(lists.members(params))
    meta = fields.get("_meta")
    if isinstance(meta, Raw):
        kept = {k: v for k, v in lists.members(meta).items() if k != protocol.META_SUBSCRIPTION}
        fields.pop("_meta")
        if kept:
            fields["_meta"] = kept
    return Raw(msgspec.json.encode(fields))


def _asked(answer: jsonrpc.Message) -> dict[str, Any] | None:
    """The result when it asks for input; None for any other answer."""
    if not isinstance(answer.result, Raw) or b'"input_required"' not in bytes(answer.result):
        return None
    result = msgspec.json.decode(answer.result, type=dict[str, Any])
    return result if result.get("resultType") == "input_required" else None


def _as_before(answer: jsonrpc.Message) -> jsonrpc.Message:
    """The answer as revisions before 2026-07-28 have it."""
    if not isinstance(answer.result, Raw):
        return answer
    result = {k: v for k, v in lists.members(answer.result).items() if k not in _MODERN_ONLY}
    return jsonrpc.Message(id=answer.id, result=Raw(msgspec.json.encode(result)))
