"""The control plane's word to a gateway that a request is made in an agent's name: for what triggers follow.

Signed with the key of the permits, and no permit: the first member tells them apart, so neither passes for the other.
Hosted agents' tool calls need a permit besides, so this allows looking and listening, never calling a tool.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from .permits import LEEWAY, InvalidPermit, Signer, Verifier

PREFIX = "qdt."
"""How such a bearer token begins."""
LIFETIME = 300.0


class Delegation(Struct, frozen=True, array_like=True):
    """``expires`` is in seconds since the epoch."""

    use: Literal["trigger"]
    trigger: str
    """``namespace/name`` of the Trigger."""
    agent: str
    """``namespace/name``."""
    expires: float


def sign(signer: Signer, trigger: str, agent: str, now: float) -> str:
    return PREFIX + signer.sign(Delegation("trigger", trigger, agent, now + LIFETIME))


def read(verifier: Verifier, token: str, now: float) -> Delegation:
    """Raises InvalidPermit."""
    try:
        found = msgspec.json.decode(verifier.payload(token.removeprefix(PREFIX)), type=Delegation)
    except msgspec.DecodeError:
        raise InvalidPermit("it is no delegation") from None
    if now > found.expires + LEEWAY:
        raise InvalidPermit(f"it has expired {now - found.expires:.0f} s ago")
    return found
