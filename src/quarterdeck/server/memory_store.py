"""What agents remember of their users, in the control plane's database.

A memory belongs to one agent and one user. Every statement names both, by their ``scope``, but for those that people
with a right to it look for and delete by. Vectors of any length live side by side: only those of the same model and
length are compared, the others are found by their words until they are embedded anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    Connection,
    Table,
    Text,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from quarterdeck.agents.context.conversation import run_of
from quarterdeck.agents.memory.words import terms
from quarterdeck.errors import BadRequest, NotFound
from quarterdeck.snapshot.runs import FINAL

from . import memory_rank as rank
from .database import Database, Row, events, sessions
from .memory_tables import index, memories, memory_progress
from .runs_tables import runs

log = logging.getLogger(__name__)
MOST = 1000
"""Memories of one agent for one user; of more, those least used and oldest go, the newest tenth last."""
TTL = 15 * 86400.0
"""Seconds, when nobody says: kagent's 15 days."""
USED_OFTEN = 10
"""Each time a memory was found so often, it lives another time to live."""
_TERMS = 64
"""Words of a question that count."""
_CANDIDATES = 100
_NEAREST = """
SELECT m.number AS number, 1 - (v.embedding <=> CAST(CAST(:vector AS text) AS vector)) AS cosine
FROM memories AS m JOIN memory_vectors AS v ON v.memory = m.number
WHERE m.scope = :scope AND m.expires_at > :now AND m.model = :model AND m.dimensions = :dimensions
ORDER BY cosine DESC LIMIT :most
"""
_KEEP_VECTOR = """
INSERT INTO memory_vectors (memory, embedding) VALUES (:number, CAST(CAST(:vector AS text) AS vector))
ON CONFLICT (memory) DO UPDATE SET embedding = EXCLUDED.embedding
"""
_UNINDEXED = """
SELECT number, embedding FROM memories AS m WHERE embedding IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM memory_vectors WHERE memory = m.number) LIMIT 500
"""
_SHOWN = tuple(column for column in memories.c if column.name not in ("scope", "digest", "terms", "embedding"))


