"""Tables of what users granted at MCP servers, kept for the gateways."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

user_tokens_tables = MetaData()
user_tokens = Table(
    "user_tokens",
    user_tokens_tables,
    Column("key", String(64), primary_key=True),
    Column("kind", String(16), nullable=False, index=True),
    Column("value", LargeBinary, nullable=False),
    Column("version", Integer, nullable=False),
    Column("until", Float, nullable=False),
    Column("leased", Float, nullable=False),
    Column("user", String(512), nullable=False, index=True),
    Column("server", String(600), nullable=False),
    Column("shown", Text, nullable=False),
)
"""``value`` is sealed. ``user``, ``server`` and ``shown`` (JSON) are empty but for grants."""
