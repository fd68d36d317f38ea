"""Quarterdeck runs AI agents and MCP servers in production; see docs/architecture.md."""

__version__ = "0.1.0"