@dataclass(frozen=True, slots=True)
class Owner:
    """``agent`` is ``namespace/name``."""

    agent: str
    user: str

    @property
    def scope(self) -> str:
        return "s" + sha256(f"{self.agent}\0{self.user}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class New:
    """``vector`` of any length, not empty; None: found by its words only. ``ttl`` in seconds."""

    content: str
    vector: Sequence[float] | None = None
    model: str = ""
    ttl: float = TTL
    source: str = "api"
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Question:
    """``text`` finds by words, ``vector`` by nearness; either may be missing. ``least`` is a score from 0 to 1."""

    text: str = ""
    vector: Sequence[float] | None = None
    model: str = ""
    limit: int = 5
    least: float = 0.0


class MemoryStore:
    """``open`` once; ``clock`` in seconds since 1970."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time, most: int = MOST) -> None:
        self._database = database
        self._clock = clock
        self._most = most
        self._pgvector = False

    async def open(self) -> None:
        """Make the database's indexes and fill in what they lack."""
        self._pgvector, why = await self._database.transact(index)
        if self._pgvector:
            await self._database.transact(_fill_in)
        elif self._database.shared:
            log.warning("memory: PostgreSQL has no pgvector (%s): vectors are compared here, one by one", why)

    async def may(self, owner: Owner) -> bool:
        """Whether the user has a session with the agent, or a run of it that goes on."""
        session = select(literal(1)).where(sessions.c.agent == owner.agent, sessions.c.user_id == owner.user)
        run = select(literal(1)).where(
            runs.c.agent == owner.agent, runs.c.user_id == owner.user, runs.c.state.notin_(sorted(FINAL))
        )
        return bool(await self._database.rows(run.limit(1)) or await self._database.rows(session.limit(1)))

    async def save(self, owner: Owner, items: Sequence[New], *, session: str = "", turns: int = 0) -> list[str]:
        """The ids, in one transaction. What is known already is kept, as if it were saved now.

        With ``session``, the facts of a conversation up to its user message ``turns``: nothing is saved when that was
        done before.
        """
        return await self._database.transact(lambda connection: self._save(connection, owner, items, session, turns))

    async def search(self, owner: Owner, question: Question) -> list[Row]:
        """Rows with ``score``, best first; they count as used."""
        now, asked = self._clock(), list(dict.fromkeys(terms(question.text)))[:_TERMS]
        cosine = await self._near(owner, question, now)
        said = await self._worded(owner, asked, now) if asked else {}
        hits = rank.fused(cosine, said, question.limit, question.least)
        if not hits:
            return []
        rows = await self._database.transact(lambda c: self._used(c, owner, [hit.number for hit in hits], now))
        return [rows[hit.number] | {"score": hit.score} for hit in hits if hit.number in rows]

    async def stale(self, owner: Owner, model: str, dimensions: int, limit: int) -> list[Row]:
        """``id`` and ``content`` of memories with a vector of another model or length, or with none."""
        other = or_(memories.c.embedding.is_(None), memories.c.model != model, memories.c.dimensions != dimensions)
        query = select(memories.c.id, memories.c.content).where(self._alive(owner, self._clock()), other)
        return await self._database.rows(query.order_by(memories.c.number.desc()).limit(limit))

    async def embed(self, owner: Owner, model: str, vectors: Mapping[str, Sequence[float]]) -> int:
        """New vectors for memories, by id; how many of them there are."""

        def work(connection: Connection) -> int:
            done = 0
            for ident, vector in vectors.items():
                where = and_(memories.c.scope == owner.scope, memories.c.id == ident)
                number = connection.execute(select(memories.c.number).where(where)).scalar_one_or_none()
                if number is not None:
                    connection.execute(update(memories).where(where).values(**_vector(vector, model)))
                    self._index(connection, number, vector)
                    done += 1
            return done

        return await self._database.transact(work)

    async def progress(self, owner: Owner, session: str) -> int:
        """The last user message of a conversation whose facts were saved; 0: none."""
        rows = await self._database.rows(select(memory_progress.c.turns).where(_of(owner, session)))
        return rows[0]["turns"] if rows else 0

    # -- for people, and for kagent's lists
    async def list(self, agent: str = "", user: str = "", limit: int = MOST, *, namespace: str = "") -> list[Row]:
        """Most used first. Without ``agent``, ``user`` or ``namespace``: all."""
        where = [memories.c.expires_at > self._clock()]
        where += [memories.c.agent == agent] if agent else []
        where += [memories.c.agent.startswith(f"{namespace}/", autoescape=True)] if namespace else []
        where += [memories.c.user_id == user] if user else []
        query = select(*_SHOWN).where(and_(*where)).order_by(memories.c.uses.desc(), memories.c.number.desc())
        return await self._database.rows(query.limit(limit))

    async def get(self, ident: str) -> Row:
        """Raises NotFound."""
        query = select(*_SHOWN).where(memories.c.id == ident, memories.c.expires_at > self._clock())
        rows = await self._database.rows(query)
        if not rows:
            raise NotFound(f"memory {ident!r} does not exist; see: qd memory list", name=ident)
        return rows[0]

    async def delete(self, ident: str) -> None:
        """Raises NotFound."""
        row = await self.get(ident)
        await self._forget(and_(memories.c.id == ident), row["agent"], row["user_id"])

    async def forget(self, agent: str, user: str = "") -> int:
        """All memories of an agent, or of an agent for one user; how many there were."""
        mine = [memories.c.agent == agent, *([memories.c.user_id == user] if user else [])]
        return await self._forget(and_(*mine), agent, user)

    async def _forget(self, which: Any, agent: str, user: str) -> int:
        """Also, what was said so far is not learned from any more: it would bring back what is to be forgotten."""
        where = [events.c.agent == agent, *([events.c.user_id == user] if user else [])]
        said = await self._database.rows(select(events.c.user_id, events.c.session_id, events.c.id).where(and_(*where)))
        turns: dict[tuple[str, str], set[str]] = {}
        for row in said:
            turns.setdefault((row["user_id"], row["session_id"]), set()).add(run_of(row["id"]))

        def work(connection: Connection) -> int:
            gone = connection.execute(delete(memories).where(which)).rowcount
            for (one, session), runs_of in turns.items():
                _advance(connection, Owner(agent, one), session, len(runs_of), self._clock())
            return gone

        return await self._database.transact(work)

    async def prune(self) -> int:
        """Delete what has expired, how many there were; index what a replica saved that knew of no pgvector."""
        if self._pgvector:
            await self._database.transact(_fill_in)
        async with self._database.write() as connection:
            now = self._clock()
            await connection.execute(delete(memory_progress).where(memory_progress.c.at < now - 365 * 86400))
            return (await connection.execute(delete(memories).where(memories.c.expires_at <= now))).rowcount

    # -- inside
    def _alive(self, owner: Owner, now: float) -> Any:
        return and_(memories.c.scope == owner.scope, memories.c.expires_at > now)

    async def _near(self, owner: Owner, question: Question, now: float) -> dict[int, float]:
        vector = rank.unit(question.vector) if question.vector else None
        if vector is None:
            return {}
        if self._pgvector:
            return await self._nearest(owner, vector, question.model, now)
        where = and_(
            self._alive(owner, now),
            memories.c.model == question.model,
            memories.c.dimensions == len(vector),
            memories.c.embedding.is_not(None),
        )
        rows = await self._database.rows(select(memories.c.number, memories.c.embedding).where(where))
        pairs = [(row["number"], row["embedding"]) for row in rows]
        return await asyncio.to_thread(rank.cosines, vector, pairs)

    async def _nearest(self, owner: Owner, vector: Sequence[float], model: str, now: float) -> dict[int, float]:
        """By pgvector, without an approximate index: a user's memories are few, and none is missed."""
        given = {
            "vector": _literal(vector), "scope": owner.scope, "now": now, "model": model, "dimensions": len(vector),
            "most": _CANDIDATES,
        }  # fmt: skip
        rows = await self._database.rows(text(_NEAREST).bindparams(**given))
        return {row["number"]: float(row["cosine"]) for row in rows}

    async def _worded(self, owner: Owner, asked: Sequence[str], now: float) -> dict[int, rank.Words]:
        alive = self._alive(owner, now)
        count = await self._database.rows(select(func.count().label("n")).select_from(memories).where(alive))
        if not count[0]["n"]:
            return {}
        query = select(memories.c.number, memories.c.terms).where(alive, self._holding(asked, owner))
        rows = await self._database.rows(query.limit(self._most))
        pairs = [(row["number"], row["terms"]) for row in rows]
        return await asyncio.to_thread(rank.by_words, asked, pairs, count[0]["n"])

    def _holding(self, asked: Sequence[str], owner: Owner) -> Any:
        """Memories that hold one of the words, by the database's index."""
        if self._database.shared:
            words = bindparam("asked", list(asked), type_=postgresql.ARRAY(Text))
            return text("string_to_array(memories.terms, ' ') && :asked").bindparams(words)
        any_of = " OR ".join(f'"{term}"' for term in asked)
        match = f'scope:"{owner.scope}" AND terms:({any_of})'
        found = text("memories.number IN (SELECT rowid FROM memories_fts WHERE memories_fts MATCH :match)")
        return found.bindparams(match=match)

    def _save(self, connection: Connection, owner: Owner, items: Sequence[New], session: str, turns: int) -> list[str]:
        now = self._clock()
        if session and not _advance(connection, owner, session, turns, now):
            return []
        ids: list[str] = []
        for item in items:
            kept = connection.execute(_kept(connection, owner, item, now)).one()
            if item.vector:
                self._index(connection, kept.number, item.vector)
            ids.append(kept.id)
        self._make_room(connection, owner, now)
        return ids

    def _index(self, connection: Connection, number: int, vector: Sequence[float]) -> None:
        if self._pgvector:
            connection.execute(text(_KEEP_VECTOR), {"number": number, "vector": _literal(vector)})

    def _make_room(self, connection: Connection, owner: Owner, now: float) -> None:
        """The newest tenth are the last to go: they had no time to be used."""
        mine = memories.c.scope == owner.scope
        count = connection.execute(select(func.count()).select_from(memories).where(mine)).scalar_one()
        if count <= self._most:
            return
        connection.execute(delete(memories).where(mine, memories.c.expires_at <= now))
        newest = select(memories.c.number).where(mine).order_by(memories.c.number.desc())
        young = connection.execute(newest.limit(max(1, self._most // 10))).scalars().all()
        worth = (memories.c.number.in_(young).desc(), memories.c.uses.desc(), memories.c.number.desc())
        rest = select(memories.c.number).where(mine).order_by(*worth).offset(self._most).limit(count)
        connection.execute(delete(memories).where(memories.c.number.in_(rest.scalar_subquery())))

    def _used(self, connection: Connection, owner: Owner, numbers: Sequence[int], now: float) -> dict[int, Row]:
        mine = and_(memories.c.scope == owner.scope, memories.c.number.in_(numbers))
        free = select(memories.c.number).where(mine).order_by(memories.c.number).with_for_update(skip_locked=True)
        mine_now = [row.number for row in connection.execute(free)]
        uses = memories.c.uses + 1
        lasts = case((uses % USED_OFTEN == 0, now + memories.c.ttl), else_=memories.c.expires_at)
        connection.execute(update(memories).where(memories.c.number.in_(mine_now)).values(uses=uses, expires_at=lasts))
        rows = connection.execute(select(*_SHOWN).where(mine)).mappings()
        return {row["number"]: dict(row) for row in rows}


def _of(owner: Owner, session: str) -> Any:
    table = memory_progress.c
    return and_(table.agent == owner.agent, table.user_id == owner.user, table.session_id == session)


def _insert(connection: Connection, table: Table) -> Any:
    """INSERT with ON CONFLICT, which both databases have and SQL has not."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _advance(connection: Connection, owner: Owner, session: str, turns: int, now: float) -> bool:
    """Whether this is the first time that a conversation is saved up to there."""
    values = {"agent": owner.agent, "user_id": owner.user, "session_id": session, "turns": turns, "at": now}
    new = _insert(connection, memory_progress).values(**values)
    new = new.on_conflict_do_update(
        index_elements=["agent", "user_id", "session_id"],
        set_={"turns": turns, "at": now},
        where=memory_progress.c.turns < turns,
    )
    return connection.execute(new.returning(memory_progress.c.turns)).first() is not None


def _kept(connection: Connection, owner: Owner, item: New, now: float) -> Any:
    """The statement that saves one, or keeps the one of the same words; gives number and id."""
    said = " ".join(item.content.split()).casefold()
    fresh = {"ttl": item.ttl, "expires_at": now + item.ttl, **(_vector(item.vector, item.model) if item.vector else {})}
    row = {
        "id": str(uuid4()), "scope": owner.scope, "agent": owner.agent, "user_id": owner.user,
        "digest": sha256(said.encode()).hexdigest(), "content": item.content, "terms": " ".join(terms(item.content)),
        "details": json.dumps(dict(item.details)), "source": item.source, "model": "", "dimensions": 0, "uses": 0,
        "created_at": now,
    }  # fmt: skip
    new = _insert(connection, memories).values(**(row | fresh))
    new = new.on_conflict_do_update(index_elements=["scope", "digest"], set_=fresh)
    return new.returning(memories.c.number, memories.c.id)


def _vector(vector: Sequence[float], model: str) -> Row:
    """Raises BadRequest for one without a direction."""
    straight = rank.unit(vector)
    if straight is None:
        raise BadRequest("vector: has no direction: it holds zeros only, or numbers that are too large")
    return {"embedding": rank.packed(straight), "dimensions": len(straight), "model": model}


def _literal(vector: Sequence[float]) -> str:
    """As pgvector reads it."""
    return "[" + ",".join(f"{value:.7g}" for value in rank.unit(vector) or vector) + "]"


def _fill_in(connection: Connection) -> None:
    """Rows that were saved while there was no pgvector."""
    while rows := connection.execute(text(_UNINDEXED)).all():
        for number, data in rows:
            vector = struct.unpack(f"<{len(data) // 4}f", data)
            connection.execute(text(_KEEP_VECTOR), {"number": number, "vector": _literal(vector)})
