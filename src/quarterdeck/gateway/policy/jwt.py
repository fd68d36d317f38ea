"""Bearer tokens of configured issuers (RFC 7519): verified once, remembered until they expire or their key goes."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from quarterdeck.errors import QuarterdeckError
from quarterdeck.snapshot.policies import Jwt, JwtProvider

from .authentication import Unauthenticated
from .jwks import KeyStore, VerificationKey
from .principal import Principal
from .services import Services

_LEEWAY = 5.0  # seconds of clock difference tolerated on nbf and exp
_ENTRIES = 10_000
_LONGEST = 16 * 1024
_FOREVER = 1e18


class KeysUnavailable(QuarterdeckError):
    """The issuer's keys have never been read, so no token of it can be verified now."""

    reason = "ServiceUnavailable"
    http_status = 503


class _Header(msgspec.Struct):
    alg: str = ""
    kid: str = ""


class _Issuer(msgspec.Struct):
    iss: str = ""


class _Claims(msgspec.Struct):
    sub: str = ""
    aud: str | list[str] = []
    exp: float | None = None
    nbf: float = 0.0


_header = msgspec.json.Decoder(_Header)
_issuer = msgspec.json.Decoder(_Issuer)
_claims = msgspec.json.Decoder(_Claims)
_object = msgspec.json.Decoder(dict[str, Any])


class _Provider:
    """One issuer as configured, with its keys."""

    __slots__ = ("audiences", "issuer", "name", "required", "store")

    def __init__(self, provider: JwtProvider, store: KeyStore) -> None:
        self.issuer = provider.issuer
        self.name = provider.issuer.partition("://")[2].rstrip("/") or provider.issuer
        self.audiences = frozenset(provider.audiences)
        self.required = provider.required_claims
        self.store = store


@dataclass(slots=True)
class _Verified:
    principal: Principal
    until: float
    store: KeyStore
    generation: int


class JwtVerifier:
    """Verifies tokens by the rules of one :class:`Jwt`."""

    def __init__(self, jwt: Jwt, services: Services, where: str) -> None:
        """Raises ConfigError when keys are given in no usable way."""
        self._clock = services.clock
        self._providers: dict[str, list[_Provider]] = {}
        self._stores: list[KeyStore] = []
        for provider in jwt.providers:
            store = services.keys.of(provider, where)
            self._stores.append(store)
            self._providers.setdefault(provider.issuer, []).append(_Provider(provider, store))
        self._cache: dict[bytes, _Verified] = {}
        self._look_at = 0.0

    def verify(self, token: bytes) -> Principal | Coroutine[Any, Any, Principal]:
        """The caller; a coroutine when the issuer's keys must be looked at first.

        Raises Unauthenticated, KeysUnavailable.
        """
        now = self._clock()
        if now >= self._look_at:
            self._look(now)
        digest = sha256(token).digest()
        cached = self._cache.get(digest)
        if cached is not None:
            if now < cached.until and cached.generation == cached.store.generation:
                return cached.principal
            del self._cache[digest]
        return self._verify(token, digest, now)

    def holding(self, token: bytes) -> Callable[[], bool] | None:
        """Asked again and again: whether what was found out about a token still holds. None: it is not remembered."""
        found = self._cache.get(sha256(token).digest())
        if found is None:
            return None
        clock, until, store, generation = self._clock, found.until, found.store, found.generation

        def holds() -> bool:
            now = clock()
            return now < until and now < self._look_at and store.generation == generation

        return holds

    def _look(self, now: float) -> None:
        for store in self._stores:
            store.look_if_due(now)
        self._look_at = now + 1.0

    def _verify(self, token: bytes, digest: bytes, now: float) -> Principal | Coroutine[Any, Any, Principal]:
        header, issuer = _peek(token)
        providers = self._providers.get(issuer)
        if providers is None:
            raise Unauthenticated("the token's issuer is not one of those accepted here", "invalid_token")
        if any(_unknown_key(provider, header) for provider in providers):
            return self._search(token, digest, header, providers)
        return self._decide(token, digest, header, providers, now)

    async def _search(self, token: bytes, digest: bytes, header: _Header, providers: list[_Provider]) -> Principal:
        """Look for an unknown key where the issuer publishes its keys, then decide."""
        for provider in providers:
            if _unknown_key(provider, header):
                await provider.store.search(header.kid, header.alg)
        return self._decide(token, digest, header, providers, self._clock())

    def _decide(
        self, token: bytes, digest: bytes, header: _Header, providers: list[_Provider], now: float
    ) -> Principal:
        failure: QuarterdeckError = Unauthenticated("the token was signed with an unknown key", "invalid_token")
        for provider in providers:
            keys = provider.store.find(header.kid, header.alg)
            if not keys:
                if not provider.store.loaded:
                    failure = KeysUnavailable(f"the keys of {provider.issuer} cannot be read now; try again")
                continue
            try:
                verified = _verified(token, provider, keys, now)
            except Unauthenticated as error:
                failure = error
                continue
            while len(self._cache) >= _ENTRIES:
                del self._cache[next(iter(self._cache))]
            self._cache[digest] = verified
            return verified.principal
        raise failure


