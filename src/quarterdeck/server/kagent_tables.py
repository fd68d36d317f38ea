"""Tables behind kagent's REST contract for BYO agents: whose conversation is whose, and what frameworks keep of it."""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, Text

kagent_tables = MetaData()
opened = Table(
    "kagent_opened",
    kagent_tables,
    Column("agent", String(255), primary_key=True),
    Column("session_id", String(255), primary_key=True),
    Column("user_id", String(255), nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Index("ix_kagent_opened_user", "agent", "user_id", "seen_at"),
)
"""``seen_at``: the user's last message that a gateway passed on; 0 for a session the agent made for an open user."""
checkpoints = Table(
    "lg_checkpoints",
    kagent_tables,
    Column("agent", String(255), primary_key=True),
    Column("thread_id", String(255), primary_key=True),
    Column("checkpoint_ns", String(255), primary_key=True),
    Column("checkpoint_id", String(255), primary_key=True),
    Column("user_id", String(255), nullable=False),
    Column("parent", String(255)),
    Column("type", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("checkpoint", Text, nullable=False),
    Column("meta", Text, nullable=False),
)
writes = Table(
    "lg_writes",
    kagent_tables,
    Column("agent", String(255), primary_key=True),
    Column("thread_id", String(255), primary_key=True),
    Column("checkpoint_ns", String(255), primary_key=True),
    Column("checkpoint_id", String(255), primary_key=True),
    Column("task_id", String(255), primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("user_id", String(255), nullable=False),
    Column("channel", String(255), nullable=False),
    Column("type", String(64), nullable=False),
    Column("value", Text, nullable=False),
)
crew_memories = Table(
    "crewai_memories",
    kagent_tables,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("agent", String(255), nullable=False),
    Column("thread_id", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("task", Text, nullable=False),
    Column("data", Text, nullable=False),
    Index("ix_crewai_memories_thread", "agent", "thread_id"),
)
crew_states = Table(
    "crewai_flow_states",
    kagent_tables,
    Column("agent", String(255), primary_key=True),
    Column("thread_id", String(255), primary_key=True),
    Column("flow_uuid", String(255), primary_key=True),
    Column("user_id", String(255), nullable=False),
    Column("method", String(255), nullable=False),
    Column("data", Text, nullable=False),
    Column("changed", Float, nullable=False),
)
