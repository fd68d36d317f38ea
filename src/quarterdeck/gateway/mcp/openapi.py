"""REST APIs as MCP servers: each operation of an OpenAPI document is a tool."""

from __future__ import annotations

from .conversation import Conversation


class RestConversation(Conversation):
    """Calls operations."""
