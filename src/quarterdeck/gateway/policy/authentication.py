"""Finding out who calls: workload tokens (ServiceAccount JWTs bound to a Pod), local tokens, anonymous people."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from time import time
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from quarterdeck.errors import QuarterdeckError
from quarterdeck.snapshot import Identities, delegation
from quarterdeck.snapshot.permits import InvalidPermit, Verifier

from .principal import ANONYMOUS, LOCAL_USER, Principal, agent_principal

_ALGORITHMS = ["ES256", "RS256"]
_DELEGATED = delegation.PREFIX.encode()
_CACHE_SECONDS = 60.0
_CACHE_ENTRIES = 10_000
_LEEWAY = 5.0  # seconds of clock difference tolerated on nbf and exp


class Unauthenticated(QuarterdeckError):
    """No or no acceptable credential. ``error`` is the RFC 6750 error code, empty when none was presented."""

    reason = "Unauthorized"
    http_status = 401

    def __init__(self, message: str, error: str = "") -> None:
        super().__init__(message)
        self.error = error


@dataclass(slots=True)
class _Cached:
    principal: Principal
    until: float


class _Pod(msgspec.Struct):
    uid: str = ""
    name: str = ""


class _Kubernetes(msgspec.Struct):
    namespace: str = ""
    pod: _Pod | None = None


class _Claims(msgspec.Struct):
    iss: str = ""
    sub: str = ""
    aud: str | list[str] = []
    exp: float = 0.0
    nbf: float = 0.0
    kubernetes: _Kubernetes | None = msgspec.field(default=None, name="kubernetes.io")


class Authenticator:
    """Verifies callers against the identities of one snapshot; a new snapshot makes a new one, with an empty cache.

    Verified tokens are remembered by their SHA-256 for at most a minute and never past their expiry.
    """

    def __init__(
        self, identities: Identities, clock: Callable[[], float] = time, delegation_keys: tuple[str, ...] = ()
    ) -> None:
        """``delegation_keys``: public keys of the control plane, which may ask in an agent's name."""
        self._identities = identities
        self._delegations = Verifier(delegation_keys)
        self._clock = clock
        self._keys = KeySet.import_key_set(identities.jwks) if identities.jwks.get("keys") else None  # type: ignore[arg-type]  # JSON of the right shape
        self._audiences = frozenset(identities.audiences)
        self._local = frozenset(identities.local_token_hashes)
        self._pods = {uid: agent_principal(agent) for uid, agent in identities.pods.items()}
        self._cache: dict[bytes, _Cached] = {}

    @property
    def alone(self) -> bool:
        """Whether a caller at this machine is the person at it: no workloads run here, or they cannot reach us."""
        return not self._identities.issuer or self._identities.anonymous_local

    def agent_of(self, claims: Mapping[str, Any]) -> Principal | None:
        """The agent whose Pod a verified token of the workloads' issuer is bound to; None for any other token."""
        bound: Any = claims.get("kubernetes.io")
        if not isinstance(bound, dict) or not self._identities.issuer or claims.get("iss") != self._identities.issuer:
            return None
        pod: Any = bound.get("pod")
        return self._pods.get(str(pod.get("uid"))) if isinstance(pod, dict) else None

    def authenticate(self, authorization: bytes | None, *, local: bool, peer: tuple[str, int] | None) -> Principal:
        """The principal of a request. Raises Unauthenticated.

        ``local``: it came in on the listener for people; ``peer``: the remote address, None on a unix socket.
        """
        if authorization is None:
            if local and self._identities.anonymous_local and (peer is None or is_loopback(peer[0])):
                return ANONYMOUS
            raise Unauthenticated("a bearer token is required")
        digest = hashlib.sha256(authorization).digest()
        cached = self._cache.get(digest)
        if cached is not None and self._clock() < cached.until and (local or cached.principal.agent):
            return cached.principal
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Unauthenticated("the Authorization header must be: Bearer TOKEN", "invalid_request")
        now = self._clock()
        principal, expires = self._verify(token.strip(), local, now)
        if len(self._cache) >= _CACHE_ENTRIES:
            self._cache.clear()
        self._cache[digest] = _Cached(principal, min(expires, now + _CACHE_SECONDS))
        return principal

    def holding(self, authorization: bytes | None) -> Callable[[], bool]:
        """Asked for other requests with the same header: whether the caller just found is still who sent it."""
        if authorization is None:
            return lambda: True
        cached = self._cache.get(hashlib.sha256(authorization).digest())
        until, clock = cached.until if cached is not None else 0.0, self._clock
        return lambda: clock() < until

    def _verify(self, token: bytes, local: bool, now: float) -> tuple[Principal, float]:
        if local and self._local and hashlib.sha256(token).hexdigest() in self._local:
            return LOCAL_USER, now + _CACHE_SECONDS
        if token.startswith(_DELEGATED):
            return self._delegated(token, now)
        claims, payload = self._claims(token)
        identities = self._identities
        if claims.iss != identities.issuer:
            raise Unauthenticated(f"the token's issuer is not {identities.issuer!r}", "invalid_token")
        audiences = {claims.aud} if isinstance(claims.aud, str) else set(claims.aud)
        if not audiences & self._audiences:
            wanted = ", ".join(sorted(self._audiences))
            raise Unauthenticated(f"the token is not for audience {wanted}", "invalid_token")
        if claims.exp + _LEEWAY <= now:
            raise Unauthenticated("the token has expired; read the token file again", "invalid_token")
        if claims.nbf > now + _LEEWAY:
            raise Unauthenticated("the token is not valid yet; check the clock", "invalid_token")
        pod = claims.kubernetes.pod if claims.kubernetes is not None else None
        if pod is None or not pod.uid:
            raise Unauthenticated("the token is not bound to a Pod (claim kubernetes.io.pod.uid)", "invalid_token")
        principal = self._pods.get(pod.uid)
        if principal is None:
            raise Unauthenticated(
                f"Pod {pod.name or pod.uid} of {claims.sub or 'the token'} belongs to no Agent of this gateway",
                "invalid_token",
            )
        return replace(principal, claims=payload), claims.exp

    def _delegated(self, token: bytes, now: float) -> tuple[Principal, float]:
        """The control plane in the name of an agent: it follows what the agent may see."""
        try:
            found = delegation.read(self._delegations, token.decode("ascii"), now)
        except (InvalidPermit, UnicodeDecodeError) as error:
            raise Unauthenticated(f"the control plane's token does not count: {error}", "invalid_token") from error
        return agent_principal(found.agent), found.expires

    def _claims(self, token: bytes) -> tuple[_Claims, dict[str, Any]]:
        if self._keys is None:
            raise Unauthenticated("the gateway has no token verification keys yet", "invalid_token")
        try:
            payload: Any = jws.deserialize_compact(token, self._keys, algorithms=_ALGORITHMS).payload
            return msgspec.json.decode(payload, type=_Claims), msgspec.json.decode(payload)
        except (JoseError, ValueError, TypeError, msgspec.DecodeError) as error:  # TypeError: "crit" that is no list
            raise Unauthenticated(f"the token cannot be verified: {error}", "invalid_token") from error


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether an address is of this machine only."""
    return ip_address(host.partition("%")[0]).is_loopback
