"""What the gateway calls itself in metadata, challenges and cards: its public URL, or what trusted proxies say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Rig, snapshot
from gateway.federation.servers import Upstream
from gateway.policy.rig import ISSUER, Peer, json_answer, provider
from quarterdeck import snapshot as s
from quarterdeck.snapshot.policies import Jwt, McpAuthentication, Policies

from .conftest import guard, running

FORGED = {
    "x-forwarded-host": "evil.example",
    "x-forwarded-proto": "https",
    "forwarded": "host=evil.example;proto=https",
}
CARD = {"name": "x", "url": "http://x/", "supportedInterfaces": [{"url": "http://x/rpc"}]}


async def said(rig: Rig, one: Upstream) -> list[str]:
    """All documents that name the gateway, asked for with forged headers."""
    await guard(rig, one, policies=Policies(mcp_authentication=McpAuthentication(Jwt((provider(),)), ISSUER)))
    known = await rig.request(
        "/.well-known/oauth-protected-resource/mcp", method="GET", listener="front", headers=FORGED
    )
    refused = await rig.request("/mcp", {}, listener="front", headers=FORGED)
    assert refused.status == 401 and await refused.read()
    found = [(await known.read()).decode(), (refused.header(b"www-authenticate") or b"").decode()]
    async with Peer(lambda e: json_answer(CARD)) as agent:
        where = s.Endpoint("127.0.0.1", int(agent.url.rpartition(":")[2]))
        rig.gateway.use(snapshot(1, agents=(s.Agent("kagent", "x", (where,)),)))
        for name in ("agent-card.json", "agent.json"):
            path = f"/a2a/kagent/x/.well-known/{name}"
            card = await rig.request(path, method="GET", listener="local", headers=FORGED)
            assert card.status == 200
            found.append((await card.read()).decode())
    return found


@pytest.mark.parametrize(
    ("options", "believed"),
    [
        ({}, False),
        ({"trusted_hops": ("10.0.0.0/8", "192.0.2.1")}, False),
        ({"trusted_hops": ("127.0.0.0/8",)}, True),
        ({"trusted_hops": ("127.0.0.0/8",), "public_url": "https://gw.example/base"}, False),
    ],
)
async def test_forwarded_names_are_believed_from_trusted_hops_alone(
    tmp_path: Path, one: Upstream, options: dict[str, Any], believed: bool
) -> None:
    async with running(tmp_path / "gw", **options) as rig:
        for text in await said(rig, one):
            assert ("https://evil.example/" in text) == believed and ("evil" in text) == believed, text
            assert "public_url" not in options or "https://gw.example/" in text, text
