"""The authorization code flow with PKCE, as data: what begins it, what comes back, what it yields (OAuth 2.1 §4.1)."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from secrets import compare_digest, token_urlsafe
from time import time
from urllib.parse import urlencode

from msgspec import Struct

from quarterdeck.errors import UpstreamError
from quarterdeck.snapshot.sign_in import SignIn

from .challenge import Challenge
from .discovery import Found, Server
from .token_endpoint import Client, Posts, Token, TokenRefused, ask, post

_OFFLINE = "offline_access"


class Flow(Struct, frozen=True, omit_defaults=True):
    """A flow that has begun; it is over after one answer."""

    state: str
    verifier: str
    server: Server
    client: Client
    redirect_uri: str
    resource: str
    scope: str = ""


class Grant(Struct, frozen=True, omit_defaults=True):
    """What a user granted. Times are seconds since the epoch."""

    access_token: str
    expires: float
    at: float
    """When the user granted it; refreshing does not change it."""
    client: Client
    server: Server
    resource: str
    refresh_token: str = ""
    scope: str = ""
    """What was granted or, where the server did not say, asked for."""
    refreshed: float = 0.0


class Refused(UpstreamError):
    """An authorization response that must not be used, or that says no."""


def scope_for(found: Found, settings: SignIn, challenge: Challenge, before: Iterable[str] = ()) -> str:
    """The scopes to ask for: what the challenge names, else the configuration, else the metadata, else none.

    ``before``: granted or asked for already; a step-up asks for both (SEP-2350). ``offline_access`` is added where the
    server knows it, so that the user need not come back every hour (SEP-2207).
    """
    if challenge.scope:
        chosen: list[str] | None = challenge.scope.split()
    elif settings.scopes:
        chosen = list(settings.scopes)
    else:
        chosen = list(found.scopes) if found.scopes is not None else None
    if challenge.steps_up:
        chosen = [*before, *(chosen or ())]
    if chosen is None:
        return ""
    if _OFFLINE in (found.server.scopes_supported or ()):
        chosen.append(_OFFLINE)
    return " ".join(dict.fromkeys(chosen))


def begin(found: Found, client: Client, redirect_uri: str, scope: str, state: str = "") -> tuple[str, Flow]:
    """Where the user has to go, and the flow; ``state`` must be nobody else's (default: a random one).

    Raises UpstreamError when the server has no PKCE with S256.
    """
    server = found.server
    if "S256" not in (server.code_challenge_methods_supported or ()):
        raise UpstreamError(
            f"is protected by {server.issuer}, which does not support PKCE with S256: codes are not safe"
        )
    if not server.authorization_endpoint:
        raise UpstreamError(f"is protected by {server.issuer}, which has no authorization endpoint for users")
    flow = Flow(state or token_urlsafe(32), token_urlsafe(48), server, client, redirect_uri, found.resource, scope)
    digest = sha256(flow.verifier.encode()).digest()
    query = [
        ("response_type", "code"),
        ("client_id", client.id),
        ("redirect_uri", redirect_uri),
        ("state", flow.state),
        ("code_challenge", urlsafe_b64encode(digest).rstrip(b"=").decode()),
        ("code_challenge_method", "S256"),
        ("resource", found.resource),
    ]
    if scope:
        query.append(("scope", scope))
    if _OFFLINE in scope.split():
        query.append(("prompt", "consent"))  # OpenID Connect §11 gives it with consent only
    separator = "&" if "?" in server.authorization_endpoint else "?"
    return f"{server.authorization_endpoint}{separator}{urlencode(query)}", flow


def code_of(flow: Flow, response: Mapping[str, str]) -> str:
    """The code of an authorization response, once it is sure that it is an answer to this flow. Raises Refused."""
    if not compare_digest(response.get("state", "").encode(), flow.state.encode()):
        raise Refused("the answer belongs to another sign-in (state)")
    issuer = response.get("iss")
    if issuer is not None and issuer != flow.server.issuer:  # RFC 9207 §2.4: exactly, before anything else is believed
        raise Refused(f"the answer came from {issuer[:200]!r} instead of {flow.server.issuer}")
    if issuer is None and flow.server.authorization_response_iss_parameter_supported:
        raise Refused(f"the answer does not say that it is from {flow.server.issuer}, which always says so")
    if "error" in response:
        text = f"{response['error']} {response.get('error_description', '')}".strip()
        raise Refused(f"the authorization server said: {text[:300]}")
    code = response.get("code", "")
    if not code:
        raise Refused("the answer holds no code")
    return code


async def redeem(fetch: Posts, flow: Flow, code: str, clock: Callable[[], float] = time) -> Grant:
    """Tokens for a code. Raises TokenRefused, UpstreamError, TimedOut."""
    form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", flow.redirect_uri),
        ("code_verifier", flow.verifier),
        ("resource", flow.resource),
    ]
    token = await ask(fetch, flow.server.token_endpoint, form, flow.client, clock=clock)
    now = clock()
    return Grant(
        _bearer(token, flow.server), now + token.expires_in, now, flow.client, flow.server, flow.resource,
        token.refresh_token, flow.scope if token.scope is None else token.scope,
    )  # fmt: skip


async def refresh(fetch: Posts, grant: Grant, clock: Callable[[], float] = time) -> Grant:
    """New tokens for a grant; the refresh token changes when the server rotates it (RFC 6749 §6).

    Raises TokenRefused (``invalid_grant``: the user has to sign in anew), UpstreamError, TimedOut.
    """
    if not grant.refresh_token:
        raise TokenRefused(f"{grant.server.issuer} gave no refresh token", "invalid_grant", 400)
    form = [("grant_type", "refresh_token"), ("refresh_token", grant.refresh_token), ("resource", grant.resource)]
    token = await ask(fetch, grant.server.token_endpoint, form, grant.client, clock=clock)
    now = clock()
    return Grant(
        _bearer(token, grant.server), now + token.expires_in, grant.at, grant.client, grant.server, grant.resource,
        token.refresh_token or grant.refresh_token, grant.scope if token.scope is None else token.scope, now,
    )  # fmt: skip


async def revoke(fetch: Posts, grant: Grant) -> bool:
    """Tell the authorization server that the grant is over (RFC 7009); whether it took it. Raises as a request does."""
    if not grant.server.revocation_endpoint:
        return False
    token, kind = (
        (grant.refresh_token, "refresh_token") if grant.refresh_token else (grant.access_token, "access_token")
    )
    form = [("token", token), ("token_type_hint", kind)]
    try:
        await post(fetch, grant.server.revocation_endpoint, form, grant.client)
    except TokenRefused:
        return False
    return True


def _bearer(token: Token, server: Server) -> str:
    if token.token_type.lower() not in ("bearer", ""):
        raise UpstreamError(f"{server.token_endpoint} gave a token of type {token.token_type[:32]!r}, not Bearer")
    return token.access_token
