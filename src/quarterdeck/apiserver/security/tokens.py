"""Bearer tokens: the admin token, and ServiceAccount tokens bound to audiences and objects (TokenRequest).

Claims follow Kubernetes' ServiceAccount tokens: ``iss``, ``sub``, ``aud``, ``iat``, ``nbf``, ``exp``, ``jti`` and
``kubernetes.io`` with namespace, serviceaccount, and the bound pod, node or secret. A token ends with what it is bound
to: each use checks that the ServiceAccount and the bound object still exist with the same uid.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from quarterdeck.errors import BadRequest, Cause, Conflict, Invalid, NotFound, StorageError, Unauthorized
from quarterdeck.kube.resource import NODE, POD, SECRET, SERVICE_ACCOUNT, Object

from .files import private_dir, read_private, write_private
from .identity import AUTHENTICATED, MASTERS, ObjectReader, User, service_account_user

DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"
MIN_SECONDS = 600
MAX_SECONDS = 1 << 32
LEEWAY = 10.0
_CACHE = 4096
_BOUND = {"Pod": POD, "Node": NODE, "Secret": SECRET}
_EXTRA = "authentication.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that is valid now: whose it is and for which of the asked audiences."""

    user: User
    audiences: tuple[str, ...]
    expires: float


class AdminToken:
    """The token in the admin kubeconfig. The data directory keeps its SHA-256; comparison takes constant time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = read_private(path)
        if self._digest is not None and len(self._digest) != 64:
            raise StorageError(f"{path} is damaged; remove it and the kubeconfig to get a new admin token")

    @property
    def exists(self) -> bool:
        return self._digest is not None

    def renew(self) -> str:
        """Make a new token, the old one ends. Returns the token; it is not stored anywhere else."""
        token = secrets.token_urlsafe(32)
        self._digest = hashlib.sha256(token.encode()).hexdigest().encode()
        private_dir(self._path.parent)
        write_private(self._path, self._digest)
        return token

    def matches(self, token: str) -> bool:
        digest = hashlib.sha256(token.encode()).hexdigest().encode()
        return self._digest is not None and hmac.compare_digest(digest, self._digest)

    def user(self) -> User:
        return User("kubernetes-admin", (MASTERS, AUTHENTICATED))


class ServiceAccountTokens:
    """Signs and verifies ServiceAccount tokens.

    ``api_audiences`` are the audiences the API server itself accepts, by default the issuer. ``clock`` gives Unix time.
    """

    def __init__(
        self,
        key: ECKey,
        reader: ObjectReader,
        *,
        issuer: str = DEFAULT_ISSUER,
        api_audiences: Collection[str] = (),
        clock: Callable[[], float] = time,
    ) -> None:
        self._key = key
        self._reader = reader
        self.issuer = issuer
        self.api_audiences = tuple(api_audiences) or (issuer, "https://kubernetes.default.svc")
        self._clock = clock
        self._cache: OrderedDict[bytes, dict[str, Any]] = OrderedDict()

    def request(self, namespace: str, name: str, body: Object, *, warn_after: float | None = None) -> Object:
        """Answer a TokenRequest for ``serviceaccounts/token``; returns the body with ``status``.

        Raises NotFound when the account or the bound object is missing, Conflict when a uid differs, Invalid for bad
        durations or kinds.
        """
        account = self._reader.get(SERVICE_ACCOUNT, namespace, name)
        if account is None:
            raise NotFound(f'serviceaccounts "{name}" not found', name=name, kind="serviceaccounts")
        spec: dict[str, Any] = body.get("spec") or {}
        seconds = _expiration_seconds(spec, name)
        audiences = [str(a) for a in spec.get("audiences") or ()] or list(self.api_audiences)
        now = int(self._clock())
        claims: dict[str, Any] = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]},
            },
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        self._bind(claims["kubernetes.io"], spec.get("boundObjectRef"), namespace, name)
        if warn_after is not None:
            claims["kubernetes.io"]["warnafter"] = now + int(warn_after)
        token = jwt.encode({"alg": "ES256", "kid": self._key.kid}, claims, self._key, algorithms=["ES256"])
        stamp = _rfc3339(now + seconds)
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": _rfc3339(now)},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds,
                     "boundObjectRef": spec.get("boundObjectRef")},
            "status": {"token": token, "expirationTimestamp": stamp},
        }  # fmt: skip

    def verify(self, token: str, audiences: Collection[str] = ()) -> Verified:
        """The owner of ``token``; empty ``audiences`` means the API server's. Raises Unauthorized with the reason."""
        claims = self._claims(token)
        now = self._clock()
        if claims["exp"] + LEEWAY <= now:
            raise Unauthorized("the token has expired")
        if max(claims.get("nbf", 0), claims.get("iat", 0)) - LEEWAY > now:
            raise Unauthorized("the token is not valid yet")
        wanted = tuple(audiences) or self.api_audiences
        common = tuple(a for a in wanted if a in claims["aud"])
        if not common:
            raise Unauthorized(f"token audiences {claims['aud']} are invalid for the target audiences {list(wanted)}")
        return Verified(self._owner(claims), common, float(claims["exp"]))

    def owns(self, token: str) -> bool:
        """Whether ``token`` has the shape of a JWT at all (three dot-separated parts)."""
        return token.count(".") == 2

    def _claims(self, token: str) -> dict[str, Any]:
        """Signature-checked claims; cached by the token's hash, because the check costs more than all the rest."""
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        cached = self._cache.get(digest)
        if cached is not None:
            self._cache.move_to_end(digest)
            return cached
        if len(token) > 16_384:
            raise Unauthorized("the token is too long")
        try:
            claims: dict[str, Any] = jwt.decode(token, self._key, algorithms=["ES256"]).claims
        except (JoseError, ValueError, TypeError, UnicodeError) as error:
            raise Unauthorized("the token is not one of this server's or was altered") from error
        _check_claims(claims, self.issuer)
        self._cache[digest] = claims
        if len(self._cache) > _CACHE:
            self._cache.popitem(last=False)
        return claims

    def _owner(self, claims: dict[str, Any]) -> User:
        own: dict[str, Any] = claims["kubernetes.io"]
        namespace, account_ref = str(own["namespace"]), own["serviceaccount"]
        account = self._reader.get(SERVICE_ACCOUNT, namespace, account_ref["name"])
        if account is None or account["metadata"].get("uid") != account_ref["uid"]:
            raise Unauthorized("service account token has been invalidated: its service account is gone")
        extra: dict[str, tuple[str, ...]] = {f"{_EXTRA}credential-id": (f"JTI={claims.get('jti', '')}",)}
        for key, resource in (("pod", POD), ("secret", SECRET), ("node", NODE)):
            bound = own.get(key)
            if not bound:
                continue
            # A token for a Pod also names its node; that is information, the node may come back with another uid.
            if key != "node" or "pod" not in own:
                live = self._reader.get(resource, namespace if resource.namespaced else None, bound["name"])
                if live is None or live["metadata"].get("uid") != bound["uid"]:
                    raise Unauthorized(f"service account token has been invalidated: its {key} is gone")
            if key != "secret":
                extra[f"{_EXTRA}{key}-name"] = (bound["name"],)
                if bound.get("uid"):
                    extra[f"{_EXTRA}{key}-uid"] = (bound["uid"],)
        return service_account_user(namespace, account_ref["name"], account_ref["uid"], extra)

    def _bind(self, claims: dict[str, Any], reference: dict[str, Any] | None, namespace: str, account: str) -> None:
        if not reference:
            return
        kind, name, uid = str(reference.get("kind", "")), str(reference.get("name", "")), reference.get("uid") or ""
        resource = _BOUND.get(kind)
        if resource is None or reference.get("apiVersion") not in ("v1", "", None):
            raise BadRequest(
                f"cannot bind token for serviceaccount to object {reference.get('apiVersion')}, Kind={kind}; "
                "use a v1 Pod, Secret or Node"
            )
        live = self._reader.get(resource, namespace if resource.namespaced else None, name)
        if live is None:
            raise NotFound(f'{resource.plural} "{name}" not found', name=name, kind=resource.plural)
        if uid and uid != live["metadata"]["uid"]:
            raise Conflict(
                f'Operation cannot be fulfilled on {resource.plural} "{name}": the UID in the bound object reference '
                f"({uid}) does not match the UID in record. The object might have been deleted and then recreated",
                name=name,
                kind=resource.plural,
            )
        claims[kind.lower()] = {"name": name, "uid": live["metadata"]["uid"]}
        if kind == "Pod":
            self._bind_pod(claims, live, account)

    def _bind_pod(self, claims: dict[str, Any], pod: Object, account: str) -> None:
        spec = pod.get("spec") or {}
        if spec.get("serviceAccountName", "default") != account:
            raise BadRequest(
                f"cannot bind token for serviceaccount {account!r} to pod running with different serviceaccount name."
            )
        node_name = spec.get("nodeName")
        if not node_name:
            return
        node = self._reader.get(NODE, None, node_name)
        claims["node"] = {"name": node_name}
        if node is not None:
            claims["node"]["uid"] = node["metadata"]["uid"]


