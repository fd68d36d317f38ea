"""Whose ServiceAccount is a gateway's."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.errors import Forbidden
from quarterdeck.server.identity import Identity
from quarterdeck.server.reviews import POD_NAME, POD_UID


class Reviews:
    """A token is ``NAMESPACE:NAME:POD`` of its ServiceAccount and Pod."""

    async def workload(self, token: str, audience: str) -> dict[str, Any]:
        account, _, pod = token.rpartition(":")
        extra = {POD_UID: [pod], POD_NAME: [pod]}
        return {"username": f"system:serviceaccount:{account}", "groups": [], "extra": extra}

    async def person(self, token: str, attributes: dict[str, str]) -> tuple[dict[str, Any], bool]:
        raise NotImplementedError


@pytest.fixture
def identity() -> Identity:
    return Identity(Reviews(), {"agents-pod": "ns/a"}.get, lambda gateway: gateway == "ns/gw")  # type: ignore[arg-type]


async def test_a_gateway_is_one_that_we_configure(identity: Identity) -> None:
    assert await identity.gateway("Bearer ns:gw:p1", "ns", "gw") == ("ns/gw", "p1")
    for token, name, why in (
        ("ns:other:p1", "gw", "is not the ServiceAccount"),
        ("ns:other:p1", "other", "no Gateway that is configured"),
        ("ns:gw:agents-pod", "gw", "ns/a is not the ServiceAccount"),
    ):
        with pytest.raises(Forbidden, match=why):
            await identity.gateway(f"Bearer {token}", "ns", name)
    assert await identity.gateway("Bearer ns:soon:p1", "ns", "soon", configured=False) == ("ns/soon", "p1")
