"""Tables of triggers: how far each has come, and what it fired."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

triggers_tables = MetaData()
triggers = Table(
    "triggers",
    triggers_tables,
    Column("uid", String(64), primary_key=True),
    Column("label", String(320), nullable=False),
    Column("schedule", String(300), nullable=False),
    Column("since", Float, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("deduplicated", BigInteger, nullable=False),
    Column("limited", BigInteger, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("last_outcome", String(32), nullable=False),
    Column("last_run", String(36), nullable=False),
)
"""One row a Trigger, by its UID. ``since``: until when its schedule was looked at, seconds since the epoch."""
firings = Table(
    "trigger_firings",
    triggers_tables,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("uid", String(64), nullable=False),
    Column("key", String(128), nullable=False),
    Column("source", String(32), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("reason", String(255), nullable=False),
    Column("run", String(36), nullable=False),
    Column("same", String(64), nullable=False),
    Column("due", Float, nullable=False),
    Column("at", Float, nullable=False),
    Column("message", Text, nullable=False),
    UniqueConstraint("uid", "key"),
    Index("ix_trigger_firings_uid_at", "uid", "at"),
    Index("ix_trigger_firings_run", "run"),
)
"""``key`` tells one firing from all others of its trigger: whoever writes it first starts the run, with the row."""
resources = Table(
    "trigger_resources",
    triggers_tables,
    Column("uid", String(64), primary_key=True),
    Column("uri", String(64), primary_key=True),
    Column("content", String(64), nullable=False),
)
"""Digests of the MCP resources that triggers follow (URI, and content as it was last seen by any control plane)."""
