"""Who calls the control plane's REST APIs: agents and gateways by their ServiceAccount token, people by theirs.

``reviews`` says how tokens are checked. Results are kept for up to a minute, keyed by the token's digest.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from quarterdeck.errors import Forbidden, Unauthorized

from .reviews import POD_NAME, POD_UID, Reviews, User

AUDIENCE = "quarterdeck"
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
    """Verifies bearer tokens. ``agent_of_pod`` maps a Pod UID to the Agent that owns it; ``serves`` says whether a
    gateway (``namespace/name``) is one that we configure."""

    def __init__(
        self, reviews: Reviews, agent_of_pod: Callable[[str], str | None], serves: Callable[[str], bool]
    ) -> None:
        self._reviews = reviews
        self._agent_of_pod = agent_of_pod
        self._serves = serves
        self._workloads: OrderedDict[str, tuple[float, User | Unauthorized]] = OrderedDict()
        self._people: OrderedDict[tuple[str, str, str], tuple[float, tuple[User, bool] | Unauthorized]] = OrderedDict()

    async def workload(self, authorization: str) -> Caller:
        """A Pod by its projected token (audience ``quarterdeck``). Raises Unauthorized."""
        token = _bearer(authorization)
        user = await _remembered(self._workloads, _digest(token), lambda: self._reviews.workload(token, AUDIENCE))
        extra = user.get("extra") or {}
        uid, pod = next(iter(extra.get(POD_UID, [])), ""), next(iter(extra.get(POD_NAME, [])), "")
        return Caller(user["username"], tuple(user.get("groups", ())), self._agent_of_pod(uid) if uid else None, pod)

    async def agent(self, authorization: str) -> str:
        """The agent behind a token. Raises Forbidden when the Pod belongs to none."""
        caller = await self.workload(authorization)
        if caller.agent is None:
            raise Forbidden(f"{caller.name} is no agent's Pod; only Pods that an Agent owns may use this API")
        return caller.agent

    async def gateway(
        self, authorization: str, namespace: str, name: str, *, configured: bool = True
    ) -> tuple[str, str]:
        """``namespace/name`` of a Gateway and the replica (Pod). Raises Forbidden for all but its ServiceAccount, and
        for one that no Gateway of ours has; where not ``configured``, it may have been one, or become one."""
        caller = await self.workload(authorization)
        if caller.agent is not None or caller.name != f"system:serviceaccount:{namespace}:{name}":
            who = caller.agent or caller.name
            raise Forbidden(f"{who} is not the ServiceAccount {namespace}/{name} of that Gateway")
        if configured and not self._serves(f"{namespace}/{name}"):
            raise Forbidden(f"{namespace}/{name} is no Gateway that is configured here")
        return f"{namespace}/{name}", caller.pod

    async def person(self, authorization: str, verb: str, resource: str, namespace: str = "") -> Caller:
        """Somebody with a Kubernetes API token who may ``verb`` the ``quarterdeck.dev`` resource, everywhere when no
        namespace is given. Raises Forbidden."""
        token = _bearer(authorization)
        attributes = {"group": "quarterdeck.dev", "resource": resource, "verb": verb}
        if namespace:
            attributes["namespace"] = namespace
        key = (_digest(token), verb, f"{namespace}/{resource}")
        user, allowed = await _remembered(self._people, key, lambda: self._reviews.person(token, attributes))
        if not allowed:
            name = user["username"]
            where = f' in namespace "{namespace}"' if namespace else ""
            raise Forbidden(f'User "{name}" cannot {verb} resource "{resource}" in API group "quarterdeck.dev"{where}')
        return Caller(user["username"], tuple(user.get("groups", ())), None)

    async def somebody(self, authorization: str) -> Caller:
        """Who shows a Kubernetes API token, whatever they may do. Raises Unauthorized."""
        token = _bearer(authorization)
        attributes = {"group": "quarterdeck.dev", "resource": "selfsubjectreviews", "verb": "create"}
        key = (_digest(token), "create", "selfsubjectreviews")
        user, _ = await _remembered(self._people, key, lambda: self._reviews.person(token, attributes))
        return Caller(user["username"], tuple(user.get("groups", ())), None)


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("a bearer token is needed: Authorization: Bearer …")
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def _remembered(
    cache: OrderedDict[K, tuple[float, V | Unauthorized]], key: K, ask: Callable[[], Awaitable[V]]
) -> V:
    """The answer of at most a minute ago, refusals too."""
    kept = cache.get(key)
    if kept is None or monotonic() - kept[0] > _KEPT:
        try:
            answer: V | Unauthorized = await ask()
        except Unauthorized as error:
            answer = error
        kept = (monotonic(), answer)
        cache[key] = kept
        cache.move_to_end(key)
        while len(cache) > _ENTRIES:
            cache.popitem(last=False)
    if isinstance(kept[1], Unauthorized):
        raise Unauthorized(str(kept[1]))
    return kept[1]
