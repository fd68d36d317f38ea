"""Several servers behind one endpoint, for clients of 2026-07-28: each request stands alone.

A request that names a thing goes to its server on the path of single servers; discovery, lists and subscriptions go to
all that the caller may use. Servers of the older era are asked in the caller's shared session with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import MODERN_VERSIONS, jsonrpc, lists, modern, protocol

from ..upstream import Upstreams
from . import client, merge, naming
from .answers import Answers
from .call import McpCall, Problem, Transform, text_of
from .client import Link
from .conversation import Conversation
from .eras import Eras
from .groups import Member
from .listing import Listed
from .merge import Part
from .newer import greeting_of
from .older import state_of as held_state_of
from .search import ListOne, Search
from .session import SessionSealer
from .shared import Conversations, Refused
from .subscriptions import Source, Subscription

Later = Coroutine[Any, Any, None]


class StatelessMultiplexer:
    """``run`` takes a call whose server is known through the stages of single servers."""

    def __init__(
        self,
        upstreams: Upstreams,
        answers: Answers,
        eras: Eras,
        shared: Conversations,
        sealer: SessionSealer,
        run: Callable[[McpCall], Later | None],
    ) -> None:
        self._upstreams = upstreams
        self._answers = answers
        self._eras = eras
        self._shared = shared
        self._run = run
        self._sealer = sealer
        self._search = Search()
        self._listed = Listed()

    def handle(self, call: McpCall) -> Later | None:
        """Answer one request."""
        if not call.raw_id:
            self._answers.accepted(call)
            return None
        message = call.message
        assert message is not None
        try:
            envelope = modern.envelope(message)
            params = call.params
        except MALFORMED as error:
            text = f"the request is not one of {MODERN_VERSIONS[-1]}: {error}"
            self._answers.error(call, protocol.INVALID_PARAMS, text)
            return None
        if envelope.version.encode() != call.version:
            self._answers.error(call, protocol.HEADER_MISMATCH, "header MCP-Protocol-Version does not match the body")
            return None
        method = call.method
        if method == protocol.DISCOVER:
            return self._discover(call, envelope)
        if method == "subscriptions/listen":
            return self._listen(call, envelope)
        if method in lists.LIST_KEYS:
            return self._list(call, envelope, lists.LIST_KEYS[method])
        if naming.routed(method) and method not in modern.REMOVED:
            return self._by_name(call, envelope, params)
        call.method = "other"  # the caller's text must not become a metric label
        self._answers.error(call, protocol.METHOD_NOT_FOUND, f"no server answers {method[:128]} here")
        return None

    # -- one server
    def _by_name(self, call: McpCall, envelope: modern.Envelope, params: dict[str, Raw]) -> Later | None:
        try:
            found = naming.find(call.group, call.method, params)
        except msgspec.DecodeError as error:
            self._answers.invalid(call, Problem(f"invalid params: {error}", protocol.INVALID_PARAMS))
            return None
        if isinstance(found, str):
            if not call.group.searched or not found:
                self._answers.unknown(call, found)
                return None
            return self._look_for(call, envelope, params)
        return self._send(call, found)

    async def _look_for(self, call: McpCall, envelope: modern.Envelope, params: dict[str, Raw]) -> None:
        """Names without prefixes: who has it is found in the lists."""
        members = self._allowed(call, call.method)
        found = await self._search.owner(call, params, members, self._lists(call, envelope))
        if isinstance(found, str):
            self._answers.unknown(call, found)
            return
        rest = self._send(call, found)
        if rest is not None:
            await rest

    def _send(self, call: McpCall, found: naming.Found) -> Later | None:
        member, exposed, own, params = found
        call.choose(member)
        call.exposed, call.own = exposed, own
        if call.method in (protocol.TOOLS_CALL, protocol.PROMPTS_GET):
            call.tool = own
        call.transform = self._sealed(call, naming.result_out(member, call.method, exposed, own))
        state = params.get("requestState")
        if state is not None:
            given = text_of(state).encode()
            opened = self._sealer.open_bytes(given, _state_of(call))
            if opened is not None:
                params["requestState"] = opened.decode()
            elif self._sealer.open(given, held_state_of(call)) is None:  # of a call to an older server, held here
                text = "requestState is not one that this request was given"
                self._answers.error(call, protocol.INVALID_PARAMS, text)
                return None
        # the request's id is the client's: a modern server sees nothing of other requests
        encoded = Raw(msgspec.json.encode(params))
        call.message = jsonrpc.Message("2.0", Raw(call.raw_id), call.method, encoded)
        call.body = jsonrpc.request(Raw(call.raw_id), call.method, encoded)
        return self._run(call)

    def _sealed(self, call: McpCall, rename: Transform | None) -> Transform:
        """A server's ``requestState`` comes back to that server from that caller only."""
        binding = _state_of(call)

        def change(body: bytes) -> bytes:
            if b'"requestState"' in body:
                top = lists.members(body)
                result: dict[str, Any] = dict(lists.members(top.get("result", Raw(b"{}"))))
                if "requestState" in result:
                    state = text_of(result["requestState"]).encode()
                    result["requestState"] = self._sealer.seal_bytes(state, binding).decode()
                    body = msgspec.json.encode({**top, "result": result})
            return rename(body) if rename is not None else body

        return change

    # -- all servers
    async def _discover(self, call: McpCall, envelope: modern.Envelope) -> None:
        members = self._allowed(call, protocol.DISCOVER)
        parts = await asyncio.gather(*(self._greet(call, envelope, member) for member in members))
        problem = "" if call.group.fail_open else merge.failure(parts, fail_open=False)
        if problem:
            self._answers.error(call, protocol.UPSTREAM_FAILED, problem)
        else:
            result = merge.discovered(parts, alone=call.group.single is not None)
            self._answers.result(call, call.group.view.introduced(result) if call.group.view is not None else result)

    async def _greet(self, call: McpCall, envelope: modern.Envelope, member: Member) -> Part:
        label = member.route.label
        if not member.route.reachable:
            asleep = member.route.server.wake > 0
            return Part(member.name, label, error="" if asleep else "has no ready endpoint")
        try:
            source = await self._source(call, envelope, member)
            if isinstance(source, Conversation):
                await source.open()
                greeting = source.greeting
            else:
                lane = member.route.lane(call.principal)
                greeting = greeting_of(await client.ask(member.route, lane, source, protocol.DISCOVER))
        except (UpstreamError, TimedOut, Refused) as error:
            return Part(member.name, label, error=str(error))
        except MALFORMED as error:
            return Part(member.name, label, error=f"sent what MCP does not know: {error}")
        return Part(member.name, label, greeting=greeting)

    async def _list(self, call: McpCall, envelope: modern.Envelope, key: str) -> None:
        members = self._allowed(call, call.method)
        result = await self._listed.together(call, self._answers, key, members, self._lists(call, envelope))
        if result is not None:
            # a list of several servers, filtered for one caller, is that caller's only
            meta = {protocol.META_SERVER_INFO: merge.INFO, **result.pop("_meta", {})}
            private = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "_meta": meta}
            self._answers.result(call, {**result, **private})

    def _lists(self, call: McpCall, envelope: modern.Envelope) -> ListOne:
        """How one member is asked for a list."""

        async def ask(member: Member, method: str, params: dict[str, Any] | None) -> Raw:
            source = await self._source(call, envelope, member)
            if isinstance(source, Conversation):
                return await source.ask(method, params)
            return await client.ask(member.route, member.route.lane(call.principal), source, method, params)

        return lambda member, method, key: self._listed.part(call, member, method, key, partial(ask, member))

    async def _listen(self, call: McpCall, envelope: modern.Envelope) -> None:
        members = [m for m in self._allowed(call, "subscriptions/listen") if m.route.reachable]
        try:
            subscription = Subscription(call, self._upstreams, self._answers)
        except MALFORMED as error:
            self._answers.error(call, protocol.INVALID_PARAMS, f"invalid params: {error}")
            return
        sources: list[tuple[Member, Source]] = []
        for member in members:
            try:
                source = await self._source(call, envelope, member)
                if isinstance(source, Conversation):
                    await source.open()
                sources.append((member, source))
            except (UpstreamError, TimedOut, Refused, *MALFORMED) as error:
                if not call.group.fail_open:
                    text = f"MCP server {member.route.label} failed: {error}; {member.route.remedy}"
                    self._answers.error(call, protocol.UPSTREAM_FAILED, text)
                    return
        try:
            await subscription.serve(sources)
        except (UpstreamError, TimedOut) as error:
            self._answers.error(call, protocol.UPSTREAM_FAILED, str(error))

    async def _source(self, call: McpCall, envelope: modern.Envelope, member: Member) -> Source:
        """How a member is asked. Raises UpstreamError, TimedOut, Refused."""
        route = member.route
        extra = call.added(member)
        if route.plain and await self._eras.speaks_modern(route, route.lane(call.principal), extra):
            meta = client.modern_meta(envelope.capabilities, envelope.client or None, envelope.log_level)
            return Link(client.origin_of(route), MODERN_VERSIONS[-1], meta=meta, extra=extra)
        return self._shared.of(route, call.principal, envelope, extra)

    def _allowed(self, call: McpCall, method: str) -> list[Member]:
        """The members that the caller may use, in their order."""
        return [member for member in call.group.members if call.judge(member, method).allow]


def _state_of(call: McpCall) -> bytes:
    """What a modern server's ``requestState`` is bound to."""
    return call.group.binding(call.principal) + b"|modern|" + call.member.name.encode()
