"""Tables of A2A: who is notified of a task, what is still to be delivered, the key that cards are signed with."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text

a2a_tables = MetaData()
push_configs = Table(
    "push_configs",
    a2a_tables,
    Column("agent", String(255), primary_key=True),
    Column("task_id", String(255), primary_key=True),
    Column("id", String(255), primary_key=True),
    Column("user_id", String(255), nullable=False),
    Column("version", String(8), nullable=False),
    Column("config", Text, nullable=False),
    Column("created", Float, nullable=False),
)
push_queue = Table(
    "push_queue",
    a2a_tables,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("agent", String(255), nullable=False),
    Column("task_id", String(255), nullable=False),
    Column("config_id", String(255), nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Float, nullable=False, index=True),
    Column("claimed", Float, nullable=False),
)
"""``due``: when to try (again); ``claimed``: until when a replica tries it. Both seconds since 1970."""
signing_keys = Table(
    "signing_keys",
    a2a_tables,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("private", Text, nullable=False),
    Column("created", Float, nullable=False),
)
"""One row: the ES256 key as JWK."""
