"""Tables of memory, and the indexes that each database searches them by.

The indexes are derived: SQLite's FTS5 table by triggers, pgvector's table when a memory is saved. What is missing in
them, because the extension came later, is filled in when the store is opened.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.exc import DBAPIError

memory_tables = MetaData()
memories = Table(
    "memories",
    memory_tables,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("scope", String(33), nullable=False),
    Column("agent", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("content", Text, nullable=False),
    Column("terms", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("source", String(16), nullable=False),
    Column("model", String(255), nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("embedding", LargeBinary),
    Column("uses", Integer, nullable=False),
    Column("ttl", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    UniqueConstraint("scope", "digest"),
    Index("ix_memories_owner", "agent", "user_id"),
    Index("ix_memories_expires", "expires_at"),
)
"""``scope`` stands for agent and user; ``terms`` are the stems of ``content``; ``embedding`` is a unit vector of 32-bit
floats, little-endian, NULL where there is none. Times in seconds since 1970, ``ttl`` in seconds."""
memory_progress = Table(
    "memory_progress",
    memory_tables,
    Column("agent", String(255), primary_key=True),
    Column("user_id", String(255), primary_key=True),
    Column("session_id", String(255), primary_key=True),
    Column("turns", Integer, nullable=False),
    Column("at", Float, nullable=False),
)
"""Up to which user message of a conversation its facts have been saved."""

_FTS = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS memories_fts "
    "USING fts5(scope, terms, content='memories', content_rowid='number')",
    "CREATE TRIGGER IF NOT EXISTS memories_fts_new AFTER INSERT ON memories BEGIN "
    "INSERT INTO memories_fts(rowid, scope, terms) VALUES (new.number, new.scope, new.terms); END",
    "CREATE TRIGGER IF NOT EXISTS memories_fts_old AFTER DELETE ON memories BEGIN "
    "INSERT INTO memories_fts(memories_fts, rowid, scope, terms) "
    "VALUES ('delete', old.number, old.scope, old.terms); END",
    "INSERT INTO memories_fts(memories_fts) VALUES ('rebuild')",
)
_GIN = "CREATE INDEX IF NOT EXISTS ix_memories_terms ON memories USING gin (string_to_array(terms, ' '))"
_VECTORS = (
    "CREATE TABLE IF NOT EXISTS memory_vectors (memory BIGINT PRIMARY KEY REFERENCES memories(number) "
    "ON DELETE CASCADE, embedding vector NOT NULL)"
)
_LOCK = 0x7164_6D65


def index(connection: Connection) -> tuple[bool, str]:
    """Make what the database searches by: whether its vector index can be used, and if not why.

    Without FTS5 or pgvector nothing is lost but speed: rows are then looked at one by one.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        connection.execute(text(_GIN))
        return _pgvector(connection)
    known = connection.execute(text("SELECT 1 FROM sqlite_master WHERE name = 'memories_fts'")).first()
    if known is None:
        for statement in _FTS:
            connection.execute(text(statement))
    return False, ""


def _pgvector(connection: Connection) -> tuple[bool, str]:
    try:
        with connection.begin_nested():
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
            connection.execute(text(_VECTORS))
    except DBAPIError as error:
        return False, str(error.orig).splitlines()[0]
    return True, ""
