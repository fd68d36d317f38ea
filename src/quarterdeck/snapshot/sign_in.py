"""MCP servers at which every user signs in for herself (``auth: oauth``)."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

AuthMethod = Literal["", "none", "client_secret_basic", "client_secret_post", "private_key_jwt"]


class SignIn(Struct, frozen=True, omit_defaults=True):
    """How the gateway is a client of what protects the server. Nothing is needed: it finds out and registers."""

    url: str
    """The server's MCP endpoint, as clients without a gateway know it: the resource that tokens are for."""
    client_id: str = ""
    """Given: a client that somebody registered before."""
    client_secret: str = ""
    private_key: str = ""
    """PEM, for ``private_key_jwt``."""
    auth_method: AuthMethod = ""
    """Towards the token endpoint; empty: what the authorization server prefers of what fits."""
    issuer: str = ""
    """Whom ``client_id`` is registered with; the server must name it. Empty: any authorization server it names."""
    scopes: tuple[str, ...] = ()
    """Asked for in place of those that the server's metadata lists; what a challenge names comes before both."""
    trusted_hosts: tuple[str, ...] = ()
    """Hosts of metadata and authorization servers that may have private addresses, or plain http."""
    label: str = ""
    """What people call the server; empty: its name."""


Kind = Literal["grant", "pending", "flow", "client"]


class Shown(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What people may see of a grant; times are seconds since the epoch."""

    user: str
    server: str
    """``kind/namespace/name``"""
    issuer: str = ""
    scope: str = ""
    granted: float = 0.0
    refreshed: float = 0.0
    expires: float = 0.0
    """When the access token ends; with a refresh token another one follows."""
    refreshable: bool = False


class TokenRequest(Struct, omit_defaults=True, rename="camel"):
    """What a gateway asks of the control plane, which keeps users' grants; ``do``: get, put, take or lease.

    ``after`` is the version that an entry must have, ``until`` when it may be forgotten, ``seconds`` how long a lease
    lasts.
    """

    do: str
    kind: Kind
    user: str
    name: str
    value: bytes = b""
    after: int | None = None
    until: float = 0.0
    seconds: float = 0.0
    shown: Shown | None = None
