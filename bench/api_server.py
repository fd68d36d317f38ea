"""API server: CPU per operation, memory for 5,000 objects, watch fan-out; beside a real kube-apiserver with etcd.

Both serve HTTPS to the same client, which runs in this process and is not counted. ``real`` counts kube-apiserver and
etcd together, as ours holds its store in the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.cluster import plane

from quarterdeck.kube import resource as k
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.resource import Object
from quarterdeck.resources.crd import crds

from .measure import Row, child, cpu, rss, settle

OBJECTS = 5_000
WATCHERS = 100
PARALLEL = 16


def config_map(number: int) -> Object:
    """About 400 bytes of JSON, as small configuration objects have."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"c{number:05}",
            "namespace": "bench",
            "labels": {"app": f"a{number % 10}", "tier": "test"},
        },
        "data": {"key": "v" * 200, "number": str(number)},
    }


def agent(number: int, namespace: str = "bench") -> Object:
    """A declarative Agent with one tool server, as the seed's datetime agent."""
    return {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "Agent",
        "metadata": {"name": f"agent-{number:04}", "namespace": namespace},
        "spec": {
            "type": "Declarative",
            "description": "A bench agent.",
            "declarative": {
                "modelConfig": "default-model-config",
                "systemMessage": "You answer questions about the time by calling your tools.",
                "tools": [
                    {
                        "type": "McpServer",
                        "mcpServer": {
                            "apiGroup": "kagent.dev", "kind": "MCPServer", "name": "tools", "toolNames": ["echo"],
                        },
                    }
                ],
            },
        },
    }  # fmt: skip


class Measured:
    """One API server under measurement. Figures are microseconds of server CPU per operation, or MB."""

    def __init__(self, pids: tuple[int, ...], config: dict[str, str]) -> None:
        self.pids = pids
        self.config = config
        self.figures: dict[str, float] = {}

    def cpu(self) -> float:
        return sum(map(cpu, self.pids))

    def rss(self) -> float:
        return sum(map(rss, self.pids))

    async def run(self, objects: int) -> None:
        client = KubeClient(ClientConfig(**self.config))
        try:
            for document in await asyncio.to_thread(crds):
                await client.apply(k.CRD, document)
            await client.create(k.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})
            await _until_served(client)
            await settle(self.pids)
            await self._operations(client, objects)
            await self._fan_out(client)
        finally:
            await client.close()

    async def _each(self, name: str, count: int, operation: Callable[[int], Awaitable[Any]], per: int = 1) -> None:
        """``count`` operations, PARALLEL at a time; ``per`` divides further (objects in a list)."""
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                await operation(number)

        before, start = self.cpu(), time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(PARALLEL)))
        self.figures[name] = (self.cpu() - before) / count / per * 1e6
        self.figures[f"{name} rate"] = count / (time.perf_counter() - start)

    async def _operations(self, client: KubeClient, objects: int) -> None:
        empty = self.rss()
        await self._each("create", objects, lambda n: client.create(k.CONFIG_MAP, config_map(n), "bench"))
        await asyncio.sleep(1.0)
        self.figures["memory"] = self.rss()
        self.figures["memory per object"] = (self.rss() - empty) / objects * 1e3
        await self._each("get", objects, lambda n: client.get(k.CONFIG_MAP, f"c{n:05}", "bench"))
        await self._each("list", 40, lambda _: _raw_list(client, ""), per=objects)
        await self._each("list selected", 400, lambda _: _raw_list(client, "app=a3"))
        changed: Object = {"data": {"key": "w" * 200}}
        await self._each(
            "patch", min(objects, 2_000), lambda n: client.patch(k.CONFIG_MAP, f"c{n:05}", changed, "bench")
        )
        await self._each("create agent", 1_000, lambda n: client.create(k.AGENT, agent(n), "bench"))
        await self._each("apply agent, first", 500, lambda n: client.apply(k.AGENT, agent(n), "bench"))
        await self._each("apply agent, unchanged", 500, lambda n: client.apply(k.AGENT, agent(n), "bench"))

    async def _fan_out(self, client: KubeClient) -> None:
        """One namespace watched by many; CPU per event delivered, with the updates' own cost taken off."""
        updates = 200
        clients = [KubeClient(ClientConfig(**self.config)) for _ in range(5)]
        version = (await client.list(k.CONFIG_MAP, "bench", limit=1)).resource_version
        counts = [0] * WATCHERS
        finished = asyncio.Event()

        async def watch(number: int) -> None:
            async for event in clients[number % 5].watch(k.CONFIG_MAP, "bench", resource_version=version):
                if event.type == "MODIFIED":
                    counts[number] += 1
                    if min(counts) >= updates:
                        finished.set()

        watches = [asyncio.ensure_future(watch(n)) for n in range(WATCHERS)]
        await asyncio.sleep(2.0)
        before = self.cpu()
        for number in range(updates):
            body: Object = {"data": {"changed": str(time.time_ns())}}
            await client.patch(k.CONFIG_MAP, f"c{number:05}", body, "bench")
        await asyncio.wait_for(finished.wait(), 60)
        spent = (self.cpu() - before) * 1e6 - updates * self.figures["patch"]
        self.figures["watch"] = max(spent, 0.0) / (updates * WATCHERS)
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        for entry in clients:
            await entry.close()


