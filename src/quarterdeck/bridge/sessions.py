"""Client sessions of the legacy era (2025-03-26 … 2025-11-25): who owns which process, and the GET stream of each."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass, field

from quarterdeck.errors import UpstreamError

from .link import Link
from .processes import Processes
from .reply import Stream

_BUFFERED = 256


@dataclass(slots=True, eq=False)
class Session:
    """One client. ``link`` is its own process, or the shared one."""

    id: str
    last_used: float
    link: Link | None = None
    stream: Stream | None = None
    waiting: deque[bytes] = field(default_factory=lambda: deque[bytes](maxlen=_BUFFERED))

    def unsolicited(self, message: bytes) -> bool:
        """Deliver on the GET stream, or keep (bounded) until the client opens one."""
        if self.stream is not None and self.stream.open:
            return self.stream.send(message)
        if b'"id"' in message:
            return False  # a question needs somebody to answer it now
        self.waiting.append(message)
        return True

    def attach(self, stream: Stream) -> None:
        if self.stream is not None:
            self.stream.close()
        self.stream = stream
        while self.waiting:
            stream.send(self.waiting.popleft())


class Sessions:
    """The session table: bounded, expires idle ones, ends their processes."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.config = processes.config
        self._sessions: dict[str, Session] = {}
        self._shared: Link | None = None
        self._starting = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session_id: str) -> Session | None:
        """The live session of that id; None when it never was, has ended, or lost its process."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        if session.link is not None and not session.link.child.alive:
            self.end(session)
            return None
        session.last_used = asyncio.get_running_loop().time()
        return session

    async def open(self) -> Session:
        """A new session. Raises UpstreamError when the process cannot be started or too many sessions are open."""
        self.expire()
        if len(self._sessions) >= self.config.max_sessions:
            raise UpstreamError(
                f"MCP server {self.config.name} already serves {self.config.max_sessions} sessions; "
                "end one, or scale the MCPServer"
            )
        session = Session(secrets.token_urlsafe(24), asyncio.get_running_loop().time())
        self._sessions[session.id] = session
        try:
            if self.config.mode == "shared":
                session.link = await self.shared()
            else:
                session.link = Link(await self.processes.take(), session.unsolicited)
        except UpstreamError:
            del self._sessions[session.id]
            raise
        return session

    async def replace(self, session: Session) -> None:
        """Another process for a session whose own has ended before it said anything. Raises UpstreamError."""
        session.link = Link(await self.processes.take(), session.unsolicited)

    async def shared(self) -> Link:
        """The one process for everybody; a new one when it has ended."""
        async with self._starting:
            if self._shared is None or not self._shared.child.alive:
                self._shared = Link(await self.processes.take(), self._broadcast)
            return self._shared

    def end(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        if session.stream is not None:
            session.stream.close()
        if session.link is not None and session.link is not self._shared and session.link.child.alive:
            self.processes.retire(session.link.child)

    def expire(self) -> None:
        """End sessions nobody has used for ``idle_timeout`` seconds."""
        now = asyncio.get_running_loop().time()
        for session in list(self._sessions.values()):
            waiting = session.link is not None and session.link is not self._shared and session.link.busy
            listening = session.stream is not None and session.stream.open
            if now - session.last_used > self.config.idle_timeout and not waiting and not listening:
                self.end(session)

    def _broadcast(self, message: bytes) -> bool:
        """A message of the shared process that belongs to no request: to every session."""
        return any([session.unsolicited(message) for session in self._sessions.values()])
