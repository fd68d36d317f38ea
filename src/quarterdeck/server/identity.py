"""Who calls the control plane's REST APIs: agents and gateways by their ServiceAccount token, people by theirs.

Tokens are checked by the Kubernetes API (TokenReview, SubjectAccessReview), so that the same code is right on a laptop
and in a cluster. Results are kept for up to a minute, keyed by the token's digest.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from quarterdeck.errors import Forbidden, Unauthorized
from quarterdeck.kube.client import KubeClient

AUDIENCE = "quarterdeck"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_KEPT = 60.0
_ENTRIES = 4096
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified caller. ``agent`` is ``namespace/name`` when the token's Pod belongs to an Agent; ``pod`` its name."""

    name: str
    groups: tuple[str, ...]
    agent: str | None
    pod: str = ""


class Identity:
    """Verifies bearer tokens. ``agent_of_pod`` maps a Pod UID to the Agent that owns it."""

    def __init__(self, client: KubeClient, agent_of_pod: Callable[[str], str | None]) -> None:
        self._client = client
        self._agent_of_pod = agent_of_pod
        self._reviews: OrderedDict[tuple[str, str], tuple[float, dict[str, Any]]] = OrderedDict()
        self._access: OrderedDict[tuple[str, str, str, str], tuple[float, bool]] = OrderedDict()

    async def workload(self, authorization: str) -> Caller:
        """A Pod by its projected token (audience ``quarterdeck``). Raises Unauthorized."""
        user = await self._review(authorization, AUDIENCE)
        uid = next(iter(user.get("extra", {}).get(_POD_UID, [])), "")
        pod = next(iter(user.get("extra", {}).get(_POD_NAME, [])), "")
        return Caller(user["username"], tuple(user.get("groups", ())), self._agent_of_pod(uid) if uid else None, pod)

    async def agent(self, authorization: str) -> str:
        """The agent behind a token. Raises Forbidden when the Pod belongs to none."""
        caller = await self.workload(authorization)
        if caller.agent is None:
            raise Forbidden(f"{caller.name} is no agent's Pod; only Pods that an Agent owns may use this API")
        return caller.agent

    async def person(self, authorization: str, verb: str, resource: str) -> Caller:
        """Somebody with a Kubernetes API token who may ``verb`` the ``quarterdeck.dev`` resource. Raises Forbidden."""
        user = await self._review(authorization, "")
        caller = Caller(user["username"], tuple(user.get("groups", ())), None)
        if not await self._allowed(user, verb, resource):
            raise Forbidden(f'User "{caller.name}" cannot {verb} resource "{resource}" in API group "quarterdeck.dev"')
        return caller

    async def _review(self, authorization: str, audience: str) -> dict[str, Any]:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("a bearer token is needed: Authorization: Bearer …")
        key = (hashlib.sha256(token.encode()).hexdigest(), audience)
        kept = self._reviews.get(key)
        if kept is None or monotonic() - kept[0] > _KEPT:
            spec: dict[str, Any] = {"token": token}
            if audience:
                spec["audiences"] = [audience]
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
            answer = await self._client.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=review)
            kept = (monotonic(), answer.get("status", {}))
            _keep(self._reviews, key, kept)
        status = kept[1]
        if not status.get("authenticated"):
            raise Unauthorized(f"the token is not valid here{': ' + status['error'] if status.get('error') else ''}")
        return status["user"]

    async def _allowed(self, user: dict[str, Any], verb: str, resource: str) -> bool:
        key = (str(user["username"]), ",".join(user.get("groups", ())), verb, resource)
        kept = self._access.get(key)
        if kept is None or monotonic() - kept[0] > _KEPT:
            review = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {
                    "user": user["username"],
                    "groups": user.get("groups", []),
                    "resourceAttributes": {"group": "quarterdeck.dev", "resource": resource, "verb": verb},
                },
            }
            answer = await self._client.request(
                "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review
            )
            kept = (monotonic(), bool(answer.get("status", {}).get("allowed")))
            _keep(self._access, key, kept)
        return kept[1]


def _keep(cache: OrderedDict[K, V], key: K, value: V) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > _ENTRIES:
        cache.popitem(last=False)
