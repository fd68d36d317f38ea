"""Agent cards on their way out: addresses become the gateway's, gRPC (which it does not carry) and the agent's own
signatures (which no longer fit) are dropped, and what the gateway asks of callers is declared."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from quarterdeck.a2atypes import CARD_PATHS, cards, modern

__all__ = ["CARD_PATHS", "rewrite"]
_CARRIED = frozenset({cards.JSONRPC, cards.HTTP_JSON})
_BEARER = "A token of the identity provider that this gateway trusts, or of a workload."


def rewrite(card: bytes, base: str, *, bearer: bool = False, translated: bool = False) -> dict[str, Any]:
    """``base`` is the agent's URL on the gateway, without trailing slash; ``bearer``: callers need a token;
    ``translated``: an agent of 0.3 is spoken to in 1.0, too (JSON-RPC).

    Raises msgspec.DecodeError.
    """
    document = msgspec.json.decode(card, type=dict[str, Any])
    document.pop("signatures", None)
    for key, binding in (("supportedInterfaces", "protocolBinding"), ("additionalInterfaces", "transport")):
        given = document.get(key)
        if isinstance(given, list):
            document[key] = [_moved_interface(each, base) for each in given if _carried(each, binding)]
    if "url" in document:
        document["url"] = _moved(document["url"], base)
        _prefer_carried(document)
        at_base = document["url"] == base and document.get("preferredTransport", cards.JSONRPC) == cards.JSONRPC
        if translated and at_base and modern.speaks(document) == "0.3":
            interface = {"url": base, "protocolBinding": cards.JSONRPC, "protocolVersion": "1.0"}
            document["supportedInterfaces"] = [interface]
    return cards.with_bearer(document, _BEARER) if bearer else document


def _carried(interface: Any, member: str) -> bool:
    return isinstance(interface, dict) and str(interface.get(member, cards.JSONRPC)) in _CARRIED


def _moved_interface(interface: dict[str, Any], base: str) -> dict[str, Any]:
    return interface | {"url": _moved(interface.get("url", ""), base)}


def _prefer_carried(card: dict[str, Any]) -> None:
    """An agent of 0.3 that prefers gRPC is reached in the next way that it names."""
    if str(card.get("preferredTransport", cards.JSONRPC)) in _CARRIED:
        return
    others = card.get("additionalInterfaces")
    first = others[0] if isinstance(others, list) and others else {"url": card["url"]}
    card["url"], card["preferredTransport"] = first["url"], first.get("transport", cards.JSONRPC)


def _moved(url: Any, base: str) -> str:
    """The same path below ``base``: whatever an agent calls itself, nobody is sent elsewhere."""
    try:
        parts = urlsplit(str(url))
    except ValueError:
        return base
    path = f"/{parts.path.lstrip('/')}" if parts.path.strip("/") else ""
    return base + path + (f"?{parts.query}" if parts.query else "")