def _unknown_key(provider: _Provider, header: _Header) -> bool:
    return not provider.store.find(header.kid, header.alg) and provider.store.may_search()


def _peek(token: bytes) -> tuple[_Header, str]:
    """Algorithm, key id and issuer as the token says, before anything of it is believed."""
    parts = token.split(b".")
    if len(parts) != 3 or len(token) > _LONGEST:
        raise Unauthenticated("the token is no signed JWT", "invalid_token")
    try:
        return _header.decode(_unpadded(parts[0])), _issuer.decode(_unpadded(parts[1])).iss
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise Unauthenticated("the token is no signed JWT", "invalid_token") from error


def _unpadded(part: bytes) -> bytes:
    return urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _verified(token: bytes, provider: _Provider, keys: list[VerificationKey], now: float) -> _Verified:
    generation = provider.store.generation
    payload = _signed_payload(token, keys)
    try:
        claims = _claims.decode(payload)
        everything = _object.decode(payload)
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise Unauthenticated(f"the token's claims cannot be read: {error}", "invalid_token") from error
    for name in provider.required:
        if name not in everything:
            raise Unauthenticated(f"the token has no claim {name!r}", "invalid_token")
    if provider.audiences:
        audiences = {claims.aud} if isinstance(claims.aud, str) else set(claims.aud)
        if not audiences & provider.audiences:
            raise Unauthenticated("the token is for another audience", "invalid_token")
    if claims.exp is not None and claims.exp + _LEEWAY <= now:
        raise Unauthenticated("the token has expired", "invalid_token")
    if claims.nbf > now + _LEEWAY:
        raise Unauthenticated("the token is not valid yet", "invalid_token")
    subject = claims.sub or f"token-{sha256(token).hexdigest()[:12]}"
    principal = Principal(f"{subject}@{provider.name}", claims=everything, username=claims.sub)
    until = claims.exp + _LEEWAY if claims.exp is not None else _FOREVER
    return _Verified(principal, until, provider.store, generation)


def _signed_payload(token: bytes, keys: list[VerificationKey]) -> bytes:
    problem: Exception | None = None
    for key in keys:
        try:
            return jws.deserialize_compact(token, key.key, algorithms=list(key.algorithms)).payload
        except (JoseError, ValueError, TypeError) as error:  # TypeError: "crit" that is no list
            problem = error
    raise Unauthenticated(f"the token cannot be verified: {problem}", "invalid_token") from problem


def scopes_of(claims: Any) -> frozenset[str]:
    """What a token was granted: ``scope`` (RFC 8693) or ``scp``, as text or list."""
    granted: Any = claims.get("scope", claims.get("scp", ""))
    if isinstance(granted, str):
        return frozenset(granted.split())
    return frozenset(str(s) for s in granted) if isinstance(granted, list) else frozenset()
