"""Who may call the kubelet API: client certificates and bearer tokens, asked of the API server as a kubelet does.

A certificate of the cluster's CA or a TokenReview says who it is; a SubjectAccessReview on ``nodes/<subresource>`` says
whether they may (kubelet's authorization mode Webhook). ``system:masters`` are never asked about.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quarterdeck.errors import ApiError, Forbidden, QuarterdeckError, Unauthorized
from quarterdeck.kube.client import KubeClient
from quarterdeck.wire.http import Exchange

_MASTERS = "system:masters"
_KEPT = 1024
_ALLOWED_SECONDS, _DENIED_SECONDS, _TOKEN_SECONDS = 300.0, 30.0, 120.0
"""kubelet's --authorization-webhook-cache-authorized-ttl, -unauthorized-ttl and --authentication-token-webhook…."""
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Caller:
    """As the API server knows them."""

    name: str
    groups: tuple[str, ...]
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """What else is known of a token: authorizers may grant it less than its user."""


def certificate_caller(certificate: dict[str, Any]) -> Caller:
    """CN is the name, each O a group; ``certificate`` is what ``ssl.SSLSocket.getpeercert`` returns."""
    pairs = [pair for rdn in certificate.get("subject") or () for pair in rdn]
    name = next((value for key, value in pairs if key == "commonName"), "")
    return Caller(name, (*(v for k, v in pairs if k == "organizationName"), "system:authenticated"))


def verb_of(method: str, path: str) -> str:
    """What a request does; running commands is ``create`` also where a WebSocket begins it with GET."""
    runs = path.strip("/").partition("/")[0] in ("exec", "attach", "portForward")
    return "create" if runs else _VERBS.get(method, method.lower())


def subresource(path: str) -> str:
    """What of a Node a path of the kubelet API stands for (kubelet's authorizer attributes)."""
    return {"stats": "stats", "metrics": "metrics", "logs": "log"}.get(path.strip("/").partition("/")[0], "proxy")


class _Kept:
    """Answers by key, each for a while, the oldest forgotten first."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._entries: OrderedDict[tuple[str, ...], tuple[float, Any]] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> Any:
        until, value = self._entries.get(key, (0.0, None))
        return value if self._now() < until else None

    def put(self, key: tuple[str, ...], value: Any, seconds: float) -> None:
        self._entries[key] = (self._now() + seconds, value)
        self._entries.move_to_end(key)
        if len(self._entries) > _KEPT:
            self._entries.popitem(last=False)


class Access:
    """Answers for one node. ``now`` gives monotonic seconds."""

    def __init__(self, client: KubeClient, node: str, now: Callable[[], float]) -> None:
        self._client = client
        self._node = node
        self._callers = _Kept(now)
        self._decisions = _Kept(now)

    async def check(self, exchange: Exchange) -> None:
        """Raises Unauthorized or Forbidden, and UpstreamError when the API server cannot be asked."""
        caller = await self._caller(exchange)
        verb, what = verb_of(exchange.method, exchange.path), subresource(exchange.path)
        if _MASTERS not in caller.groups and not await self._allowed(caller, verb, what):
            raise Forbidden(
                f"user {caller.name} may not {verb} nodes/{what} of node {self._node}: bind a ClusterRole that does"
            )

    async def _caller(self, exchange: Exchange) -> Caller:
        certificate = exchange.peer_certificate
        if certificate is not None:
            return certificate_caller(certificate)
        scheme, _, token = (exchange.header(b"authorization") or b"").decode("latin-1").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("the kubelet API needs a client certificate of the cluster's CA, or a bearer token")
        return await self._of_token(token.strip())

    async def _of_token(self, token: str) -> Caller:
        key = (hashlib.sha256(token.encode()).hexdigest(),)
        known: Caller | None = self._callers.get(key)
        if known is None:
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
            status = await self._ask("/apis/authentication.k8s.io/v1/tokenreviews", review)
            if not status.get("authenticated"):
                raise Unauthorized("the bearer token is not valid for the API server")
            user: dict[str, Any] = status.get("user") or {}
            extra = tuple(sorted((key, tuple(values)) for key, values in (user.get("extra") or {}).items()))
            known = Caller(str(user.get("username", "")), tuple(user.get("groups") or ()), extra)
            self._callers.put(key, known, _TOKEN_SECONDS)
        return known

    async def _allowed(self, caller: Caller, verb: str, what: str) -> bool:
        key = (caller.name, repr(caller.groups), repr(caller.extra), verb, what)
        known: bool | None = self._decisions.get(key)
        if known is None:
            review = {
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {"user": caller.name, "groups": list(caller.groups),
                    "extra": {key: list(values) for key, values in caller.extra}, "resourceAttributes": {
                    "version": "v1", "resource": "nodes", "subresource": what, "verb": verb, "name": self._node}},
            }  # fmt: skip
            status = await self._ask("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
            known = bool(status.get("allowed"))
            self._decisions.put(key, known, _ALLOWED_SECONDS if known else _DENIED_SECONDS)
        return known

    async def _ask(self, path: str, review: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = await self._client.request("POST", path, body=review)
        except QuarterdeckError as error:
            raise ApiError(f"who may call the kubelet API cannot be asked at the moment: {error}", code=503) from error
        return answer.get("status") or {}
