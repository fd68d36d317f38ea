"""Tokens for providers that take no key, obtained with what a Secret holds and kept until shortly before they end.

Vertex AI: a service account's JWT for an access token (RFC 7523). Google Distributed Cloud: the same by token exchange.
SAP AI Core: client credentials, and the address of the deployment, which has to be asked for, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import time
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot import ModelAccess
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Header

from ..policy.fetch import origin_of, parse_url
from ..upstream import Upstreams

_EARLY = 60.0  # seconds before a token's end at which another is fetched
_LIFE = 3600
_TIMEOUT = 15.0
_LIMIT = 1024 * 1024  # bytes of an answer
_DISCOVERED = 3600.0  # seconds for which a deployment's address is believed
_MOST = 1000  # tokens kept
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE = "urn:ietf:params:oauth:token-type:token-exchange"  # google-auth's word; RFC 8693 has grant-type


class _Token(Struct):
    access_token: str
    expires_in: float = float(_LIFE)


class _Deployment(Struct, rename="camel"):
    scenario_id: str = ""
    status: str = ""
    deployment_url: str = ""
    created_at: str = ""


class _Deployments(Struct):
    resources: list[_Deployment] = []


@dataclass(slots=True)
class _Kept:
    value: str
    until: float


_Key = tuple[str, ModelAccess]


class Tokens:
    """What was obtained, by the credentials it was obtained with: others begin anew as soon as a Secret changes."""

    def __init__(self, upstreams: Upstreams, clock: Callable[[], float] = time) -> None:
        self._upstreams = upstreams
        self._clock = clock
        self._kept: dict[_Key, _Kept] = {}
        self._asking: dict[_Key, asyncio.Task[_Kept]] = {}

    async def token(self, access: ModelAccess, pool: Pool) -> str:
        """``pool`` has the ModelConfig's own TLS settings. Raises UpstreamError, TimedOut, ConfigError."""
        return await self._once(("token", access), lambda: self._ask(access, pool))

    async def deployment(self, access: ModelAccess, pool: Pool, base_url: str, group: str) -> str:
        """URL of the newest running orchestration deployment of a resource group of SAP AI Core."""
        return await self._once((f"{base_url} {group}", access), lambda: self._find(access, pool, base_url, group))

    def forget(self, access: ModelAccess) -> None:
        """The provider refused what was obtained with these."""
        for key in [key for key in self._kept if key[1] == access]:
            del self._kept[key]

    async def _once(self, key: _Key, obtain: Callable[[], Coroutine[Any, Any, _Kept]]) -> str:
        """Callers that want the same share one question, and its failure: none waits for those of others."""
        kept = self._kept.get(key)
        if kept is None or kept.until <= self._clock():
            task = self._asking.get(key)
            if task is None:
                task = self._asking[key] = asyncio.get_running_loop().create_task(obtain())
                task.add_done_callback(lambda done: self._answered(key, done))
            kept = await asyncio.shield(task)
        return kept.value

    def _answered(self, key: _Key, task: asyncio.Task[_Kept]) -> None:
        self._asking.pop(key, None)
        if task.cancelled() or task.exception() is not None:  # told to those who wait, if there still are any
            return
        if len(self._kept) >= _MOST:
            self._kept.clear()
        self._kept[key] = task.result()

    async def _ask(self, access: ModelAccess, pool: Pool) -> _Kept:
        if access.kind == "client_credentials":
            form = {"grant_type": "client_credentials", "client_id": access.id, "client_secret": access.secret}
            return await self._post(pool, access, urlencode(form).encode(), b"application/x-www-form-urlencoded")
        if access.kind == "google":
            form = {"grant_type": _JWT_BEARER, "assertion": assertion(access, self._clock())}
            plain = self._upstreams.pool(where="token endpoint")  # Google's, whatever stands in front of the model
            return await self._post(plain, access, urlencode(form).encode(), b"application/x-www-form-urlencoded")
        body = {
            "grant_type": _EXCHANGE, "audience": access.audience, "subject_token": assertion(access, self._clock()),
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": "urn:k8s:params:oauth:token-type:serviceaccount",
        }  # fmt: skip
        return await self._post(pool, access, msgspec.json.encode(body), b"application/json")

    async def _post(self, pool: Pool, access: ModelAccess, body: bytes, media: bytes) -> _Kept:
        headers = [(b"content-type", media), (b"accept", b"application/json")]
        data = await _fetch(pool, "POST", access.url, headers, body)
        try:
            token = msgspec.json.decode(data, type=_Token)
        except MALFORMED as error:
            raise UpstreamError(f"{access.url} gave no token: {error}") from None
        if not token.access_token.isascii() or not token.access_token.isprintable():
            raise UpstreamError(f"{access.url} gave no usable token")
        return _Kept(token.access_token, self._clock() + max(token.expires_in - _EARLY, 1.0))

    async def _find(self, access: ModelAccess, pool: Pool, base_url: str, group: str) -> _Kept:
        token = await self.token(access, pool)
        url = f"{base_url.rstrip('/')}/v2/lm/deployments"
        headers = [(b"authorization", f"Bearer {token}".encode()), (b"ai-resource-group", group.encode())]
        data = await _fetch(pool, "GET", url, headers)
        try:
            listed = msgspec.json.decode(data, type=_Deployments).resources
        except MALFORMED as error:
            raise UpstreamError(f"{url} gave no list of deployments: {error}") from None
        running = [d for d in listed if (d.scenario_id, d.status) == ("orchestration", "RUNNING") and d.deployment_url]
        if not running:
            raise UpstreamError(f"{url}: resource group {group} has no running deployment of scenario orchestration")
        newest = max(running, key=lambda deployment: deployment.created_at)
        return _Kept(newest.deployment_url, self._clock() + _DISCOVERED)


def assertion(access: ModelAccess, now: float) -> str:
    """The JWT by which a service account asks for a token. Raises ConfigError when its key cannot sign."""
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, RSAKey

    claims: dict[str, Any] = {
        "iss": access.id, "sub": access.id, "aud": access.url, "iat": int(now), "exp": int(now) + _LIFE,
    }  # fmt: skip
    if access.kind == "google":
        claims["scope"] = access.audience
    name, kind = ("RS256", RSAKey) if access.kind == "google" else ("ES256", ECKey)
    try:
        key = kind.import_key(access.secret)
        header = {"alg": name, "typ": "JWT"} | ({"kid": access.key_id} if access.key_id else {})
        return jwt.encode(header, claims, key, algorithms=[name])
    except (JoseError, ValueError, TypeError, KeyError) as error:  # KeyError: a curve that it does not know
        raise ConfigError(f"the service account's private key cannot sign ({name}): {error}") from None


async def _fetch(pool: Pool, method: str, url: str, headers: list[Header], body: bytes = b"") -> bytes:
    parts = parse_url(url, "token endpoint")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = [(b"host", parts.netloc.encode()), *headers]
    try:
        async with asyncio.timeout(_TIMEOUT):
            response = await pool.request(method, origin_of(parts), target, headers, body, timeout=None)
            data = await response.read(_LIMIT)
    except TimeoutError:
        raise TimedOut(f"{method} {url} took more than {_TIMEOUT:g} s") from None
    if response.status not in (200, 201):
        said = data[:300].decode("utf-8", "replace")
        raise UpstreamError(f"{url} gave HTTP {response.status}: {said}")
    return data
