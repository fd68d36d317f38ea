"""The control plane and the issuers are gone for longer than twice every time that anything is remembered."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from quarterdeck import snapshot as s
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.config.lastgood import LastGood, load_key
from quarterdeck.gateway.options import Options
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import DirectResponse, Jwt, Policies
from quarterdeck.snapshot.revocations import Revocation

from .conftest import Rig, snapshot, token
from .policy.rig import ISSUER, KEY, OTHER, Peer, json_answer, jwks, provider
from .policy.rig import token as person

PATH = "/mcp/kagent/peer"
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


async def test_what_was_known_holds_and_what_expires_expires(tmp_path: Path, peer: int) -> None:
    """Calls go on by the last configuration, keys and revocations; expired tokens and unknown keys are refused."""
    began = time.time()
    now = [began]
    later = began + 100 * 3600
    data, zero = tmp_path / "data", ("127.0.0.1", 0)
    async with Peer(lambda _: json_answer(jwks(KEY))) as issuer:
        jwt = Jwt((provider(jwks=None, jwks_url=f"{issuer.url}/keys", cache=300.0),))
        rules = Policies(jwt=jwt, direct_response=DirectResponse(200, "in"))
        listener = r.Listener("web", 0, "127.0.0.1", routes=(r.Route("default/r", policies=rules),))
        revoked = (
            Revocation("r1", "user", "mallory", created=1.0),
            Revocation("r2", "user", "trudy", created=1.0, expires=began + 7200),
        )
        world = snapshot(peer, listeners=(listener,), revocations=revoked)
        LastGood(data / "snapshot.bin", load_key(data / "gateway.key")).save(s.encode(world))
        options = Options(
            zero, zero, zero, zero, zero, control_plane="http://127.0.0.1:9", data_dir=data,
            audit_file=tmp_path / "audit.jsonl",
        )  # fmt: skip
        gateway = Gateway(options, clock=lambda: now[0])
        await gateway.start()
        await gateway.listeners.settled()
        rig = Rig(gateway, tmp_path / "audit.jsonl")
        assert await asked(rig, "alice", later) == 200 and len(issuer.asked) == 1
    agent = {"bearer": token("pod-b", exp=int(later))}
    short = {"bearer": token("pod-b", exp=int(began + 3600))}
    session = await rig.initialize(PATH, **agent)
    for passed in (0, 130, 610, 1210, 3700, 8000, 90_000):
        now[0] = began + passed
        await asyncio.sleep(0.01)
        assert await asked(rig, "alice", later) == 200, f"after {passed} s"
        assert await asked(rig, "bob", later + passed) == 200, "a token that was never seen before"
        assert await asked(rig, "alice", began + passed - 60) == 401
        assert await asked(rig, "alice", later, OTHER) in (401, 503), "of a key that nobody can be asked about"
        assert await asked(rig, "mallory", later) == 403
        assert await asked(rig, "trudy", later) == (403 if passed < 7200 else 200)
        response = await rig.request(PATH, LIST, headers={"mcp-session-id": session}, **agent)
        assert response.status == 200 and await response.read()
        response = await rig.request(PATH, LIST, headers={"mcp-session-id": session}, **short)
        assert response.status == (200 if passed < 3600 else 401) and await response.read()
    ready = await rig.request("/healthz/ready", method="GET", listener="ready")
    assert ready.status == 200 and await ready.read(), "it serves: no reason to take traffic away"
    rig.pool.close()
    await gateway.stop(0.1)


async def asked(rig: Rig, sub: str, exp: float, key: Any = KEY) -> int:
    headers = {"authorization": f"Bearer {person(key, sub=sub, exp=exp, iss=ISSUER)}"}
    response = await rig.request("/", method="GET", listener="web", headers=headers)
    await response.read()
    return response.status
