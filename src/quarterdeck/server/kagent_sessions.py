"""Whose conversation with a BYO agent is whose: opened by gateways, who know the user; believed of no agent.

kagent's SDKs name the user in ``X-User-ID``, in ``?user_id=`` or in bodies, and where their framework does not tell
them, a placeholder. Here a conversation has the one user for whom a gateway opened it; what an agent says must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import time
from uuid import uuid4

from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from quarterdeck.errors import BadRequest, Forbidden, NotFound

from .database import Database, sessions, tasks
from .kagent_tables import checkpoints, crew_memories, crew_states, opened, writes

DEFAULT_USER = "admin@kagent.dev"
"""kagent's: who calls where nobody is known, and what its SDKs send when their framework does not say."""
OPEN_FOR = 24 * 3600.0
"""Seconds after a user's last message in which an agent may act for them."""
_PLACEHOLDER = "A2A_USER_"
_LONGEST = 255
_PER_USER = 10_000


class Conversations:
    """Of BYO agents. ``hosted`` says of which agents our own host is; those are asked nothing here."""

    def __init__(
        self, database: Database, hosted: Callable[[str], bool] = lambda agent: True, clock: Callable[[], float] = time
    ) -> None:
        self.hosted = hosted
        self._database = database
        self._clock = clock

    async def open(self, agent: str, user: str, session: str = "", names: Iterable[str] = (), via: str = "") -> str:
        """A user's message goes to ``agent``: the id of its conversation, new when none is given.

        ``names``: ids of tasks, which must be the user's as far as they are known. ``via``: the agent that asks for the
        user on its word alone; it must have that user itself. Raises Forbidden, and NotFound for what is another's.
        """
        if via and not self.hosted(via) and not await self.has(via, user):
            raise Forbidden(f"agent {via} has no open session of user {user!r}")
        session = await self.check(agent, user, session, names) or str(uuid4())
        if not await self._touch(agent, user, session) and not await self._claim(agent, user, session, self._clock()):
            raise _unknown(agent, session)
        await self._database.create_session(agent, user, session, None, "agent" if via else None)
        return session

    async def check(self, agent: str, user: str, session: str, names: Iterable[str] = ()) -> str:
        """The conversation that ids of it and of its tasks belong to, "" for none. Raises NotFound for another's."""
        for name in names:
            query = select(tasks.c.user_id, tasks.c.session_id).where(and_(tasks.c.agent == agent, tasks.c.id == name))
            for row in await self._database.rows(query):
                if row["user_id"] != user:
                    raise NotFound(f"task {name!r} of agent {agent} does not exist", name=name)
                session = session or row["session_id"] or ""
        if len(session) > _LONGEST:
            raise BadRequest(f"contextId: is longer than {_LONGEST} characters")
        owner = await self.owner(agent, session) if session else None
        if owner not in (None, user):
            raise _unknown(agent, session)
        return session

    async def user(self, agent: str, said: Iterable[object], session: str = "", *, reads: bool = False) -> str:
        """The user whom a request of ``agent`` is about. ``said``: what it says; ``session``: what it names.

        Raises Forbidden for a user without open session, NotFound for a session that is another's or, where it
        ``reads`` without saying a user, unknown.
        """
        names = {text for text in said if isinstance(text, str) and text}
        if any(len(name) > _LONGEST for name in names):
            raise BadRequest(f"X-User-ID: is longer than {_LONGEST} characters")
        claimed = {name for name in names if name != DEFAULT_USER and not name.startswith(_PLACEHOLDER)}
        if len(claimed) > 1:
            raise Forbidden(f"agent {agent} names several users in one request: {', '.join(sorted(claimed))}")
        user = next(iter(claimed), "")
        owner = await self.owner(agent, session) if session else None
        if user and not await self.has(agent, user):
            raise Forbidden(f"agent {agent} has no open session of user {user!r}")
        if owner is not None:
            if user not in ("", owner):
                raise _unknown(agent, session)
            if not user and not await self.has(agent, owner):
                raise Forbidden(f"agent {agent} has no open session of the user of {session!r} any more")
            return owner
        if user:
            return user
        if session and reads:
            raise _unknown(agent, session)
        if not await self.has(agent, DEFAULT_USER):
            raise Forbidden(f"agent {agent} has no open session of user {DEFAULT_USER!r}")
        return DEFAULT_USER

    async def adopt(self, agent: str, user: str, session: str) -> None:
        """A session that the agent itself makes for a user of its own, or has. Raises NotFound when it is another's."""
        if await self.owner(agent, session) == user:
            return
        where = and_(opened.c.agent == agent, opened.c.user_id == user, opened.c.seen_at == 0.0)
        if (await self._database.rows(select(func.count().label("n")).where(where)))[0]["n"] >= _PER_USER:
            raise Forbidden(f"agent {agent} has made {_PER_USER} sessions of user {user!r}; delete some")
        if not await self._claim(agent, user, session, 0.0):
            raise _unknown(agent, session)

    async def owner(self, agent: str, session: str) -> str | None:
        where = and_(opened.c.agent == agent, opened.c.session_id == session)
        rows = await self._database.rows(select(opened.c.user_id).where(where))
        return str(rows[0]["user_id"]) if rows else None

    async def has(self, agent: str, user: str) -> bool:
        """Whether a user has an open session with an agent."""
        since = self._clock() - OPEN_FOR
        where = and_(opened.c.agent == agent, opened.c.user_id == user, opened.c.seen_at > since)
        return bool(await self._database.rows(select(opened.c.session_id).where(where).limit(1)))

    async def forget(self, agent: str, session: str) -> None:
        """Delete what frameworks keep of a session. Whose it is stays known if its user was ever in it, as the agent
        may go on with it."""
        async with self._database.write() as connection:
            made = and_(opened.c.agent == agent, opened.c.session_id == session, opened.c.seen_at == 0.0)
            await connection.execute(delete(opened).where(made))
            for table in (checkpoints, writes, crew_memories, crew_states):
                where = and_(table.c.agent == agent, table.c.thread_id == session)
                await connection.execute(delete(table).where(where))

    async def _touch(self, agent: str, user: str, session: str) -> bool:
        where = and_(opened.c.agent == agent, opened.c.session_id == session, opened.c.user_id == user)
        async with self._database.write() as connection:
            done = await connection.execute(update(opened).where(where).values(seen_at=self._clock()))
        return done.rowcount > 0

    async def _claim(self, agent: str, user: str, session: str, seen: float) -> bool:
        """Whether the session is that user's now; the first who asks has it.

        One from before BYO agents had owners is its user's if it is of one user only.
        """
        query = select(sessions.c.user_id).where(and_(sessions.c.agent == agent, sessions.c.id == session))
        if any(row["user_id"] != user for row in await self._database.rows(query)):
            return False
        row = {"agent": agent, "session_id": session, "user_id": user, "opened_at": self._clock(), "seen_at": seen}
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(opened).values(**row))
        except IntegrityError:
            return await self.owner(agent, session) == user
        return True


def _unknown(agent: str, session: str) -> NotFound:
    return NotFound(f"session {session!r} of agent {agent} does not exist", name=session)
