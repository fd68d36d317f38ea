"""Protocol revisions of MCP and the names that each uses (https://modelcontextprotocol.io/specification)."""

from __future__ import annotations

from typing import Final, Literal

Era = Literal["legacy", "modern"]
ERA_LEGACY: Final[Era] = "legacy"
ERA_MODERN: Final[Era] = "modern"

LEGACY_VERSIONS: Final = ("2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions with ``initialize`` and sessions that Streamable HTTP can carry, oldest first."""
LATEST_LEGACY: Final = LEGACY_VERSIONS[-1]
MODERN_VERSIONS: Final = ("2026-07-28",)
"""Stateless revisions: no sessions, ``_meta`` on each request."""
SUPPORTED_VERSIONS: Final = LEGACY_VERSIONS + MODERN_VERSIONS

_MODERN_BYTES: Final = frozenset(v.encode() for v in MODERN_VERSIONS)


def era_of(protocol_version: bytes | None) -> Era:
    """The era of a request by its ``MCP-Protocol-Version`` header; absent or older means legacy."""
    return ERA_MODERN if protocol_version in _MODERN_BYTES else ERA_LEGACY


# -- methods
INITIALIZE: Final = "initialize"
DISCOVER: Final = "server/discover"
INITIALIZED: Final = "notifications/initialized"
CANCELLED: Final = "notifications/cancelled"
PING: Final = "ping"
TOOLS_LIST: Final = "tools/list"
TOOLS_CALL: Final = "tools/call"
PROMPTS_LIST: Final = "prompts/list"
PROMPTS_GET: Final = "prompts/get"
RESOURCES_LIST: Final = "resources/list"
TEMPLATES_LIST: Final = "resources/templates/list"
RESOURCES_READ: Final = "resources/read"
LISTEN: Final = "subscriptions/listen"
SET_LEVEL: Final = "logging/setLevel"

# -- HTTP headers (lower case, as the wire package gives them)
H_SESSION: Final = b"mcp-session-id"
H_VERSION: Final = b"mcp-protocol-version"
H_METHOD: Final = b"mcp-method"
H_NAME: Final = b"mcp-name"
H_PARAM_PREFIX: Final = b"mcp-param-"
H_LAST_EVENT: Final = b"last-event-id"

# -- _meta keys of the modern era
META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CLIENT_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT_INFO: Final = "io.modelcontextprotocol/clientInfo"
META_LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
META_SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"

# -- error codes: JSON-RPC, then the specification's own
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
URL_ELICITATION_REQUIRED: Final = -32042
"""2025-11-25: the user has to open a URL first; its successor is a result that asks for input."""

# -- error codes of ours, outside the range that JSON-RPC reserves; quarterdeck.errors holds the same numbers
APPROVAL_REQUIRED: Final = 4001
UPSTREAM_FAILED: Final = 4002
DENIED: Final = 4003
TIMED_OUT: Final = 4008
RATE_LIMITED: Final = 4029
