"""Asking a token endpoint (RFC 6749 §3.2), in each way a client may show who it is."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from secrets import token_urlsafe
from time import time
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from quarterdeck.errors import ConfigError, UpstreamError
from quarterdeck.snapshot.sign_in import AuthMethod
from quarterdeck.wire.http import Header

from ..policy.fetch import Answer

GRANT_ASSERTION = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GRANT_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_DEFAULT_LIFE = 300.0
_ASSERTION_LIFE = 120
_SCOPES = 4096


class Client(Struct, frozen=True, omit_defaults=True):
    """Who the gateway is at one authorization server."""

    id: str = ""
    secret: str = ""
    method: AuthMethod = ""
    """Empty: Basic with a secret, else the id in the body."""
    private_key: str = ""
    issuer: str = ""
    """Audience of assertions; for another server these credentials are not shown."""
    expires: float = 0.0
    """When the secret ends, in seconds since the epoch; 0: it does not."""


class Token(Struct):
    """A token endpoint's answer."""

    access_token: str = ""
    token_type: str = "Bearer"  # noqa: S105 - the name of a type
    expires_in: float = _DEFAULT_LIFE
    refresh_token: str = ""
    scope: str | None = None


class _Problem(Struct):
    error: str = ""
    error_description: str = ""


class TokenRefused(UpstreamError):
    """The token endpoint said no. ``error`` is its code, such as ``invalid_grant``."""

    def __init__(self, message: str, error: str, status: int) -> None:
        super().__init__(message)
        self.error = error
        self.status = status


class Posts(Protocol):
    """Sends a request of the gateway's own."""

    async def request(
        self, method: str, url: str, headers: list[Header] | tuple[Header, ...] = (), body: bytes = b""
    ) -> Answer: ...


async def post(
    fetch: Posts,
    url: str,
    form: Sequence[tuple[str, str]],
    client: Client,
    *,
    clock: Callable[[], float] = time,
) -> Answer:
    """A positive answer. Raises TokenRefused, UpstreamError, TimedOut; ConfigError for a key that cannot sign."""
    headers: list[Header] = [(b"content-type", b"application/x-www-form-urlencoded"), (b"accept", b"application/json")]
    more, shown = _shown(client, url, clock)
    answer = await fetch.request("POST", url, [*headers, *shown], urlencode([*form, *more]).encode())
    if answer.status in (200, 201):
        return answer
    try:
        problem = msgspec.json.decode(answer.body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamError(f"{url} gave HTTP {answer.status} and no token") from None
    text = f"{problem.error} {problem.error_description}".strip()
    raise TokenRefused(f"{url} gave HTTP {answer.status}: {text[:200]}", problem.error, answer.status)


async def ask(
    fetch: Posts,
    url: str,
    form: Sequence[tuple[str, str]],
    client: Client,
    *,
    clock: Callable[[], float] = time,
) -> Token:
    """A token. Raises as :func:`post`."""
    answer = await post(fetch, url, form, client, clock=clock)
    try:
        token = msgspec.json.decode(answer.body, type=Token)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamError(f"{url} gave HTTP {answer.status} and no token: {error}") from error
    for value in (token.access_token, token.refresh_token or "-"):
        if not value or not value.isascii() or not value.isprintable():
            raise UpstreamError(f"{url} gave no usable token")
    if len(token.scope or "") > _SCOPES:
        raise UpstreamError(f"{url} granted scopes of more than {_SCOPES} characters")
    return token


def _shown(client: Client, url: str, clock: Callable[[], float]) -> tuple[list[tuple[str, str]], list[Header]]:
    """Form fields and headers by which the client is known (RFC 6749 §2.3.1, RFC 7523 §2.2)."""
    method = client.method or ("client_secret_basic" if client.secret else "none")
    if method == "private_key_jwt":
        fields = [("client_assertion_type", _CLIENT_ASSERTION), ("client_assertion", assertion(client, url, clock()))]
        return [("client_id", client.id), *fields], []
    if method == "client_secret_basic" and client.secret:
        pair = f"{quote(client.id, safe='')}:{quote(client.secret, safe='')}".encode()
        return [], [(b"authorization", b"Basic " + b64encode(pair))]
    if method == "client_secret_post" and client.secret:
        return [("client_id", client.id), ("client_secret", client.secret)], []
    return [("client_id", client.id)] if client.id else [], []


def assertion(client: Client, url: str, now: float) -> str:
    """A JWT by which the client proves who it is, good for one request (RFC 7523 §3). Raises ConfigError."""
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    claims: dict[str, Any] = {
        "iss": client.id, "sub": client.id, "aud": client.issuer or url, "jti": token_urlsafe(24),
        "iat": int(now), "exp": int(now) + _ASSERTION_LIFE,
    }  # fmt: skip
    for kind in (ECKey, RSAKey, OKPKey):
        try:
            key = kind.import_key(client.private_key)
        except (JoseError, ValueError, TypeError):
            continue
        curve = str(getattr(key, "curve_name", ""))
        name = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "": "RS256"}.get(curve, "EdDSA")
        return jwt.encode({"alg": name, "typ": "JWT"}, claims, key, algorithms=[name])
    raise ConfigError("the private key for private_key_jwt is no PEM of an EC, RSA or Ed25519 key")
