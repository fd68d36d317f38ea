"""A client's session with several servers: which upstream sessions are behind it, and what waits for the client.

The session token carries the upstream sessions of servers that any process may speak to on the client's behalf. All
else (servers of another transport or era, the merged stream and its buffer, questions that wait for an answer) lives in
the process that made the session, its owner.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcptypes import LATEST_LEGACY

from . import client
from .client import Link
from .conversation import Conversation, Flight
from .groups import McpGroup, Member
from .route import Lane
from .session import Leg, Session

if TYPE_CHECKING:
    from .merged import MergedStream

_KEPT = 20_000
_IDLE = 1800.0
"""Sessions of one process; seconds without a request after which what a session holds open is given up."""
_RUNNING = 1024
_ASKED = 256
"""Requests of one session remembered for their cancellation, and questions that wait for its client."""


class Greeted(Struct):
    """What a client said of itself when it initialised."""

    version: str = LATEST_LEGACY
    capabilities: dict[str, Any] = {}
    info: dict[str, Any] = {}


class Asked(Struct):
    """A question that the client was sent and has not answered."""

    conversation: Conversation
    flight: Flight
    key: str


class ClientSession:
    """One client's session. ``mine``: this process made it."""

    def __init__(self, key: str, *, mine: bool, said: Greeted | None = None) -> None:
        self.key = key
        self.mine = mine
        self.owner = ""
        """The process that made it, when that is another."""
        self.said = said or Greeted()
        self.links: dict[str, Link] = {}
        """Upstream sessions by member."""
        self.sessions: dict[str, Session] = {}
        """The same as what a request needs of them."""
        self.conversations: dict[str, Conversation] = {}
        """Upstream sessions that only this process can use."""
        self.running: OrderedDict[bytes, tuple[Member, Flight | None]] = OrderedDict()
        """By the client's request id: who works on it, to cancel it there."""
        self.asked: OrderedDict[str, Asked] = OrderedDict()
        self.stream: MergedStream | None = None
        self.level = ""
        self.used = monotonic()
        self._locks: dict[str, asyncio.Lock] = {}
        self._numbers = count(1)

    @classmethod
    def out_of(cls, session: Session) -> ClientSession:
        """The session of another process, as far as its token tells."""
        found = cls(session.upstream, mine=False)
        found.owner = session.owner
        for leg in session.legs:
            found.put(leg.member, Link((leg.host, leg.port, False), leg.version, leg.session))
        return found

    def lock(self, member: Member) -> asyncio.Lock:
        """Held while the member's session is being opened."""
        return self._locks.setdefault(member.name, asyncio.Lock())

    def put(self, member: str, link: Link) -> None:
        """Use this upstream session for the member from now on."""
        self.links[member] = link
        self.sessions[member] = Session(link.session, link.origin[0], link.origin[1])

    def drop(self, member: str, link: Link) -> None:
        """The upstream does not know this session any more."""
        if self.links.get(member) is link:
            del self.links[member]
            del self.sessions[member]

    def legs(self) -> tuple[Leg, ...]:
        """What the token carries."""
        return tuple(
            Leg(member, link.origin[0], link.origin[1], link.session, link.version)
            for member, link in sorted(self.links.items())
        )

    def runs(self, raw_id: bytes, member: Member, flight: Flight | None = None) -> None:
        self.running[raw_id] = (member, flight)
        if len(self.running) > _RUNNING:
            self.running.popitem(last=False)

    def ask(self, asked: Asked) -> str:
        """An id for a question to the client; the oldest one is forgotten when too many wait."""
        ident = f"qd!{next(self._numbers)}"
        self.asked[ident] = asked
        if len(self.asked) > _ASKED:
            self.asked.popitem(last=False)
        return ident

    def forget(self, flight: Flight) -> None:
        """Nobody waits for answers to what this call asked."""
        for ident in [ident for ident, asked in self.asked.items() if asked.flight is flight]:
            del self.asked[ident]

    @property
    def busy(self) -> bool:
        return self.stream is not None or any(conversation.busy for conversation in self.conversations.values())


class ClientSessions:
    """The sessions known to this process, the latest ones."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, ClientSession] = OrderedDict()
        self._swept = monotonic()

    def add(self, session: ClientSession) -> None:
        self._sessions[session.key] = session
        self._sweep(session.used)

    def get(self, session: Session, *, mine: bool) -> ClientSession | None:
        """The session behind a token; None when it was of this process and is gone."""
        found = self._sessions.get(session.upstream)
        if found is None:
            if mine:
                return None
            found = ClientSession.out_of(session)
            self.add(found)
        self._sessions.move_to_end(found.key)
        found.used = monotonic()
        return found

    def remove(self, session: ClientSession) -> None:
        self._sessions.pop(session.key, None)

    def _sweep(self, now: float) -> None:
        """Give up what nobody has used for long, and the oldest beyond the bound."""
        while len(self._sessions) > _KEPT:
            _, oldest = self._sessions.popitem(last=False)
            let_go(oldest)
        if now - self._swept < 60.0:
            return
        self._swept = now
        for key, session in list(self._sessions.items()):
            if now - session.used < _IDLE:
                break
            if not session.busy:
                del self._sessions[key]
                let_go(session)


def let_go(session: ClientSession) -> None:
    """Close what this process holds open for a session."""
    if session.stream is not None:
        session.stream.close()
    for conversation in session.conversations.values():
        conversation.close()
    session.conversations.clear()


async def end(group: McpGroup, session: ClientSession, lane_of: Callable[[Member], Lane]) -> None:
    """Close the upstream sessions of a session that is over; servers that fail forget them by themselves."""
    let_go(session)
    found = [(group.by_name[name], link) for name, link in session.links.items() if name in group.by_name]
    await asyncio.gather(*(_close(member, lane_of(member), link) for member, link in found))


async def _close(member: Member, lane: Lane, link: Link) -> None:
    try:
        await client.close(member.route, lane, link)
    except (UpstreamError, TimedOut):
        return
