"""What clients of one listener may make the gateway hold at a time."""

from __future__ import annotations

from quarterdeck.wire.http import Limits

BODY = 4 * 1024 * 1024
"""Bytes of one request body where no rule says more."""
TOGETHER = 256 * 1024 * 1024
"""Bytes of all bodies that are being read or worked on, and of all answers that slow clients have not taken."""

CONNECTIONS = 20_000
"""Of clients, open at a time on one listener; each may have one to a server behind it."""

SLOW = 60.0
"""Seconds a client may leave what it is sent untouched."""


def listener(max_body: int = BODY) -> Limits:
    """Bounds of a listener whose largest permitted body has ``max_body`` bytes."""
    together = max(TOGETHER, 4 * max_body)
    return Limits(
        body_bytes=max_body,
        bodies_bytes=together,
        unsent_bytes=together,
        write_timeout=SLOW,
        connections=CONNECTIONS,
    )
