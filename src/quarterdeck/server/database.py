"""The control plane's own database: conversations, their tasks, and what ``governance`` keeps.

SQLite by default, PostgreSQL by URL.

Rows belong to an agent (``namespace/name``) and a user; every statement names both, so that one agent never reads
another's. Schema changes are numbered and applied in order at start.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import (
    DDL,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from quarterdeck.errors import Conflict, NotFound, StorageError

from .a2a_tables import a2a_tables
from .approvals_tables import approvals_tables
from .governance_tables import governance_tables
from .kagent_tables import kagent_tables
from .memory_tables import memory_tables
from .runs_tables import runs, runs_tables
from .triggers_tables import triggers_tables
from .usage_tables import usage_tables
from .user_tokens_tables import user_tokens_tables
from .writer_thread import WriterThread

VERSION = 5
_MIGRATION_LOCK = 0x7164_6462

_meta = MetaData()
schema_version = Table("schema_version", _meta, Column("version", Integer, primary_key=True))
sessions = Table(
    "sessions",
    _meta,
    Column("id", String(255), primary_key=True),
    Column("agent", String(255), primary_key=True),
    Column("user_id", String(255), primary_key=True),
    Column("name", Text),
    Column("source", String(64)),
    Column("created_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
    Index("ix_sessions_owner", "agent", "user_id"),
)
events = Table(
    "events",
    _meta,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(255), nullable=False),
    Column("session_id", String(255), nullable=False, index=True),
    Column("agent", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("data", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    UniqueConstraint("agent", "user_id", "session_id", "id"),
)
tasks = Table(
    "tasks",
    _meta,
    Column("id", String(255), primary_key=True),
    Column("agent", String(255), primary_key=True),
    Column("session_id", String(255), index=True),
    Column("user_id", String(255), nullable=False),
    Column("protocol_version", String(16)),
    Column("data", Text, nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("state", String(32), index=True),
    Column("status_at", String(32)),
)

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task to save. ``state`` is the word of A2A 0.3; ``data`` the task as JSON."""

    agent: str
    user: str
    id: str
    session: str
    protocol_version: str
    state: str
    data: str
    status_at: str = ""
    """When the status was reported: ISO 8601, UTC, milliseconds."""


Record = Callable[[Connection, str, str, str], bool]
"""Told of a task in the transaction that saves it, before it is saved: agent, id, data; whether others are to look."""


def upsert(table: Table, *kept: str) -> dict[str, Any]:
    """By the name of the dialect: what inserts a row, or changes all of it but its key and the columns ``kept``."""
    told = [column.name for column in table.c if not column.primary_key and column.name not in kept]
    key = [column.name for column in table.primary_key]
    new, other = sqlite.insert(table), postgresql.insert(table)
    return {
        "sqlite": new.on_conflict_do_update(index_elements=key, set_={name: new.excluded[name] for name in told}),
        "postgresql": other.on_conflict_do_update(
            index_elements=key, set_={name: other.excluded[name] for name in told}
        ),
    }


