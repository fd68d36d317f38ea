"""The table of approvals: the truth about them, of which the ``Approval`` objects are copies."""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, Text

approvals_tables = MetaData()
approvals = Table(
    "approvals",
    approvals_tables,
    Column("namespace", String(63), primary_key=True),
    Column("name", String(253), primary_key=True),
    Column("slot", String(64), unique=True),
    # digest of caller and call; only while the call may still lead here, so that asking again finds this row
    Column("gateway", String(255), nullable=False),
    Column("agent", String(255), nullable=False, index=True),
    Column("state", String(16), nullable=False, index=True),
    Column("wanted", Text, nullable=False),
    Column("decisions", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False, index=True),
    Column("changed", Float, nullable=False),
    Column("version", Integer, nullable=False),
)
Index("ix_approvals_open", approvals.c.agent, approvals.c.state)
"""One row per approval. ``version`` counts the changes: each is a compare-and-set on it."""
