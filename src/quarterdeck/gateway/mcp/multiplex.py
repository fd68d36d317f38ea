"""Several servers behind one endpoint, for clients with sessions (until 2025-11-25).

``initialize`` opens a session with every server the caller may use; the token carries them. A call goes to the server
that its name tells, on the path of calls to single servers. What a server needs from the client in the middle of a call
comes on the call's stream, all else on the session's GET stream (:mod:`.merged`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from os import urandom
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import LATEST_LEGACY, LEGACY_VERSIONS, jsonrpc, lists, protocol

from ..observe import Observer
from ..upstream import Upstreams
from . import ids, merge, naming, sessions
from .answers import Answers
from .call import SSE_VERSION, McpCall, Problem, text_of
from .client import INFO, RpcError
from .eras import Eras
from .groups import Member
from .legs import Elsewhere, Legs, slot
from .listing import Listed
from .merge import Part
from .merged import MergedStream
from .muxrelay import MuxRelay
from .peers import Peers
from .search import ListOne, Search
from .session import Session, SessionSealer
from .sessions import ClientSession, ClientSessions, Greeted
from .talk import Talk

_TOKEN_LEGS = 2_500
"""Bytes of upstream sessions in a token; with more of them, all requests go to the owner."""
_VERSIONS = frozenset({SSE_VERSION, *LEGACY_VERSIONS})

Later = Coroutine[Any, Any, None]


class Multiplexer:
    """Serves sessions of groups with several servers, and of servers that need the gateway to translate.

    ``run`` takes a call whose server is known through the stages of single servers.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        observer: Observer,
        sealer: SessionSealer,
        eras: Eras,
        peers: Peers,
        run: Callable[[McpCall], Later | None],
    ) -> None:
        self._upstreams = upstreams
        self._observer = observer
        self._sealer = sealer
        self._peers = peers
        self._run = run
        self._answers = Answers(observer)
        self._sessions = ClientSessions()
        self._legs = Legs(eras)
        self._talk = Talk(self._answers, upstreams)
        self._search = Search()
        self._listed = Listed()
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, call: McpCall) -> Later | None:
        """Answer one request of a client with a session."""
        method = call.method
        if method == protocol.INITIALIZE and call.raw_id:
            return self._initialize(call)
        if not call.group.stateful:
            return self._without_session(call)
        client = self._open(call)
        if client is None:
            return call.later
        return self._serve(call, client)

    def _serve(self, call: McpCall, client: ClientSession) -> Later | None:
        call.client = client
        method = call.method
        if method == "GET":
            return self._stream(call, client)
        if method == "DELETE":
            return self._end(call, client)
        if not method:
            return self._answered(call, client)
        try:
            if not call.raw_id:
                return self._notified(call, client)
            if naming.routed(method):
                return self._by_name(call, client)
        except msgspec.DecodeError as error:
            self._answers.invalid(call, Problem(f"invalid params: {error}", protocol.INVALID_PARAMS))
            return None
        key = lists.LIST_KEYS.get(method) or ("tasks" if method == "tasks/list" else "")
        if key:
            return self._list(call, client, key)
        if method == protocol.PING:
            self._answers.result(call, {})
        elif method == protocol.SET_LEVEL:
            return self._to_all(call, client)
        elif call.group.single is not None:
            return self._send(call, client, call.group.single, "", call.params)
        else:
            text = f"no server answers {method[:128]} on the aggregated endpoint"
            call.method = "other"  # the caller's text must not become a metric label
            self._answers.error(call, protocol.METHOD_NOT_FOUND, text)
        return None

    # -- sessions
    def _open(self, call: McpCall) -> ClientSession | None:
        """The client's session; None when it was refused, or is served elsewhere (``call.later``)."""
        token = call.headers.get(protocol.H_SESSION)
        if token is None:
            text = "header Mcp-Session-Id is missing; initialize first"
            self._answers.invalid(call, Problem(text))
            return None
        session = call.session or self._sealer.open(token, call.group.binding(call.principal))
        call.session = None
        mine = session is not None and session.owner == self._peers.owner
        client = self._sessions.get(session, mine=mine) if session is not None and session.owner else None
        if session is None or client is None:
            self._answers.invalid(call, Problem("unknown session; initialize again", status=404))
            return None
        if not mine and not self._served_here(call, client):
            call.later = self._peers.pass_on(call, session.owner)
            return None
        return client

    def _served_here(self, call: McpCall, client: ClientSession) -> bool:
        """Whether a session of another process can be served by this one: it needs nothing but upstream sessions."""
        method = call.method
        if method in ("GET", "DELETE"):
            last = call.headers.get(protocol.H_LAST_EVENT, b"") if method == "GET" else b""
            member, _ = ids.event_in(last)
            return member in client.links
        if not method:
            member, _ = ids.request_in(call.message.id if call.message is not None else UNSET)
            return member in client.links
        if method == protocol.PING:
            return False  # nobody else knows whether the session is there still
        if call.raw_id and naming.routed(method) and (call.group.prefixed or call.group.single is not None):
            return True  # if the server's session is there, which is looked at when its name is known
        return all(member.name in client.links for member in self._allowed(call))

    def _without_session(self, call: McpCall) -> Later | None:
        """``statefulMode: stateless``: a session for this one request."""
        if call.exchange.method != "POST":
            self._answers.invalid(call, Problem("sessions are off here", status=405, headers=((b"allow", b"POST"),)))
            return None
        if not call.raw_id:
            self._answers.accepted(call)
            return None
        client = ClientSession(urandom(8).hex(), mine=True)
        rest = self._serve(call, client)
        lane_of = lambda member: member.route.lane(call.principal)  # noqa: E731
        call.exchange.on_end(lambda: self._spawn(sessions.end(call.group, client, lane_of)))
        return rest

    async def _initialize(self, call: McpCall) -> None:
        try:
            params = call.params
            capabilities = _object(params.get("capabilities"))
            info = _object(params.get("clientInfo"))
        except msgspec.DecodeError as error:
            self._answers.invalid(call, Problem(f"invalid params: {error}", protocol.INVALID_PARAMS))
            return
        requested = text_of(params.get("protocolVersion"))
        version = requested if requested in _VERSIONS else LATEST_LEGACY
        client = ClientSession(urandom(16).hex(), mine=True, said=Greeted(version, capabilities, info or dict(INFO)))
        parts = await asyncio.gather(*(self._greet(call, client, member) for member in self._allowed(call)))
        problem = "" if call.group.fail_open else merge.failure(parts, fail_open=False)
        if problem:
            self._spawn(sessions.end(call.group, client, lambda member: member.route.lane(call.principal)))
            self._answers.error(call, protocol.UPSTREAM_FAILED, problem)
            return
        result = merge.initialized(requested, parts, alone=call.group.single is not None)
        if call.group.view is not None:
            result = call.group.view.introduced(result)
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if call.group.stateful:
            self._sessions.add(client)
            headers = ((protocol.H_SESSION, self._token(call, client)),)
        else:
            self._spawn(sessions.end(call.group, client, lambda member: member.route.lane(call.principal)))
        self._answers.result(call, result, headers)

    def _token(self, call: McpCall, client: ClientSession) -> bytes:
        legs = client.legs()
        if sum(len(leg.session) + len(leg.member) + len(leg.host) + 24 for leg in legs) > _TOKEN_LEGS:
            legs = ()
        session = Session(client.key, owner=self._peers.owner, legs=legs)
        return self._sealer.seal(session, call.group.binding(call.principal), call.group.lot)

    async def _greet(self, call: McpCall, client: ClientSession, member: Member) -> Part:
        label = member.route.label
        if not member.route.reachable:
            asleep = member.route.server.wake > 0
            return Part(member.name, label, error="" if asleep else "has no ready endpoint")
        try:
            greeting = await self._legs.open(call, client, member)
        except (UpstreamError, TimedOut) as error:
            return Part(member.name, label, error=str(error))
        except MALFORMED as error:
            return Part(member.name, label, error=f"sent what MCP does not know: {error}")
        return Part(member.name, label, greeting=greeting)

    def newer(self, call: McpCall, otherwise: Callable[[], None]) -> None:
        """A server refused ``initialize``: it may speak 2026-07-28 only. ``otherwise`` passes its refusal on."""

        async def find_out() -> None:
            if await self._legs.refuses_older(call.member, call.lane, call.added(call.member)):
                await self._initialize(call)
            else:
                otherwise()

        self._spawn(find_out())

    async def _end(self, call: McpCall, client: ClientSession) -> None:
        self._sessions.remove(client)
        self._spawn(sessions.end(call.group, client, lambda member: member.route.lane(call.principal)))
        self._answers.accepted(call, 204)

    def _allowed(self, call: McpCall) -> list[Member]:
        """The members that the caller may use, in their order."""
        return [member for member in call.group.members if call.judge(member, protocol.TOOLS_LIST).allow]

    # -- requests by name
    def _by_name(self, call: McpCall, client: ClientSession) -> Later | None:
        found = naming.find(call.group, call.method, call.params)
        if isinstance(found, str):
            if not call.group.searched or not found:
                self._answers.unknown(call, found)
                return None
            return self._look_for(call, client)
        return self._found(call, client, found)

    def _found(self, call: McpCall, client: ClientSession, found: naming.Found) -> Later | None:
        member, exposed, own, params = found
        call.transform = naming.result_out(member, call.method, exposed, own)
        return self._send(call, client, member, exposed, params, own)

    async def _look_for(self, call: McpCall, client: ClientSession) -> None:
        """Names without prefixes: who has it is found in the lists."""
        try:
            found = await self._search.owner(call, call.params, self._allowed(call), self._lists(call, client))
        except Elsewhere:
            await self._pass_on(call)
            return
        if isinstance(found, str):
            self._answers.unknown(call, found)
            return
        rest = self._found(call, client, found)
        if rest is not None:
            await rest

    def _send(
        self, call: McpCall, client: ClientSession, member: Member, exposed: str, params: dict[str, Any], own: str = ""
    ) -> Later | None:
        """Take the call through the stages, towards the member's own session."""
        call.choose(member)
        call.exposed, call.own = exposed, own
        if call.method in (protocol.TOOLS_CALL, protocol.PROMPTS_GET):
            call.tool = own
        # ids and progress tokens stay the client's: the upstream's session is this client's alone
        call.body = jsonrpc.request(Raw(call.raw_id), call.method, params)
        call.session = client.sessions.get(member.name)
        if call.session is None and not client.mine:
            return self._peers.pass_on(call, client.owner)
        if call.session is not None:
            client.runs(call.raw_id, member)
            call.version = client.links[member.name].version.encode()
        return self._run(call)

    def connect(self, call: McpCall, go_on: Callable[[McpCall], Later | None]) -> Later:
        """Open the upstream's session of a call that has been allowed, then ``go_on``; or speak for the client."""
        return self._connect(call, go_on)

    async def _connect(self, call: McpCall, go_on: Callable[[McpCall], Later | None]) -> None:
        client, member = call.client, call.member
        assert client is not None
        try:
            conversation = await self._legs.ready(call, client, member)
        except Elsewhere:
            await self._pass_on(call)
            return
        except (UpstreamError, TimedOut) as error:
            self._answers.failed(call, error)
            return
        except MALFORMED as error:
            self._answers.failed(call, UpstreamError(f"sent what MCP does not know: {error}"))
            return
        if conversation is not None:
            await self._talk.follow(call, client, conversation, _params(call))
            return
        call.session = client.sessions[member.name]
        call.version = client.links[member.name].version.encode()
        client.runs(call.raw_id, member)
        rest = go_on(call)
        if rest is not None:
            await rest

    async def _pass_on(self, call: McpCall) -> None:
        token = call.headers.get(protocol.H_SESSION, b"")
        session = self._sealer.open(token, call.group.binding(call.principal))
        assert session is not None
        await self._peers.pass_on(call, session.owner)

    def relay(self, call: McpCall, go_on: Callable[[McpCall], Later | None]) -> MuxRelay:
        """The relay of a call in an upstream session: what the server asks gets ids that lead back to it."""
        client, member = call.client, call.member
        assert client is not None

        def again() -> None:
            link = client.links.get(member.name)
            if link is not None:
                client.drop(member.name, link)
            call.session = call.origin = None
            self._spawn(self._connect(call, go_on))

        relay = MuxRelay(
            self._upstreams,
            call.exchange,
            call,
            self._observer,
            timeout=0.0 if call.method == "GET" else call.route.server.timeout,
            transform=call.transform,
        )
        relay.again = again if call.method != "GET" else None
        return relay

    # -- lists and requests to all
    async def _list(self, call: McpCall, client: ClientSession, key: str) -> None:
        members = [member for member in self._allowed(call) if call.judge(member, call.method).allow]
        try:
            result = await self._listed.together(call, self._answers, key, members, self._lists(call, client))
        except Elsewhere:
            await self._pass_on(call)
            return
        if result is not None:
            self._answers.result(call, result)

    def _lists(self, call: McpCall, client: ClientSession) -> ListOne:
        """How one member is asked for a list."""
        return lambda member, method, key: self._listed.part(
            call, member, method, key, partial(self._legs.ask, call, client, member)
        )

    async def _to_all(self, call: McpCall, client: ClientSession) -> None:
        """``logging/setLevel``: every server that can log; one that fails does not fail the others."""
        params: dict[str, Any] = dict(call.params)
        client.level = text_of(call.params.get("level"))

        async def one(member: Member) -> str:
            try:
                await self._legs.ask(call, client, member, call.method, params)
            except RpcError as error:
                return "" if error.code == protocol.METHOD_NOT_FOUND else str(error)
            except (UpstreamError, TimedOut) as error:
                return str(error)
            return ""

        members = self._allowed(call)
        try:
            problems = await asyncio.gather(*(one(member) for member in members))
        except Elsewhere:
            await self._pass_on(call)
            return
        if members and all(problems):
            self._answers.error(call, protocol.UPSTREAM_FAILED, "; ".join(problems))
        else:
            self._answers.result(call, {})

    # -- what the client tells
    async def _notified(self, call: McpCall, client: ClientSession) -> None:
        method, body = call.method, call.body
        params = call.params
        self._answers.accepted(call)
        if method == protocol.CANCELLED:
            raw_id = bytes(params.get("requestId", Raw(b"")))
            member, flight = client.running.pop(raw_id, (None, None))
            conversation = client.conversations.get(slot(member, call)) if member is not None else None
            if flight is not None and conversation is not None:
                await conversation.cancel(flight, text_of(params.get("reason")))
                client.forget(flight)
                return
            await self._tell(call, client, body, method, [member] if member is not None else self._allowed(call))
        elif method == "notifications/progress":
            name, token = ids.request_in(params.get("progressToken", UNSET))
            member = call.group.by_name.get(name)
            if member is not None:
                changed = jsonrpc.notification(method, {**params, "progressToken": token})
                await self._tell(call, client, changed, method, [member])
        elif method != protocol.INITIALIZED:  # servers were told of that when their sessions were opened
            await self._tell(call, client, body, method, self._allowed(call))

    async def _tell(
        self, call: McpCall, client: ClientSession, body: bytes, method: str, members: list[Member]
    ) -> None:
        for member in members:
            if member.name in client.links:
                try:
                    await self._legs.notify(call, client, member, body, method)
                except (UpstreamError, TimedOut):
                    continue  # the next call opens a new session, or says what is wrong

    async def _answered(self, call: McpCall, client: ClientSession) -> None:
        """The client's answer to a server's question goes back to who asked."""
        message = call.message
        assert message is not None
        name, original = ids.request_in(message.id)
        member = call.group.by_name.get(name)
        if member is not None:
            body = msgspec.json.encode(jsonrpc.response(original, message.result, message.error))
            self._answers.accepted(call)
            await self._tell(call, client, body, "response", [member])
            return
        asked = client.asked.pop(ids.own_in(message.id), None)
        if asked is None:
            call.exchange.respond(400)
            self._answers.finish(call, "error", 400, "an answer to no question")
            return
        self._answers.accepted(call)
        try:
            if isinstance(message.result, Raw):
                await asked.conversation.answer(asked.flight, {asked.key: message.result})
            else:
                question = asked.flight.asked.pop(asked.key, None)
                if question is not None:
                    text = ids.error_text(message.error)
                    await asked.conversation.refuse(question, text)
        except (UpstreamError, TimedOut):
            return  # the call that asked ends with that error

    # -- the GET stream
    def _stream(self, call: McpCall, client: ClientSession) -> Later | None:
        last = call.headers.get(protocol.H_LAST_EVENT, b"")
        name, own = ids.event_in(last)
        member = call.group.by_name.get(name)
        if member is not None:  # a call's stream is taken up again at the server that keeps it
            call.headers = {**call.headers, protocol.H_LAST_EVENT: own}  # others may share the one that came
            call.choose(member)
            call.session = client.sessions.get(name)
            if call.session is None:
                self._answers.invalid(call, Problem("this stream cannot be resumed", status=404))
                return None
            call.version = client.links[name].version.encode()
            return self._run(call)
        if client.stream is None:
            client.stream = MergedStream(client, self._allowed(call), call, self._upstreams)
        return client.stream.serve(call, own, self._answers)

    def _spawn(self, coroutine: Later) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _object(raw: Raw | None) -> dict[str, Any]:
    return msgspec.json.decode(raw, type=dict[str, Any]) if raw is not None else {}


def _params(call: McpCall) -> dict[str, Any]:
    """The params of the body that was made for the member."""
    message = jsonrpc.read(call.body)
    return dict(lists.members(message.params)) if message is not None and isinstance(message.params, Raw) else {}
