"""``subscriptions/listen`` of 2026-07-28: what changes at one or several servers, on one stream of the client's.

The client's subscription id takes the place of each server's, URIs are the client's. A server's stream that ends is
opened again for as long as the client listens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from quarterdeck.errors import QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.wire.http import Disconnected

from ..upstream import Upstreams
from . import naming, newer
from .answers import EVENTS, TOOLS_CHANGED, Answers, departure, event, first, soon
from .call import McpCall
from .client import Link
from .conversation import Conversation
from .groups import Member

FLAGS = {
    TOOLS_CHANGED: "toolsListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
    "notifications/resources/list_changed": "resourcesListChanged",
}
_URIS = 1000
_NOTICE_BYTES = 64 * 1024
_RETRY = 1.0

Tell = Callable[[jsonrpc.Message], None]
Source = Link | Conversation
"""A modern server, or a session with an older one."""


class Subscription:
    """One client's subscription while it lasts. It can be ended by the gateway (:meth:`give_up`)."""

    def __init__(self, call: McpCall, upstreams: Upstreams, answers: Answers) -> None:
        self.principal = call.principal
        self.target = ("mcp", call.server)
        self.call = call
        self.group = call.group
        self._upstreams = upstreams
        self._answers = answers
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(256)
        self._identity = Raw(call.raw_id)
        self._over = departure(call.exchange)
        wanted = _object(call.params.get("notifications"))
        self._flags = [flag for flag in FLAGS.values() if wanted.get(flag) is True]
        self._uris = subscribed(call)

    def give_up(self, error: QuarterdeckError) -> None:
        """End the stream; the client asks anew and is told why."""
        del error
        if not self._over.done():
            self._over.set_result(None)

    def changed(self) -> None:
        """The tools of its virtual server are others now."""
        self._notify(TOOLS_CHANGED, {})

    async def serve(self, sources: list[tuple[Member, Source]]) -> None:
        """Until the client leaves. Raises UpstreamError, TimedOut, RpcError before the stream has begun."""
        exchange = self.call.exchange
        wanted: list[tuple[Member, Source, list[str]]] = [(m, s, self._uris_of(m)) for m, s in sources]
        ends: list[Callable[[], None]] = []
        self._upstreams.held.add(self)
        try:
            for member, source, uris in wanted:
                ends.append(await self._begin(member, source, uris))
            exchange.start(200, EVENTS)
            exchange.write(event(self._acknowledgement([u for m, _, uris in wanted for u in map(m.uri_out, uris)])))
            while not self._over.done():
                body = await first(soon(self._queue), self._over)
                if body is not None:
                    await exchange.send(event(body) if body else b": keep-alive\n\n")
            if not exchange.disconnected:
                exchange.finish()
        except Disconnected:
            pass
        finally:
            self._upstreams.held.discard(self)
            for end in ends:
                end()
            if exchange.started:
                self._answers.finish(self.call, "ok", 200)

    def _uris_of(self, member: Member) -> list[str]:
        """The member's resources among those wanted that the caller may subscribe to."""
        found = [(uri, self.call.group.uri_in(uri)) for uri in self._uris]
        call = self.call
        return [
            owner[1]
            for uri, owner in found
            if owner is not None and owner[0] is member and call.judge(member, naming.SUBSCRIBE, owner[1], uri).allow
        ]

    async def _begin(self, member: Member, source: Source, uris: list[str]) -> Callable[[], None]:
        """Listen to one server; returns how to stop."""

        def tell(message: jsonrpc.Message) -> None:
            self._tell(member, uris, message)

        if isinstance(source, Conversation):
            await source.open()
            for uri in uris:
                await source.ask(naming.SUBSCRIBE, {"uri": uri})
            source.attach(tell)
            return lambda: source.detach(tell)
        task = asyncio.get_running_loop().create_task(self._follow(member, source, uris, tell))
        return lambda: _cancel(task)

    async def _follow(self, member: Member, link: Link, uris: list[str], tell: Tell) -> None:
        filter_: dict[str, Any] = dict.fromkeys(self._flags, True) | ({"resourceSubscriptions": uris} if uris else {})
        lane = member.route.lane(self.call.principal)
        while True:
            with contextlib.suppress(UpstreamError, TimedOut, *MALFORMED):
                async for message in newer.changes(member.route, lane, link, filter_):
                    tell(message)
            await asyncio.sleep(_RETRY)

    def _tell(self, member: Member, uris: list[str], message: jsonrpc.Message) -> None:
        raw = message.params if isinstance(message.params, Raw) else None
        if raw is not None and memoryview(raw).nbytes > _NOTICE_BYTES:
            return  # these notices say little; the queue holds many
        try:
            params = _object(raw)
        except MALFORMED:
            return
        flag = FLAGS.get(message.method)
        member.route.changes += 1
        if flag is None:
            if message.method != "notifications/resources/updated" or params.get("uri") not in uris:
                return
            params["uri"] = member.uri_out(str(params["uri"]))
        self._notify(message.method, params)

    def _notify(self, method: str, params: dict[str, Any]) -> None:
        flag = FLAGS.get(method)
        if flag is not None and flag not in self._flags:
            return
        meta = params.get("_meta")
        params["_meta"] = {**(meta if isinstance(meta, dict) else {}), protocol.META_SUBSCRIPTION: self._identity}
        with contextlib.suppress(asyncio.QueueFull):  # a client that does not read loses notices, as told
            self._queue.put_nowait(jsonrpc.notification(method, params))

    def _acknowledgement(self, uris: list[str]) -> bytes:
        honored: dict[str, Any] = dict.fromkeys(self._flags, True)
        return jsonrpc.notification(
            "notifications/subscriptions/acknowledged",
            {
                "notifications": honored | ({"resourceSubscriptions": uris} if uris else {}),
                "_meta": {protocol.META_SUBSCRIPTION: self._identity},
            },
        )


def subscribed(call: McpCall) -> list[str]:
    """The resources of whose updates ``subscriptions/listen`` wants to hear. Raises msgspec.DecodeError."""
    named = _object(call.params.get("notifications")).get("resourceSubscriptions")
    return [uri for uri in named if isinstance(uri, str)][:_URIS] if isinstance(named, list) else []


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _object(raw: Raw | None) -> dict[str, Any]:
    """A JSON object, decoded; empty where there is none. Raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(raw, type=dict[str, Any] | None) or {} if raw is not None else {}
