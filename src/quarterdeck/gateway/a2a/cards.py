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
        for interface in document.get(key) or ():
            if isinstance(interface, dict) and "url" in interface:
                interface["url"] = _moved(interface["url"], base)
    return msgspec.json.encode(document)


def _moved(url: Any, base: str) -> str:
    parts = urlsplit(str(url))
    path = parts.path if parts.path != "/" else ""
    return base + path + (f"?{parts.query}" if parts.query else "")
