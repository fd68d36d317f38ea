"""The resource controllers alone in a process: `python -m bench.controllers_process`, client configuration on stdin.

Prints ``ready``, then once a second a JSON line: is everything idle, reconciles so far, errors, writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal

import uvloop

from quarterdeck.controllers import ControllerOptions, build
from quarterdeck.kube.client import ClientConfig, KubeClient


async def main() -> None:
    client = KubeClient(ClientConfig(**json.loads(os.environ["BENCH_CLIENT"])))
    controllers, config = build(client, ControllerOptions(discovery_interval=3600.0))
    await controllers.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print("ready", flush=True)
    while not stopping.is_set():
        done = sum(c.stats.reconciles for c in controllers.controllers)
        failed = sum(c.stats.errors for c in controllers.controllers)
        agents = len(config.snapshot.agents) if config.snapshot is not None else 0
        state = {
            "idle": controllers.idle,
            "reconciles": done,
            "errors": failed,
            "writes": client.writes,
            "agents": agents,
        }
        print(json.dumps(state), flush=True)
        try:
            await asyncio.wait_for(stopping.wait(), 1.0)
        except TimeoutError:
            continue
    await controllers.stop()
    await client.close()


if __name__ == "__main__":
    uvloop.run(main())
