"""The resource controllers alone in a process: `python -m bench.controllers_process`, configuration in the environment.

``BENCH_CLIENT``: the client's configuration as JSON. ``BENCH_IDENTITY``: work only while leading, under this name;
``BENCH_TIMING``: seconds of the lease, of its renewal and between attempts; ``BENCH_NETWORK_POLICIES``: they are
written, as in a cluster. Prints ``ready``, then once a second a JSON
line: is everything idle, does it lead, reconciles so far, errors, writes. SIGUSR1 lists everything anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal

import uvloop

from quarterdeck.controllers import ControllerOptions, build
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.lease import LeaderElector, Timing
from quarterdeck.translate.options import NetworkPolicies

NAMESPACE, LEASE = "quarterdeck-system", "quarterdeck-controller"


def elector_of(config: ClientConfig) -> LeaderElector | None:
    identity = os.environ.get("BENCH_IDENTITY")
    if not identity:
        return None
    timing = Timing(*map(float, os.environ.get("BENCH_TIMING", "15,10,2").split(",")))
    return LeaderElector(KubeClient(config), NAMESPACE, LEASE, identity, timing=timing)


async def lead(elector: LeaderElector, controllers: ControllerSet) -> None:
    while True:
        await elector.run(controllers.work)


async def relist(controllers: ControllerSet) -> None:
    for informer in controllers.informers:
        await informer.stop()
        informer.start()


async def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    config = ClientConfig(**json.loads(os.environ["BENCH_CLIENT"]))
    elector = elector_of(config)
    client = KubeClient(config, gate=elector.check if elector is not None else None)
    policies = NetworkPolicies(NAMESPACE) if "BENCH_NETWORK_POLICIES" in os.environ else None
    controllers, gateway = build(client, ControllerOptions(discovery_interval=3600.0, network_policies=policies))
    await controllers.start(workers=elector is None)
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()
    if elector is not None:
        tasks.add(loop.create_task(lead(elector, controllers)))
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: tasks.add(loop.create_task(relist(controllers))))
    print("ready", flush=True)
    while not stopping.is_set():
        stats = [c.stats for c in controllers.controllers]
        state = {
            "idle": controllers.idle,
            "synced": all(i.answered.is_set() for i in controllers.informers),
            "informers": len(controllers.informers),
            "leads": elector is None or elector.is_leader,
            "reconciles": sum(s.reconciles for s in stats),
            "errors": sum(s.errors for s in stats),
            "conflicts": sum(s.conflicts for s in stats),
            "lists": sum(i.stats.lists for i in controllers.informers),
            "writes": client.writes,
            "agents": len(gateway.snapshot.agents) if gateway.snapshot is not None else 0,
        }
        print(json.dumps(state), flush=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), 1.0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await controllers.stop()
    await client.close()


if __name__ == "__main__":
    uvloop.run(main())
