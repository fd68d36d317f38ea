"""A request on one of the snapshot's listeners."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.wire.http import Exchange

from ..call import Call
from .paths import Path


@dataclass(frozen=True, slots=True, eq=False)
class RouteRef:
    """Where a request was routed to, as metrics, audit records and access logs name it.

    Compared by identity, so that it is cheap as a part of keys: there is one for each route of a snapshot.
    """

    gateway: str = ""
    listener: str = ""
    route: str = ""
    rule: str = ""
    port: int = 0
    """The port that clients know."""
    named: bool = False
    """Whether only requests for host names of the configuration come here."""


class HttpCall(Call):
    """What the chain decides on, and what a plain HTTP service gets."""

    __slots__ = ("host", "path", "scheme")

    def __init__(self, exchange: Exchange, host: str, path: Path, scheme: str) -> None:
        super().__init__(exchange, "http", "")
        self.method = exchange.method
        self.host = host
        """As the client named it: lower case, without port."""
        self.path = path
        self.scheme = scheme
