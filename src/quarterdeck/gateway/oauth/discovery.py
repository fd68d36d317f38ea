"""Who protects a server, and how to talk to it: protected-resource and authorization-server metadata.

RFC 9728 (the challenge's URL, then the well-known paths), RFC 8414 and OpenID Connect Discovery, each with the path
inserted and the latter appended as well; without resource metadata the server's own origin is the issuer, as in
revision 2025-03-26.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Struct

from quarterdeck.errors import UpstreamError

from ..policy.fetch import Answer
from .challenge import Challenge

_RESOURCE = "/.well-known/oauth-protected-resource"
_OAUTH = "/.well-known/oauth-authorization-server"
_OPENID = "/.well-known/openid-configuration"
_LONGEST = 2048
_MOST = 64

T = TypeVar("T", "Resource", "Server")


class Fetch(Protocol):
    """:class:`~.guard.GuardedFetcher`, or one that is not guarded."""

    async def request(
        self,
        method: str,
        url: str,
        headers: list[tuple[bytes, bytes]] | tuple[tuple[bytes, bytes], ...] = (),
        body: bytes = b"",
        *,
        timeout: float = 5.0,
        limit: int = ...,
    ) -> Answer: ...
    def check(self, url: str, what: str) -> SplitResult: ...


class Resource(Struct, frozen=True):
    """Metadata of a protected resource (RFC 9728 §2)."""

    resource: str
    authorization_servers: tuple[str, ...] = ()
    scopes_supported: tuple[str, ...] | None = None


class Server(Struct, frozen=True, omit_defaults=True):
    """Metadata of an authorization server (RFC 8414 §2)."""

    issuer: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    registration_endpoint: str = ""
    revocation_endpoint: str = ""
    scopes_supported: tuple[str, ...] | None = None
    grant_types_supported: tuple[str, ...] | None = None
    code_challenge_methods_supported: tuple[str, ...] | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] | None = None
    authorization_response_iss_parameter_supported: bool = False
    client_id_metadata_document_supported: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What protects a server. ``resource`` is what tokens are asked for (RFC 8707)."""

    resource: str
    server: Server
    scopes: tuple[str, ...] | None = None
    """Those that the resource's metadata lists; None: it lists none."""


async def find(fetch: Fetch, url: str, challenge: Challenge, issuer: str = "") -> Found:
    """What protects the MCP endpoint at ``url``. ``issuer``: the only authorization server that will do.

    Raises UpstreamError, TimedOut.
    """
    resource = await _resource(fetch, url, challenge)
    if resource is None:
        return Found(url, await _fallback(fetch, url, issuer))
    listed = resource.authorization_servers
    if not listed:
        raise UpstreamError("names no authorization server in its metadata")
    if issuer and issuer not in listed:
        raise UpstreamError(f"does not name {issuer} among its authorization servers: {', '.join(listed)[:300]}")
    server = await _server(fetch, issuer or listed[0])
    if server is None:
        raise UpstreamError(f"names authorization server {issuer or listed[0]}, which publishes no metadata")
    return Found(resource.resource, server, resource.scopes_supported)


async def _resource(fetch: Fetch, url: str, challenge: Challenge) -> Resource | None:
    """The resource's metadata; None when it publishes none."""
    parts = urlsplit(url)
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    candidates = [challenge.resource_metadata] if challenge.resource_metadata else []
    candidates += [base + _RESOURCE + path, base + _RESOURCE] if path else [base + _RESOURCE]
    for candidate in candidates:
        found = await _document(fetch, candidate, Resource, "resource metadata")
        if found is not None:
            if not _covers(found.resource, url):
                raise UpstreamError(
                    f"has metadata of another resource: {found.resource[:300]!r} instead of {url}; "
                    "no token is asked for, as somebody else could use it"
                )
            return found
    return None


async def _server(fetch: Fetch, issuer: str) -> Server | None:
    parts = fetch.check(issuer, "authorization server")
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    candidates = [base + _OAUTH + path, base + _OPENID + path]
    if path:
        candidates.append(base + path + _OPENID)
    for candidate in candidates:
        found = await _document(fetch, candidate, Server, "authorization server metadata")
        if found is not None:
            return _checked(fetch, found, issuer)
    return None


async def _fallback(fetch: Fetch, url: str, issuer: str) -> Server:
    """Revision 2025-03-26: the server's origin is the authorization server, at its default paths if need be."""
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.netloc}"
    if issuer:
        found = await _server(fetch, issuer)
        if found is None:
            raise UpstreamError(f"has no metadata, and neither has its issuer {issuer}")
        return found
    found = await _document(fetch, base + _OAUTH, Server, "authorization server metadata")
    if found is not None:
        return _checked(fetch, found, f"{base}/" if found.issuer == f"{base}/" else base)
    return Server(
        base, f"{base}/authorize", f"{base}/token", f"{base}/register", code_challenge_methods_supported=("S256",)
    )


def _checked(fetch: Fetch, server: Server, issuer: str) -> Server:
    """Metadata that may be used. Raises UpstreamError."""
    if server.issuer != issuer:  # RFC 8414 §3.3: identical, or somebody stands in for it
        raise UpstreamError(f"has an authorization server {issuer} whose metadata is of {server.issuer[:300]!r}")
    if not server.token_endpoint:
        raise UpstreamError(f"has an authorization server {issuer} without a token endpoint")
    for what in ("authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint"):
        url: str = getattr(server, what)
        if len(url) > _LONGEST:
            raise UpstreamError(f"has an authorization server with a {what} of {len(url)} characters")
        if url:
            fetch.check(url, what)
    return server


async def _document(fetch: Fetch, url: str, kind: type[T], what: str) -> T | None:
    """A metadata document; None when there is none at ``url``."""
    fetch.check(url, what)
    answer = await fetch.request("GET", url, [(b"accept", b"application/json")])
    if answer.status >= 500 or answer.status == 429:
        raise UpstreamError(f"its {what} cannot be had now: GET {url} gave HTTP {answer.status}")
    if answer.status != 200:
        return None
    try:
        found = msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # another document is served there: the next path may have the right one
    lists = (found.scopes_supported, getattr(found, "authorization_servers", ()))
    if any(entries is not None and len(entries) > _MOST for entries in lists):
        raise UpstreamError(f"lists more than {_MOST} entries in its {what}")
    return found


def _covers(resource: str, url: str) -> bool:
    """Whether a token for ``resource`` is one for ``url``: same origin, and its path or one above it (RFC 8707)."""
    wanted, given = urlsplit(url), urlsplit(resource)
    if (given.scheme.lower(), _host(given)) != (wanted.scheme.lower(), _host(wanted)) or given.fragment:
        return False
    above = given.path.rstrip("/")
    return wanted.path.rstrip("/") == above or wanted.path.startswith(f"{above}/")


def _host(parts: SplitResult) -> tuple[str, int]:
    try:
        port = parts.port
    except ValueError:
        port = 0
    return (parts.hostname or "").lower(), port or (443 if parts.scheme.lower() == "https" else 80)