_KEEP_TASK = upsert(tasks, "user_id")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Database:
    """Conversations and tasks."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        sqlite = engine.dialect.name == "sqlite"
        self._writer: AbstractAsyncContextManager[None] = asyncio.Lock() if sqlite else nullcontext()
        self._thread = WriterThread(engine.url, _sqlite_pragmas) if sqlite else None
        self.record: Record | None = None
        self.queued = asyncio.Event()
        """Set when :attr:`record` queued something."""

    @classmethod
    async def open(cls, url: str) -> Database:
        """``url`` as SQLAlchemy has it, or a path for SQLite. Raises StorageError when it cannot be used."""
        if "://" not in url:
            try:
                Path(url).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _make_private(url)
            except OSError as error:
                raise StorageError(f"database {url} cannot be used: {error.strerror}") from error
            url = f"sqlite+aiosqlite:///{url}"
        url = _with_driver(url)
        try:
            engine = create_async_engine(url, pool_pre_ping=not url.startswith("sqlite"))
        except (ModuleNotFoundError, ArgumentError) as error:
            raise StorageError(f"the database URL cannot be used: {error}") from error
        if url.startswith("sqlite"):
            event.listen(engine.sync_engine, "connect", _sqlite_pragmas)
            # cancelled once more, SQLAlchemy's way to terminate a connection stops aiosqlite's thread below a task that
            # waits for it, and so for ever
            dialect = engine.sync_engine.dialect
            dialect.do_terminate = dialect.do_close
        database = cls(engine)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_migrate)
        except StorageError:
            await engine.dispose()
            raise
        except (SQLAlchemyError, OSError) as error:
            await engine.dispose()
            raise StorageError(f"{_named(engine)} cannot be used: {_cause(error)}") from error
        return database

    @property
    def shared(self) -> bool:
        """Whether other replicas may use it, too."""
        return self._engine.dialect.name != "sqlite"

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()
        await self._engine.dispose()

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction that writes. SQLite has one writer at a time, and in its own queue some wait for ever."""
        async with self._writer, self._engine.begin() as connection:
            yield connection

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """A transaction that writes, as a function of its connection: with many statements cheaper than ``write``."""
        if self._thread is None:
            async with self.write() as connection:
                return await connection.run_sync(work)
        async with self._writer:
            return await self._thread.transact(work)

    # -- sessions
    async def create_session(
        self, agent: str, user: str, session_id: str | None, name: str | None, source: str | None
    ) -> Row:
        """Create a session, or return the one of that id that the same agent and user have already."""
        session_id = session_id or str(uuid4())
        stamp = now()
        row: Row = {
            "id": session_id, "agent": agent, "user_id": user, "name": name, "source": source,
            "created_at": stamp, "updated_at": stamp,
        }  # fmt: skip
        try:
            async with self.write() as connection:
                await connection.execute(insert(sessions).values(**row))
        except IntegrityError:
            return await self.session(agent, user, session_id)
        return row

    async def session(self, agent: str, user: str, session_id: str) -> Row:
        """Raises NotFound."""
        query = select(sessions).where(_of_session(agent, user, session_id))
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise NotFound(f"session {session_id!r} of agent {agent} and user {user!r} does not exist", name=session_id)
        return dict(row)

    async def list_sessions(self, agent: str | None, user: str) -> list[Row]:
        query = select(sessions).where(sessions.c.user_id == user).order_by(sessions.c.updated_at.desc())
        if agent is not None:
            query = query.where(sessions.c.agent == agent)
        return await self.rows(query)

    async def delete_session(self, agent: str, user: str, session_id: str) -> None:
        async with self.write() as connection:
            await connection.execute(delete(sessions).where(_of_session(agent, user, session_id)))
            for table in (events, tasks):
                await connection.execute(
                    delete(table).where(
                        and_(table.c.agent == agent, table.c.user_id == user, table.c.session_id == session_id)
                    )
                )

    # -- events
    async def append_event(self, agent: str, user: str, session_id: str, event_id: str, data: str) -> Row:
        """Append to a session, creating it when it is new; the same event id twice is one event."""
        await self.create_session(agent, user, session_id, None, None)
        row: Row = {
            "id": event_id, "session_id": session_id, "agent": agent, "user_id": user,
            "data": data, "created_at": now(),
        }  # fmt: skip
        try:
            async with self.write() as connection:
                await connection.execute(insert(events).values(**row))
                await connection.execute(
                    update(sessions).where(_of_session(agent, user, session_id)).values(updated_at=row["created_at"])
                )
        except IntegrityError:
            query = select(events).where(and_(_events_of(agent, user, session_id), events.c.id == event_id))
            kept = await self.rows(query)
            if not kept:
                raise
            if kept[0]["data"] != data:
                raise Conflict(f"event {event_id!r} of session {session_id!r} exists with other content") from None
            return kept[0]
        return row

    async def list_events(self, agent: str, user: str, session_id: str, *, limit: int, ascending: bool) -> list[Row]:
        """The newest ``limit`` events (all when not positive), in the order asked for."""
        query = select(events).where(_events_of(agent, user, session_id)).order_by(events.c.seq.desc())
        rows = await self.rows(query.limit(limit) if limit > 0 else query)
        return list(reversed(rows)) if ascending else rows

    # -- tasks
    async def save_task(self, task: TaskRow) -> None:
        """Save a task, new or not."""
        if await self.transact(lambda connection: self.keep_task(connection, task)):
            self.queued.set()

    def keep_task(self, connection: Connection, task: TaskRow) -> bool:
        """:meth:`save_task` as part of another's transaction; whether :attr:`queued` is to be set when it is over."""
        row: Row = {
            "id": task.id, "agent": task.agent, "user_id": task.user, "session_id": task.session,
            "protocol_version": task.protocol_version, "data": task.data, "state": task.state, "updated_at": now(),
            "status_at": task.status_at or now()[:23] + "Z",
        }  # fmt: skip
        told = self.record(connection, task.agent, task.id, task.data) if self.record is not None else False
        connection.execute(_KEEP_TASK[connection.dialect.name], row)
        return told

    async def task(self, agent: str, task_id: str) -> Row:
        """Raises NotFound."""
        rows = await self.rows(select(tasks).where(and_(tasks.c.agent == agent, tasks.c.id == task_id)))
        if not rows:
            raise NotFound(f"task {task_id!r} of agent {agent} does not exist", name=task_id)
        return rows[0]

    async def list_tasks(self, agent: str, user: str, session_id: str) -> list[Row]:
        where = and_(tasks.c.agent == agent, tasks.c.user_id == user, tasks.c.session_id == session_id)
        return await self.rows(select(tasks).where(where).order_by(tasks.c.updated_at))

    async def delete_task(self, agent: str, task_id: str) -> None:
        async with self.write() as connection:
            await connection.execute(delete(tasks).where(and_(tasks.c.agent == agent, tasks.c.id == task_id)))

    async def count(self) -> dict[str, int]:
        """How many rows there are, for the status page."""
        async with self._engine.connect() as connection:
            return {t.name: await _count(connection, t) for t in (sessions, events, tasks)}

    async def rows(self, query: Any) -> list[Row]:
        """What a SELECT finds."""
        async with self._engine.connect() as connection:
            found: Sequence[Any] = (await connection.execute(query)).mappings().all()
        return [dict(row) for row in found]


