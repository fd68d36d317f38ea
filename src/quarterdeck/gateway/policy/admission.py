"""What is known of one request while its rules are applied, and what they want changed on the way to the backend."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from quarterdeck.wire.http import Exchange, Header

from .principal import ANYBODY, Principal

if TYPE_CHECKING:
    from ..call import Call
    from ..way import Way
    from .services import Services

_NONE: frozenset[bytes] = frozenset()
_NO_NAMES: frozenset[str] = frozenset()


class Known(NamedTuple):
    """What an admission has found out by the request's head alone: true of the next with the same head.

    ``holds()``: whether its credential is still good.
    """

    services: Services
    path: str | None
    principal: Principal
    token: bytes
    wants_token: bool
    drops: frozenset[bytes]
    cookies: frozenset[str]
    parameters: frozenset[str]
    holds: Callable[[], bool]


class Admission:
    """Kept in :attr:`Exchange.admission` from admission to the end of the response."""

    __slots__ = (
        "admitted", "basic_user", "call", "cookies", "drops", "exchange", "extauthz", "headers", "meter",
        "parameters", "path", "principal", "services", "set", "token", "variables", "wants_token",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, headers: dict[bytes, bytes], services: Services) -> None:
        self.exchange = exchange
        self.services = services
        self.headers = headers
        self.call: Call | None = None
        """The latest of those that the request goes through as."""
        self.path: str | None = None
        """As the router normalised it; None on built-in paths."""
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
        self.drops: frozenset[bytes] = _NONE
        """Headers, cookies and query parameters that are meant for the gateway and go no further."""
        self.cookies: frozenset[str] = _NO_NAMES
        self.parameters: frozenset[str] = _NO_NAMES
        self.set: tuple[Header, ...] = ()
        """Headers that replace those of the request towards the backend."""
        self.meter: Callable[[int], None] | None = None
        """Told how many tokens of a model the answer used, where a limit counts them."""

    @classmethod
    def again(cls, call: Call, known: Known) -> Admission:
        """That of another request with the same head."""
        admission = cls(call.exchange, call.headers, known.services)
        admission.call = call
        admission.admitted = True
        (
            _, admission.path, admission.principal, admission.token, admission.wants_token, admission.drops,
            admission.cookies, admission.parameters, _,
        ) = known  # fmt: skip
        return admission

    def known(self, holds: Callable[[], bool]) -> Known:
        """What may be said of other requests with the same head."""
        return Known(
            self.services,
            self.path,
            self.principal,
            self.token,
            self.wants_token,
            self.drops,
            self.cookies,
            self.parameters,
            holds,
        )

    @property
    def client_address(self) -> str:
        """The caller's address, as far as proxies in front are trusted."""
        return self.services.client_address(self.exchange, self.headers)

    @property
    def secure(self) -> bool:
        """Whether the client speaks TLS, to us or to a trusted proxy in front."""
        return self.services.forwarded(self.exchange, self.headers)[0] == "https"

    @property
    def started(self) -> float:
        """When the request came, by :func:`time.perf_counter`."""
        return self.call.started if self.call is not None else perf_counter()


def admission_of(call: Call) -> Admission | None:
    """What is known of the request that a call came with; None when no rules were applied to it."""
    exchange = call.exchange
    admission: Admission | None = exchange.admission
    if admission is None:
        way: Way | None = getattr(call, "way", None)
        if way is not None and way.routed is not None:
            admission = exchange.admission = Admission.again(call, way.routed.known)
    return admission
