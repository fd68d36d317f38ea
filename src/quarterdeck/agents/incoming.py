"""What every way into the agent needs of an HTTP request: its body, bounded, and who sends it."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request

from quarterdeck.wire.text import of_header

from .a2a.core import Caller
from .credentials import ACTING_FOR, FORWARD, FORWARDED_KEY, acting_for, forwarded, forwarded_key, trace_parent

BODY_LIMIT = 4 * 1024 * 1024
DEFAULT_USER = "admin@kagent.dev"
PRINCIPAL = "x-quarterdeck-principal"
BASE = "x-quarterdeck-base"
"""URL of the agent at the gateway, without a slash at its end."""

Identify = Callable[[Request], Caller]


def gateway_caller(request: Request) -> Caller:
    """Who the gateway says it is: only it can reach the agent's Pod."""
    principal = request.headers.get(PRINCIPAL, "")
    user = of_header(request.headers.get("x-user-id", "").encode("latin-1")) or DEFAULT_USER
    return Caller(user, bool(principal) and not principal.startswith("anonymous"))


def base_of(request: Request) -> str:
    """Where the client found the agent: at the gateway, or here."""
    return request.headers.get(BASE, "") or str(request.base_url)


async def body_of(request: Request) -> bytes | None:
    """The body, or None when it is too large."""
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_LIMIT:
            return None
        parts.append(chunk)
    return b"".join(parts)


def told(request: Request) -> None:
    """What the gateway says of the request goes with all calls that are made because of it."""
    trace_parent.set(request.headers.get("traceparent", ""))
    acting_for.set(request.headers.get(ACTING_FOR, ""))
    forwarded_key.set(request.headers.get(FORWARDED_KEY, ""))
    names = [name for name in request.headers if name.startswith(FORWARD) and name != FORWARDED_KEY]
    forwarded.set({name.removeprefix(FORWARD): request.headers[name] for name in names[:100]})
