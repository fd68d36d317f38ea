"""What gateway and control plane say about a request to ``/hooks/NAMESPACE/TRIGGER``; the latter proves who sent it."""

from __future__ import annotations

from msgspec import Struct

LARGEST = 1024 * 1024
"""Bytes of a body that a gateway passes on; triggers may take less."""
HEADERS, HEADER = 64, 4096
"""Headers that are passed on, and characters of one."""


class Forwarded(Struct, frozen=True, rename="camel"):
    """``POST /v1/hooks/NAMESPACE/TRIGGER``. Names of headers are in lower case; ``gateway`` is ``namespace/name``."""

    gateway: str
    headers: dict[str, str]
    body: bytes


class Told(Struct, frozen=True, rename="camel", omit_defaults=True):
    """The answer that the sender gets: HTTP status, and what came of it."""

    status: int
    outcome: str = ""
    message: str = ""
    run: str = ""
    retry_after: int = 0
