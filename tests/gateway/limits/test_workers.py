"""Two gateways with one limits file: what one counts, the other knows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.errors import UpstreamError
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.options import Options
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Policies, RateLimit
from quarterdeck.wire.client import Pool

from ..conftest import Rig, snapshot, token
from ..routes.conftest import Front, Service, route
from .test_calls import CALL, PATH, call, is_unavailable
from .upstream import serving


@contextlib.asynccontextmanager
async def workers(folder: Path) -> AsyncIterator[tuple[Rig, Rig]]:
    async with contextlib.AsyncExitStack() as stack:
        rigs: list[Rig] = []
        for number in range(2):
            home = folder / str(number)
            home.mkdir()
            config = home / "snapshot.json"
            config.write_bytes(msgspec.json.encode(s.Snapshot(version="v0")))
            zero = ("127.0.0.1", 0)
            options = Options(
                zero, zero, zero, zero, zero, data_dir=home / "data", config=config,
                audit_file=home / "audit.jsonl", limits_file=folder / "limits.table",
            )  # fmt: skip
            gateway = Gateway(options)
            await gateway.start()
            stack.push_async_callback(gateway.stop, 0.2)
            rig = Rig(gateway, home / "audit.jsonl")
            stack.callback(rig.pool.close)
            rigs.append(rig)
        yield rigs[0], rigs[1]


async def test_a_breaker_is_open_in_all_workers(tmp_path: Path) -> None:
    async with workers(tmp_path) as (one, two), serving("500") as upstream:
        one.gateway.use(snapshot(upstream.port))
        two.gateway.use(snapshot(upstream.port))
        for rig in (one, two, one):
            assert not is_unavailable(await call(rig))
        assert is_unavailable(await call(one)) and is_unavailable(await call(two))
        assert upstream.calls == 3
        assert two.gateway.limits.breakers.reset("kagent/peer", "add") == 1
        upstream.modes = ["ok"]
        assert not is_unavailable(await call(one))


async def test_workers_take_from_one_bucket(tmp_path: Path) -> None:
    service = Service()
    await service.start()
    rules = Policies(open=True, rate_limits=(RateLimit(3, 1, 60.0),))
    listener = r.Listener("web", 0, "127.0.0.1", routes=(route(service.to(policies=rules), policies=rules),))
    async with workers(tmp_path) as rigs:
        fronts = [Front(rig) for rig in rigs]
        for front in fronts:
            await front.serve(listener)
        statuses = [(await fronts[number % 2].ask()).status for number in range(5)]
        for front in fronts:
            front.pool.close()
    assert statuses == [200, 200, 200, 429, 429]


@pytest.mark.slow
async def test_real_workers_share_breakers_and_a_killed_one_takes_nothing_along(tmp_path: Path) -> None:
    async with serving("500") as upstream:
        config, endpoints = tmp_path / "snapshot.json", tmp_path / "endpoints.json"
        config.write_bytes(msgspec.json.encode(snapshot(upstream.port)))
        ports = [f"--{name}=127.0.0.1:0" for name in ("local", "workloads", "stats", "ready", "admin")]
        process = subprocess.Popen(
            [
                sys.executable, "-m", "quarterdeck.gateway", *ports, f"--config={config}", "--workers=2",
                f"--data-dir={tmp_path / 'data'}", f"--endpoints-file={endpoints}",
            ]
        )  # fmt: skip
        try:
            async with asyncio.timeout(30):
                while not endpoints.exists():
                    await asyncio.sleep(0.05)
            found = msgspec.json.decode(endpoints.read_bytes())

            async def one() -> bool:
                """Over a connection of its own, so that any worker may get it."""
                pool = Pool()
                origin = ("127.0.0.1", int(found["workloads"].rpartition(":")[2]), False)
                lines = [
                    (b"content-type", b"application/json"),
                    (b"authorization", f"Bearer {token('pod-b')}".encode()),
                ]
                response = await pool.request("POST", origin, PATH, lines, msgspec.json.encode(CALL), timeout=60)
                body = await response.read()
                pool.close()
                return b"tool unavailable" in body

            assert [await one() for _ in range(12)] == [False] * 3 + [True] * 9
            assert upstream.calls == 3
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
            async with asyncio.timeout(30):
                while Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[:1] == children[:1]:
                    await asyncio.sleep(0.05)
            after: list[bool] = []
            while len(after) < 12:
                with contextlib.suppress(UpstreamError):  # until the kernel has forgotten the dead one's socket
                    after.append(await one())
            assert all(after) and upstream.calls == 3
        finally:
            process.terminate()
            process.wait()
