"""Who the gateway is at an authorization server: registered before, by a document at a URL of ours, or on the spot.

In this order: the client of the configuration; a Client ID Metadata Document, where the server takes those; dynamic
registration (RFC 7591). Credentials belong to the issuer that gave them and are shown to no other.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from quarterdeck.errors import UpstreamError
from quarterdeck.snapshot.sign_in import AuthMethod, SignIn

from .discovery import Fetch, Server
from .guard import is_loopback_host
from .token_endpoint import Client

_METHODS: tuple[AuthMethod, ...] = ("client_secret_basic", "client_secret_post", "none")
_KNOWN: dict[str, AuthMethod] = {method: method for method in (*_METHODS, "private_key_jwt")}


class Identity(Struct, frozen=True):
    """The gateway as authorization servers see it."""

    redirect_uri: str
    name: str = "Quarterdeck"
    metadata_url: str = ""
    """Where the document that describes it can be read; only one with https and a path is a client id."""

    @property
    def application_type(self) -> str:
        """``web`` unless the redirect leads to this machine (OpenID Connect Registration §2)."""
        parts = urlsplit(self.redirect_uri)
        return "native" if is_loopback_host(parts.hostname or "") or parts.scheme != "https" else "web"

    def document(self, client_id: str = "") -> dict[str, Any]:
        """Client metadata (RFC 7591 §2); ``client_id`` when it is read at that URL."""
        described: dict[str, Any] = {
            "client_name": self.name,
            "redirect_uris": [self.redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "application_type": self.application_type,
            "token_endpoint_auth_method": "none",
        }
        return {"client_id": client_id, **described} if client_id else described


class _Registered(Struct):
    client_id: str
    client_secret: str = ""
    client_secret_expires_at: float = 0.0
    token_endpoint_auth_method: str = ""


def configured(settings: SignIn, server: Server) -> Client | None:
    """The client of the configuration. Raises UpstreamError when it is registered elsewhere."""
    if not settings.client_id:
        return None
    if settings.issuer and settings.issuer != server.issuer:
        raise UpstreamError(f"is protected by {server.issuer}; the configured client is one of {settings.issuer}")
    method = settings.auth_method or ("private_key_jwt" if settings.private_key else "")
    secret = settings.client_secret
    return Client(settings.client_id, secret, method or method_of(server, secret), settings.private_key, server.issuer)


def documented(identity: Identity, server: Server) -> Client | None:
    """The client that a document of ours describes, where the server reads such."""
    parts = urlsplit(identity.metadata_url)
    if not server.client_id_metadata_document_supported or parts.scheme != "https" or parts.path in ("", "/"):
        return None
    return Client(identity.metadata_url, method="none", issuer=server.issuer)


async def register(fetch: Fetch, server: Server, identity: Identity, scope: str = "") -> Client:
    """A new client (RFC 7591). Raises UpstreamError, TimedOut."""
    if not server.registration_endpoint:
        raise UpstreamError(
            f"is protected by {server.issuer}, where clients cannot register themselves: register one with the "
            f"redirect URI {identity.redirect_uri} and name it in clientId of the server's oauth settings"
        )
    wanted = identity.document() | {"token_endpoint_auth_method": method_of(server, "will be given")}
    if scope:
        wanted["scope"] = scope
    fetch.check(server.registration_endpoint, "registration endpoint")
    answer = await fetch.request(
        "POST",
        server.registration_endpoint,
        [(b"content-type", b"application/json"), (b"accept", b"application/json")],
        msgspec.json.encode(wanted),
    )
    if answer.status not in (200, 201):
        text = answer.body[:200].decode("utf-8", "replace")
        raise UpstreamError(f"{server.registration_endpoint} gave HTTP {answer.status} for a registration: {text}")
    try:
        given = msgspec.json.decode(answer.body, type=_Registered)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamError(f"{server.registration_endpoint} answered with no client: {error}") from error
    if given.token_endpoint_auth_method and given.token_endpoint_auth_method not in _METHODS:
        raise UpstreamError(
            f"{server.registration_endpoint} registered a client that must use "
            f"{given.token_endpoint_auth_method[:64]}, which was not asked for"
        )
    method = _KNOWN.get(given.token_endpoint_auth_method) or method_of(server, given.client_secret)
    return Client(
        given.client_id, given.client_secret, method, issuer=server.issuer, expires=given.client_secret_expires_at
    )


def method_of(server: Server, secret: str) -> AuthMethod:
    """How to show a client with that secret; RFC 8414: without a list it is Basic."""
    supported = server.token_endpoint_auth_methods_supported
    offered = supported if supported is not None else ("client_secret_basic",)
    for method in _METHODS:
        if method in offered and (bool(secret) or method == "none"):
            return method
    return "client_secret_basic" if secret and not offered else "none"
