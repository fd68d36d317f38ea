"""The gateway as an OAuth client: discovery, registration, authorization code with PKCE, refresh; users' tokens.

Specification: MCP 2026-07-28 and 2025-11-25, basic/authorization; RFC 6749, 7591, 7636, 8414, 8707, 9207, 9728.
"""

SIGN_IN_PAGES = b"/.quarterdeck/oauth/"
"""Where browsers sign in, on every port of the gateway."""