def _of_session(agent: str, user: str, session_id: str) -> Any:
    return and_(sessions.c.agent == agent, sessions.c.user_id == user, sessions.c.id == session_id)


def _events_of(agent: str, user: str, session_id: str) -> Any:
    return and_(events.c.agent == agent, events.c.user_id == user, events.c.session_id == session_id)


async def _count(connection: AsyncConnection, table: Table) -> int:
    return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


def _make_private(path: str) -> None:
    """Conversations are its owner's only; SQLite gives its journals the mode of the database."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    os.chmod(path, 0o600)


def _sqlite_pragmas(connection: Any, record: object) -> None:
    del record
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _named(engine: AsyncEngine | Engine) -> str:
    """A file by its path, a server by its URL without password."""
    return str(engine.url.database) if engine.dialect.name == "sqlite" else f"database {engine.url!r}"


def _with_driver(url: str) -> str:
    """URLs as PostgreSQL's own tools write them, for the driver that we bring."""
    scheme, colon, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres"):
        return url
    return "postgresql+asyncpg" + colon + re.sub("([?&])sslmode=", r"\1ssl=", rest)


def _cause(error: SQLAlchemyError | OSError) -> str:
    text = str(getattr(error, "orig", None) or error)
    if "not a database" in text or "malformed" in text:
        return f"{text}; restore it from a backup, or move it away to start without conversations"
    return text


def _migrate(connection: Connection) -> None:
    """Bring an empty or older database to :data:`VERSION`; replicas that start together take turns."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    schema_version.create(connection, checkfirst=True)
    found = connection.execute(select(schema_version.c.version)).scalar_one_or_none()
    if found is not None and found > VERSION:
        raise StorageError(
            f"{_named(connection.engine)} has schema {found} of a newer Quarterdeck, this release knows {VERSION}; "
            "run the newer release again"
        )
    approvals_tables.create_all(connection)
    kagent_tables.create_all(connection)
    user_tokens_tables.create_all(connection)
    usage_tables.create_all(connection)
    memory_tables.create_all(connection)
    triggers_tables.create_all(connection)
    if found is None:
        _meta.create_all(connection)
        governance_tables.create_all(connection)
        a2a_tables.create_all(connection)
        runs_tables.create_all(connection)
        connection.execute(insert(schema_version).values(version=VERSION))
        return
    if found < 2:  # tasks of before have no state: their replicas are gone and nobody asks for them by it
        connection.execute(DDL("ALTER TABLE tasks ADD COLUMN state VARCHAR(32)"))
        connection.execute(DDL("CREATE INDEX ix_tasks_state ON tasks (state)"))
    if found < 5:
        connection.execute(DDL("ALTER TABLE tasks ADD COLUMN status_at VARCHAR(32)"))
    governance_tables.create_all(connection)
    a2a_tables.create_all(connection)
    runs_tables.create_all(connection)
    for index in (*sessions.indexes, *runs.indexes):  # tables of before have none
        index.create(connection, checkfirst=True)
    connection.execute(update(schema_version).values(version=VERSION))
