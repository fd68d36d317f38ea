"""The upstream sessions behind a client's session: opened when needed, each in its server's transport and era."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcptypes import LATEST_LEGACY

from . import client
from .call import SSE_VERSION, McpCall
from .client import Link, NoAnswer, RpcError, SessionExpired
from .conversation import Conversation, Greeting
from .eras import Eras
from .groups import Member
from .httpsse import SseConversation
from .newer import NewerConversation
from .rest import RestConversation
from .route import Lane, McpRoute
from .sessions import ClientSession

_GREETING_BYTES = 256 * 1024
"""Largest result of ``initialize`` that is looked at."""


class Elsewhere(Exception):
    """Only the process that made the client's session can open another upstream session for it."""


class Legs:
    """Opens and uses upstream sessions on behalf of clients' sessions."""

    def __init__(self, eras: Eras) -> None:
        self._eras = eras

    async def open(self, call: McpCall, session: ClientSession, member: Member) -> Greeting:
        """A new session with the member. Raises UpstreamError, TimedOut, msgspec.DecodeError."""
        route, lane = member.route, member.route.lane(call.principal)
        said = session.said
        extra = call.added(member)
        kind = self._kind(route)
        if kind is None:
            try:
                version = said.version if said.version != SSE_VERSION else LATEST_LEGACY
                link, result = await client.initialize(
                    route, lane, said.capabilities, info=said.info or None, version=version, extra=extra
                )
                if memoryview(result).nbytes > _GREETING_BYTES:
                    raise UpstreamError(f"says more than {_GREETING_BYTES} bytes of itself")
                greeting = msgspec.json.decode(result, type=Greeting)
                session.put(member.name, link)
                return greeting
            except (RpcError, NoAnswer) as error:
                if isinstance(error, NoAnswer) and error.status >= 500:
                    raise
                if not await self.refuses_older(member, lane, extra):
                    raise
                kind = NewerConversation
        conversation = kind(route, lane, said.capabilities, info=said.info or None, version=said.version)
        conversation.extra = extra
        conversation.level = session.level
        await conversation.open()
        session.conversations[slot(member, call)] = conversation
        return conversation.greeting

    async def refuses_older(self, member: Member, lane: Lane, extra: bytes) -> bool:
        """Whether a server that has refused ``initialize`` speaks 2026-07-28."""
        try:
            modern = await self._eras.speaks_modern(member.route, lane, extra)
        except (UpstreamError, TimedOut):
            return False
        if modern:
            self._eras.refused_older(member.route)
        return modern

    async def ready(self, call: McpCall, session: ClientSession, member: Member) -> Conversation | None:
        """The member's conversation, or None when its session is among the links. Raises as :meth:`open`, Elsewhere."""
        link = self._link(session, member)
        if link is not None:
            link.extra = call.added(member)
            return None
        found = session.conversations.get(slot(member, call))
        if found is not None:
            found.renew(member.route, member.route.lane(call.principal), call.added(member))
            return found
        if not session.mine:
            raise Elsewhere
        async with session.lock(member):
            if self._link(session, member) is None and slot(member, call) not in session.conversations:
                await self.open(call, session, member)
        return session.conversations.get(slot(member, call))

    async def ask(
        self, call: McpCall, session: ClientSession, member: Member, method: str, params: dict[str, Any] | None
    ) -> Raw:
        """A request of our own; a session that has expired is opened anew, alone and once. Raises as :meth:`ready`."""
        conversation = await self.ready(call, session, member)
        if conversation is not None:
            return await conversation.ask(method, params)
        lane = member.route.lane(call.principal)
        link = self._known(session, member)
        try:
            return await client.ask(member.route, lane, link, method, params)
        except SessionExpired:
            session.drop(member.name, link)
        conversation = await self.ready(call, session, member)
        if conversation is not None:
            return await conversation.ask(method, params)
        return await client.ask(member.route, lane, self._known(session, member), method, params)

    async def notify(self, call: McpCall, session: ClientSession, member: Member, body: bytes, method: str) -> None:
        """Tell a server with a session among the links. Raises UpstreamError, TimedOut."""
        link = self._link(session, member)
        if link is not None:
            await client.notify(member.route, member.route.lane(call.principal), link, body, method)

    def _kind(self, route: McpRoute) -> Callable[..., Conversation] | None:
        """How the server is spoken to; None: sessions over Streamable HTTP."""
        return translated(route) or (NewerConversation if self._eras.newer(route) else None)

    def _link(self, session: ClientSession, member: Member) -> Link | None:
        """The member's session at an address that is still the server's."""
        link = session.links.get(member.name)
        if link is None:
            return None
        origin = member.route.origin(link.origin[0], link.origin[1])
        if origin is None:
            session.drop(member.name, link)
            return None
        link.origin = origin
        return link

    def _known(self, session: ClientSession, member: Member) -> Link:
        link = self._link(session, member)
        if link is None:
            raise UpstreamError("has no ready endpoint")
        return link


def slot(member: Member, call: McpCall) -> str:
    """Where a session keeps a conversation: an agent's session has one for each user it acts for."""
    user = call.principal.on_behalf_of
    return f"{member.name} for {user}" if user else member.name


def translated(route: McpRoute) -> Callable[..., Conversation] | None:
    """How a server is spoken to that speaks no Streamable HTTP, or to signed-in users; None for any other."""
    kind: type[Conversation] | None = SseConversation if route.server.protocol == "SSE" else None
    if route.server.openapi is not None:
        kind = RestConversation
    if route.server.sign_in is None:
        return kind
    from ..oauth.conversation import UserConversation

    if route.door is None:
        raise UpstreamError("wants its users to sign in, for which this gateway is not set up")
    return partial(UserConversation, route.door, kind)
