"""Two gateways with one limits file: what one counts, the other knows."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from quarterdeck import snapshot as s
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.options import Options
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Policies, RateLimit

from ..conftest import Rig, snapshot
from ..routes.conftest import Front, Service, route
from .test_calls import call, is_unavailable
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
