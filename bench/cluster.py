"""The test plane: how long a test waits for a fresh real cluster, and what one costs while it runs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.cluster.guard import processes_of
from tests.cluster.plane import NO_ROUTES, Plane, available, plane

from .measure import Row, cpu, rss

_SECONDS = 10.0
"""Issue 4 §1: a fresh cluster, once built."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Seconds, CPU seconds of all its processes until it was ready, and MB resident then."""

    start: float
    stop: float
    cpu: float
    memory: dict[str, float]


def _used(started: Plane) -> tuple[float, dict[str, float]]:
    components = (
        started.etcd, started.api_server, started.controller_manager, started.scheduler, started.metrics_server,
        *started.nodes.values(),
    )  # fmt: skip
    return sum(cpu(c.pid) for c in components), {c.name: rss(c.pid) for c in components}


def _one() -> Cluster:
    began = time.monotonic()
    with plane() as started:
        ready = time.monotonic()
        if not started.routes:
            raise RuntimeError(NO_ROUTES)
        used, memory = _used(started)
        root, leaving = started.root, time.monotonic()
    gone = time.monotonic()
    if root.exists() or processes_of(root):
        raise RuntimeError(f"{root} was left behind")
    return Cluster(ready - began, gone - leaving, used, memory)


async def bench(quick: bool) -> list[Row]:
    """Raises RuntimeError where a plane with Pods cannot run."""
    place, why = available()
    if place is None:
        raise RuntimeError(f"test plane: {why}")
    runs = [await asyncio.to_thread(_one) for _ in range(1 if quick else 5)]
    runs.sort(key=lambda run: run.start)
    middle = runs[len(runs) // 2]
    parts = ", ".join(f"{name} {size:.0f}" for name, size in middle.memory.items())
    span = f"{runs[0].start:.1f} to {runs[-1].start:.1f} s"
    return [
        Row("a fresh cluster with one node, Ready", middle.start, "s", _SECONDS, f"median of {len(runs)}: {span}"),
        Row("the same, CPU of all its processes", middle.cpu, "s"),
        Row("memory once it is ready", sum(middle.memory.values()), "MB", beside=parts),
        Row("gone without leftovers", middle.stop, "s"),
    ]
