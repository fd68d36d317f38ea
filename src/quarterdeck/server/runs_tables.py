"""Tables of the journal: runs, their events, and the key that permits are signed with."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, UniqueConstraint, text

_UNENDED = text("state IN ('pending', 'running', 'waiting')")
runs_tables = MetaData()
runs = Table(
    "runs",
    runs_tables,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("agent", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("task_id", String(255), nullable=False),
    Column("source", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("holder", String(255), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("cancel", Integer, nullable=False),
    Column("summary", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("agent", "task_id"),
    Index("ix_runs_agent_state", "agent", "state"),
    Index("ix_runs_agent_session", "agent", "session_id"),
    Index("ix_runs_updated", "updated_at"),
    Index("ix_runs_unended", "state", sqlite_where=_UNENDED, postgresql_where=_UNENDED),
)
UNENDED = text("runs.state IN ('pending', 'running', 'waiting')")
"""What the index of the few runs that have not ended is for; with the values in the statement, else it is not used."""
"""``holder`` is the replica (``pod/boot``) that leases the run under ``fence``; ``beat`` grows while it is alive."""
run_events = Table(
    "run_events",
    runs_tables,
    Column("run", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("batch", String(80), nullable=False),
    Column("position", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("step", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("data", Text, nullable=False),
    UniqueConstraint("run", "batch", "position"),
)
"""``run`` is the run's number. A batch is written as a whole, once: who repeats it learns what it became."""
run_keys = Table(
    "run_keys",
    runs_tables,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("private", String(64), nullable=False),
)
