"""Agent cards on their way out: addresses become the gateway's, signatures (which no longer fit) are dropped."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

CARD_PATHS = frozenset({"/.well-known/agent-card.json", "/.well-known/agent.json"})


def rewrite(card: bytes, base: str) -> bytes:
    """``base`` is the agent's URL on the gateway, without trailing slash. Raises msgspec.DecodeError."""
    document = msgspec.json.decode(card, type=dict[str, Any])
    document.pop("signatures", None)
    if "url" in document:
        document["url"] = _moved(document["url"], base)
    for key in ("additionalInterfaces", "supportedInterfaces"):
        listed = document.get(key)
        for interface in listed if isinstance(listed, list) else ():
            if isinstance(interface, dict) and "url" in interface:
                interface["url"] = _moved(interface["url"], base)
    return msgspec.json.encode(document)


def _moved(url: Any, base: str) -> str:
    """The same path below ``base``: whatever an agent calls itself, nobody is sent elsewhere."""
    try:
        parts = urlsplit(str(url))
    except ValueError:
        return base
    path = f"/{parts.path.lstrip('/')}" if parts.path.strip("/") else ""
    return base + path + (f"?{parts.query}" if parts.query else "")
