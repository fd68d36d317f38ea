"""What is known of one request while its rules are applied, and what they want changed on the way to the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quarterdeck.wire.http import Exchange, Header

from .principal import ANYBODY, Principal

if TYPE_CHECKING:
    from ..call import Call


class Admission:
    """Kept in :attr:`Exchange.admission` from admission to the end of the response."""

    __slots__ = (
        "admitted", "basic_user", "began", "call", "client_address", "cookies", "drops", "exchange", "extauthz",
        "headers", "parameters", "principal", "secure", "set", "token", "variables", "wants_token",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, headers: dict[bytes, bytes]) -> None:
        self.exchange = exchange
        self.headers = headers
        self.call: Call | None = None
        self.admitted = False
        """Whether some authentication has let the caller in, be it without a credential."""
        self.principal: Principal = ANYBODY
        self.basic_user = ""
        self.token = b""
        """The caller's verified bearer token."""
        self.wants_token = False
        """Whether expressions read ``jwt.rawToken``."""
        self.variables: Any = None
        self.extauthz: dict[str, Any] | None = None
        self.drops: frozenset[bytes] = frozenset()
        """Headers, cookies and query parameters that are meant for the gateway and go no further."""
        self.cookies: frozenset[str] = frozenset()
        self.parameters: frozenset[str] = frozenset()
        self.set: list[Header] = []
        """Headers that replace those of the request towards the backend."""
        self.client_address = ""
        self.secure = False
        self.began = 0.0