async def _raw_list(client: KubeClient, selector: str) -> None:
    await client.request(
        "GET", "/api/v1/namespaces/bench/configmaps", params={"labelSelector": selector} if selector else None
    )


async def _until_served(client: KubeClient) -> None:
    """A CRD is served some moments after it was created."""
    for _ in range(100):
        with contextlib.suppress(Exception):
            await client.list(k.AGENT, "bench")
            await client.list(k.MODEL_CONFIG, "bench")
            return
        await asyncio.sleep(0.1)


_ROWS = [
    ("create", "create ConfigMap: CPU per operation", "µs"),
    ("get", "get ConfigMap: CPU per operation", "µs"),
    ("patch", "patch ConfigMap (merge): CPU per operation", "µs"),
    ("list", "list 5,000 ConfigMaps: CPU per object", "µs"),
    ("list selected", "list 500 of 5,000 by label: CPU per list", "µs"),
    ("create agent", "create Agent (CRD, validation rules): CPU per operation", "µs"),
    ("apply agent, unchanged", "server-side apply of an unchanged Agent: CPU per operation", "µs"),
    ("watch", "watch fan-out, 100 watchers: CPU per event delivered", "µs"),
    ("create rate", "create ConfigMap, 16 at a time: per second", "1/s"),
    ("memory", "memory with 5,000 ConfigMaps", "MB"),
    ("memory per object", "memory per ConfigMap", "kB"),
]


async def bench(quick: bool) -> list[Row]:
    """Ours, then the real one where it is built."""
    objects = 1_000 if quick else OBJECTS
    with tempfile.TemporaryDirectory(prefix="qd-bench-") as folder, child("bench.api_process", folder) as (pid, line):
        ours = Measured((pid,), json.loads(line))
        await ours.run(objects)
    commands, why = plane.available()
    real: Measured | None = None
    if commands is not None:
        with plane.running(commands) as peer:
            real = Measured(peer.pids, peer.config)
            await real.run(objects)
            why = peer.version
    rows: list[Row] = []
    for key, what, unit in _ROWS:
        beside = f"kube-apiserver: {why}"
        if key == "memory per object":
            beside = ""  # another's garbage collector makes the difference of two sizes meaningless
        elif real is not None:
            other = real.figures[key]
            beside = (
                f"kube-apiserver {why} + etcd: {other:,.1f} ({ours.figures[key] / other:.2f} ×)" if other else beside
            )
        rows.append(Row(what, ours.figures[key], unit, None, beside))
    return rows