def _expiration_seconds(spec: dict[str, Any], name: str) -> int:
    seconds = spec.get("expirationSeconds")
    if seconds is None:
        return 3600
    field = "spec.expirationSeconds"
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        message = f"Invalid value: {seconds!r}: must be an integer"
    elif seconds < MIN_SECONDS:
        message = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
    elif seconds > MAX_SECONDS:
        message = f"Invalid value: {seconds}: may not specify a duration larger than 2^32 seconds"
    else:
        return seconds
    raise Invalid(
        f'TokenRequest.authentication.k8s.io "{name}" is invalid: {field}: {message}',
        name=name,
        group="authentication.k8s.io",
        kind="TokenRequest",
        causes=(Cause(field, message),),
    )


def _check_claims(claims: dict[str, Any], issuer: str) -> None:
    own = claims.get("kubernetes.io")
    audiences = claims.get("aud")
    if isinstance(audiences, str):
        claims["aud"] = audiences = [audiences]
    if claims.get("iss") != issuer or not isinstance(claims.get("exp"), int) or not isinstance(audiences, list):
        raise Unauthorized("the token was not issued by this server")
    account = own.get("serviceaccount") if isinstance(own, dict) else None
    if not isinstance(own, dict) or not isinstance(account, dict) or not {"name", "uid"} <= account.keys():
        raise Unauthorized("the token names no service account")
    if claims.get("sub") != f"system:serviceaccount:{own.get('namespace')}:{account['name']}":
        raise Unauthorized("the token's subject does not match its service account")


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
