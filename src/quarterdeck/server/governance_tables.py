"""Tables of what the control plane keeps for its gateways: audit checkpoints, revocations, approved tools."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, String, Table, Text

governance_tables = MetaData()
checkpoints = Table(
    "audit_checkpoints",
    governance_tables,
    Column("chain", String(64), primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("gateway", String(255), nullable=False, index=True),
    Column("replica", String(255), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("data", Text, nullable=False),
)
revocations = Table(
    "revocations",
    governance_tables,
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("subject", String(512), nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", String(512), nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
)
tool_pins = Table(
    "tool_pins",
    governance_tables,
    Column("kind", String(32), primary_key=True),
    Column("namespace", String(255), primary_key=True),
    Column("server", String(255), primary_key=True),
    Column("tool", String(255), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("definition", Text, nullable=False),
    Column("by", String(512), nullable=False),
    Column("at", Float, nullable=False),
)
changes = Table(
    "governance_changes",
    governance_tables,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
)
"""One row: how often revocations and approvals were changed, so that replicas see it by one number."""
