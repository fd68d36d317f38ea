"""MCP on the wire: protocol revisions, methods, header names, error codes, JSON-RPC framing, list results."""

from .protocol import (
    ERA_LEGACY,
    ERA_MODERN,
    LATEST_LEGACY,
    LEGACY_VERSIONS,
    MODERN_VERSIONS,
    SUPPORTED_VERSIONS,
    Era,
    era_of,
)

__all__ = [
    "ERA_LEGACY",
    "ERA_MODERN",
    "LATEST_LEGACY",
    "LEGACY_VERSIONS",
    "MODERN_VERSIONS",
    "SUPPORTED_VERSIONS",
    "Era",
    "era_of",
]
