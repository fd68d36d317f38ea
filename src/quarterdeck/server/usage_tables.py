"""The table of what ended runs used: it outlives their journals."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table

usage_tables = MetaData()
run_usage = Table(
    "run_usage",
    usage_tables,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("run", String(36), nullable=False, index=True),
    Column("agent", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("source", String(64), nullable=False),
    Column("model", String(255), nullable=False),
    Column("day", String(10), nullable=False),
    Column("at", Float, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("input", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("cached", BigInteger, nullable=False),
    Column("cost", Float, nullable=False),
    Index("ix_run_usage_at", "at"),
    Index("ix_run_usage_agent_at", "agent", "at"),
)
"""One row per run and model, written with the run's end. ``at`` is that end, ``day`` its date (UTC)."""
