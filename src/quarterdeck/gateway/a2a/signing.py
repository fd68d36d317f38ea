"""Signatures of cards as this gateway serves them: the control plane holds the key, here are copies of what it said."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import msgspec

from quarterdeck.a2atypes import cards
from quarterdeck.errors import QuarterdeckError
from quarterdeck.malformed import MALFORMED

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""``POST /v1/{path}`` at the control plane. Raises QuarterdeckError."""
KEYS = "a2a/.well-known/jwks.json"
"""Path of the JWK Set at the gateway."""
_PATIENCE = 2.0
"""Seconds a card waits for its signature before it goes out without one."""
_PAUSE = 10.0
"""Seconds after a failure in which the control plane is not asked again."""
_KEPT = 512


class CardSigner:
    """``gateway``: ``namespace/name`` of this Gateway. Without ``ask`` cards stay unsigned."""

    def __init__(self, gateway: str, ask: Ask | None = None) -> None:
        self._path = f"gateways/{gateway}/cards"
        self.ask = ask
        self._kept: OrderedDict[bytes, list[Any]] = OrderedDict()
        self._failed_at = float("-inf")
        self._keys: bytes | None = None

    def known(self, card: dict[str, Any]) -> dict[str, Any] | None:
        """The card with its signatures; as it is when nobody can sign; None when the control plane is to be asked."""
        if self.ask is None or monotonic() - self._failed_at < _PAUSE:
            return card
        signatures = self._kept.get(cards.encoded(card))
        return card | {"signatures": signatures} if signatures is not None else None

    async def signed(self, card: dict[str, Any], agent: str, base: str) -> dict[str, Any]:
        """The card with its signatures, or without when they cannot be had soon. ``base``: URL of the gateway."""
        body = msgspec.json.encode({"card": card, "agent": agent, "jku": f"{base}/{KEYS}"})
        try:
            answer = await self._asked("sign", body)
        except (QuarterdeckError, *MALFORMED):
            self._failed_at = monotonic()
            return card
        self._kept[cards.encoded(card)] = answer["signatures"]
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return card | {"signatures": answer["signatures"]}

    async def keys(self) -> bytes | None:
        """The JWK Set that cards are verified with; None when it cannot be had."""
        if self._keys is None and self.ask is not None:
            try:
                self._keys = msgspec.json.encode((await self._asked("keys", b"{}"))["jwks"])
            except (QuarterdeckError, *MALFORMED):
                return None
        return self._keys

    async def _asked(self, what: str, body: bytes) -> dict[str, Any]:
        assert self.ask is not None
        try:
            async with asyncio.timeout(_PATIENCE):
                return msgspec.json.decode(await self.ask(f"{self._path}/{what}", body), type=dict[str, Any])
        except TimeoutError as error:
            raise QuarterdeckError("the control plane does not sign in time") from error
