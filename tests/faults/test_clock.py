"""The wall clock jumps: a machine slept, or a time server corrects it. Tokens; leases are in server/test_runs."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from node.fake_api import FakeApi
from quarterdeck.kube.clock import SystemClock
from quarterdeck.kube.resource import POD, SERVICE_ACCOUNT, Object, Resource
from quarterdeck.node.node import Node
from quarterdeck.node.runtime import NodeConfig
from quarterdeck.node.sandbox.isolation import Sandbox
from support.platform import eventually

HOUR = 3600.0


class JumpingClock(SystemClock):
    """The machine's clock, set ahead or back."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = 0.0

    def time(self) -> float:
        return super().time() + self.offset


class TokenApi(FakeApi):
    """Issues tokens of one hour by the same clock; a token says when it was issued."""

    def __init__(self, clock: JumpingClock) -> None:
        super().__init__()
        self.clock = clock

    async def create(self, res: Resource, obj: Object, namespace: str | None = None, **kw: Any) -> Object:
        if res is not SERVICE_ACCOUNT or kw.get("subresource") != "token":
            return await super().create(res, obj, namespace, **kw)
        expires = dt.datetime.fromtimestamp(self.clock.time() + HOUR, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"status": {"token": f"issued {self.clock.time():.0f}", "expirationTimestamp": expires}}


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
async def token(tmp_path: Path, clock: JumpingClock) -> AsyncIterator[Path]:
    """The token file of a running Pod."""
    api = TokenApi(clock)
    sandbox = Sandbox("landlock", None, network=False)
    node = Node(NodeConfig(api, "n1", tmp_path / "node", sandbox=sandbox, refresh=0.05))  # type: ignore[arg-type]
    await node.start()
    assert node.runtime is not None
    node.runtime.clock = clock
    source = {"serviceAccountToken": {"path": "token", "audience": "quarterdeck", "expirationSeconds": 3600}}
    mounts = [{"name": "tokens", "mountPath": "/var/run/secrets/tokens"}]
    container = {"name": "main", "image": "", "command": ["/bin/sleep", "60"], "volumeMounts": mounts}
    volumes = [{"name": "tokens", "projected": {"sources": [source]}}]
    spec = {"nodeName": "n1", "containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1}
    await api.create(POD, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    await api.wait("p", lambda p: bool(((p or {}).get("status") or {}).get("phase") == "Running"))
    yield next((tmp_path / "node").glob("pods/*/volumes/**/token"))
    await node.stop(2)


@pytest.mark.parametrize("jump", [2 * HOUR, -2 * HOUR, 365 * 24 * HOUR])
async def test_a_pod_gets_a_token_that_is_valid_after_a_jump(token: Path, clock: JumpingClock, jump: float) -> None:
    def issued() -> float:
        return float(token.read_text().split()[1])

    assert abs(issued() - clock.time()) < 60
    clock.offset = jump
    await asyncio.to_thread(eventually, lambda: abs(issued() - clock.time()) < 60, "a token of now", 10)
