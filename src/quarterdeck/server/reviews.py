"""Checking tokens and permissions: by the API server's reviews, or without the cluster-wide right to ask for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import time
from typing import Any, Protocol

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from quarterdeck.errors import Forbidden, Unauthorized
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.snapshot import Identities

POD_UID = "authentication.kubernetes.io/pod-uid"
POD_NAME = "authentication.kubernetes.io/pod-name"
_ALGORITHMS = ["ES256", "RS256"]
_LEEWAY = 5.0
"""Seconds of clock difference tolerated."""

User = dict[str, Any]
"""A UserInfo: username, groups, extra."""


class Reviews(Protocol):
    """Both raise Unauthorized for a token that is not good."""

    async def workload(self, token: str, audience: str) -> User: ...

    async def person(self, token: str, attributes: dict[str, str]) -> tuple[User, bool]:
        """Who it is, and whether they may do what ``attributes`` (ResourceAttributes) say."""
        ...


class ApiReviews:
    """TokenReview and SubjectAccessReview: needs ``create`` on both, cluster-wide."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def workload(self, token: str, audience: str) -> User:
        return await self._token({"token": token, "audiences": [audience]}, audience)

    async def person(self, token: str, attributes: dict[str, str]) -> tuple[User, bool]:
        user = await self._token({"token": token})
        # all of it: authorizers may know a token with less rights than its user by what is in extra
        known = {"user": user["username"]} | {key: user[key] for key in ("uid", "groups", "extra") if user.get(key)}
        spec = known | {"resourceAttributes": attributes}
        return user, await _access(self._client, "SubjectAccessReview", spec)

    async def _token(self, spec: dict[str, Any], audience: str = "") -> User:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        answer = await self._client.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=review)
        status = answer.get("status", {})
        if not status.get("authenticated"):
            raise Unauthorized(f"the token is not valid here{': ' + status['error'] if status.get('error') else ''}")
        if audience and audience not in (status.get("audiences") or ()):
            # an authenticator that knows no audiences takes any token of the API server's
            raise Unauthorized(f"the token is not valid here: it was not made for audience {audience}")
        return status["user"]


class OwnReviews:
    """Without any right of our own, for an operator with Roles only.

    Workload tokens are checked against the issuer's published keys, as the gateway does; a Pod that was deleted keeps
    its token until it expires. People ask about themselves, with their own token, at our API server.
    """

    def __init__(
        self, config: ClientConfig, identities: Callable[[], Identities | None], clock: Callable[[], float] = time
    ) -> None:
        self._config = config
        self._identities = identities
        self._clock = clock

    async def workload(self, token: str, audience: str) -> User:
        identities = self._identities()
        if identities is None or not identities.jwks.get("keys"):
            raise Unauthorized("token keys are not known yet; try again in a moment")
        claims = _claims(token, identities, audience, self._clock())
        pod = (claims.get("kubernetes.io") or {}).get("pod") or {}
        extra = {POD_UID: [pod["uid"]], POD_NAME: [pod.get("name", "")]} if pod.get("uid") else {}
        return {"username": str(claims["sub"]), "groups": [], "extra": extra}

    async def person(self, token: str, attributes: dict[str, str]) -> tuple[User, bool]:
        plain = ClientConfig(
            self._config.base_url, ca_file=self._config.ca_file, ca_data=self._config.ca_data, timeout=10.0
        )
        async with KubeClient(replace(plain, token=token)) as client:
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            try:
                answer = await client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=review)
                allowed = await _access(client, "SelfSubjectAccessReview", {"resourceAttributes": attributes})
            except Forbidden as error:
                raise Unauthorized(f"the token is not valid here: {error}") from error
        return answer["status"]["userInfo"], allowed


async def _access(client: KubeClient, kind: str, spec: dict[str, Any]) -> bool:
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
    answer = await client.request("POST", f"/apis/authorization.k8s.io/v1/{kind.lower()}s", body=review)
    return bool(answer.get("status", {}).get("allowed"))


def _claims(token: str, identities: Identities, audience: str, now: float) -> dict[str, Any]:
    try:
        keys = KeySet.import_key_set(identities.jwks)  # type: ignore[arg-type]  # JSON of the right shape
        payload: Any = jws.deserialize_compact(token, keys, algorithms=_ALGORITHMS).payload
        claims = msgspec.json.decode(payload, type=dict[str, Any])
        audiences = claims.get("aud") or []
        good = audience in ([audiences] if isinstance(audiences, str) else audiences)
        timely = float(claims["exp"]) + _LEEWAY > now >= float(claims.get("nbf") or 0) - _LEEWAY
        issued = claims["iss"] == identities.issuer and bool(claims["sub"])
    except (JoseError, ValueError, TypeError, KeyError, msgspec.DecodeError) as error:
        raise Unauthorized(f"the token is not valid here: {error}") from error
    if not (good and timely and issued):
        wrong = "its audience" if not good else "its time" if not timely else "its issuer"
        raise Unauthorized(f"the token is not valid here: {wrong} is wrong")
    return claims
