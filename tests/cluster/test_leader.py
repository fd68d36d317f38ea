"""Two replicas and one Lease on a real API server, whose audit log says who wrote what and when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import Object
from quarterdeck.resources.crd import crds

from .plane import Plane, available, plane

COMMANDS, WHY = available()
pytestmark = [
    pytest.mark.skipif(COMMANDS is None, reason=f"kube-apiserver: {WHY}"),
    pytest.mark.timeout(240),
]
ROOT = Path(__file__).parents[2]
DURATION, DEADLINE, RETRY = 5.0, 3.0, 0.5
NAMESPACE = "leaders"


@pytest.fixture(scope="module")
def cluster() -> Generator[Plane]:
    with plane(nodes=0, controllers=False) as started:
        yield started


@pytest.fixture
async def client(cluster: Plane) -> AsyncIterator[KubeClient]:
    async with KubeClient(cluster.client_config()) as client:
        for crd in crds():
            await client.apply(k.CRD, crd)
        for name in ("quarterdeck-system", NAMESPACE):
            await client.apply(k.NAMESPACE, {"metadata": {"name": name}})
        yield client


class Replica:
    """A process with the controllers, behind leader election; its requests carry its name."""

    def __init__(self, cluster: Plane, name: str) -> None:
        self.name = name
        self._config = asdict(cluster.client_config()) | {"user_agent": name}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.controllers_process", cwd=ROOT, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "BENCH_CLIENT": json.dumps(self._config), "BENCH_IDENTITY": self.name,
                 "BENCH_TIMING": f"{DURATION},{DEADLINE},{RETRY}"},
        )  # fmt: skip

    async def leads(self) -> None:
        await self._until(lambda state: state["leads"])

    async def stands_by(self) -> None:
        """Its caches are filled, so it has looked at the Lease too."""
        await self._until(lambda state: state["synced"])

    async def _until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        assert self._process is not None and self._process.stdout is not None
        async with asyncio.timeout(90):
            while line := await self._process.stdout.readline():
                if line.startswith(b"{") and condition(json.loads(line)):
                    return
        raise AssertionError(f"{self.name} ended")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            await self._process.wait()


@contextlib.asynccontextmanager
async def two(cluster: Plane, first: str, second: str) -> AsyncGenerator[tuple[Replica, Replica]]:
    """The first leads, the second stands by."""
    replicas = Replica(cluster, first), Replica(cluster, second)
    try:
        await replicas[0].start()
        await replicas[0].leads()
        await replicas[1].start()
        await replicas[1].stands_by()
        yield replicas
    finally:
        for replica in replicas:
            await replica.end()


def mcp_server(name: str, port: int = 3000) -> Object:
    deployment = {"cmd": "uvx", "args": ["mcp-server-time"], "port": port}
    spec = {"transportType": "stdio", "deployment": deployment}
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "kagent.dev/v1alpha1", "kind": "MCPServer", "metadata": metadata, "spec": spec}


def writes(cluster: Plane, *agents: str) -> list[dict[str, Any]]:
    """What they wrote or tried to, but for Leases and Events."""
    return [
        event for agent in agents for event in cluster.audit(user_agent=agent, writes=True)
        if event["objectRef"]["resource"] not in ("leases", "events")
    ]  # fmt: skip


def held(cluster: Plane, agent: str) -> list[float]:
    """When it took or renewed the Lease."""
    events = cluster.audit(user_agent=agent, writes=True)
    leases = [e for e in events if e["objectRef"]["resource"] == "leases" and e["responseStatus"]["code"] < 300]
    return [at(event, "stageTimestamp") for event in leases]


def at(event: dict[str, Any], field: str = "requestReceivedTimestamp") -> float:
    return datetime.fromisoformat(event[field].replace("Z", "+00:00")).timestamp()


async def deployed(client: KubeClient, *names: str) -> None:
    async with asyncio.timeout(60):
        while not set(names) <= {d["metadata"]["name"] for d in (await client.list(k.DEPLOYMENT, NAMESPACE)).items}:
            await asyncio.sleep(0.05)


async def quiet(cluster: Plane, *agents: str) -> None:
    """No write for two seconds."""
    last = -1
    async with asyncio.timeout(60):
        while (now := len(writes(cluster, *agents))) != last:
            last = now
            await asyncio.sleep(2)


async def test_a_killed_leader_is_replaced_and_nothing_is_written_twice(cluster: Plane, client: KubeClient) -> None:
    names = [f"killed-{n}" for n in range(30)]
    async with two(cluster, "kill-a", "kill-b") as (first, second):
        for name in names:
            await client.create(k.MCP_SERVER, mcp_server(name))
        await deployed(client, names[5])
        first.signal(signal.SIGKILL)
        await second.leads()
        await deployed(client, *names)
        await quiet(cluster, "kill-b")
    last, first_of_other = held(cluster, "kill-a")[-1], held(cluster, "kill-b")[0]
    assert DURATION - 1 <= first_of_other - last <= 20, "not before the lease ends, and soon after"
    done = writes(cluster, "kill-a", "kill-b")
    by = Counter(event["userAgent"] for event in done)
    assert by["kill-a"] > 0 and by["kill-b"] > 0
    contents = Counter(
        (e["objectRef"]["resource"], e["objectRef"].get("subresource", ""), e["objectRef"].get("name", ""),
         json.dumps(_content(e), sort_keys=True))
        for e in done if e["responseStatus"]["code"] < 300
    )  # fmt: skip
    assert [entry for entry, count in contents.items() if count > 1] == []
    conflicts = [e for e in done if e["responseStatus"]["code"] == 409]
    assert len(conflicts) <= 8, "workers of the dead leader may have left a request each"


def _content(event: dict[str, Any]) -> Object:
    """What was asked for, without the version it was asked onto."""
    body: Object = event.get("requestObject") or {}
    metadata = {name: value for name, value in (body.get("metadata") or {}).items() if name != "resourceVersion"}
    return body | {"metadata": metadata}


async def test_a_stopped_leader_starts_no_request_after_its_deadline(cluster: Plane, client: KubeClient) -> None:
    """SIGSTOP in the middle of work; when it goes on, another has led for a while and changed the same objects."""
    names = [f"stopped-{n}" for n in range(20)]
    async with two(cluster, "stop-a", "stop-b") as (first, second):
        for name in names:
            await client.create(k.MCP_SERVER, mcp_server(name))
        await deployed(client, names[3])
        first.signal(signal.SIGSTOP)
        await second.leads()
        await deployed(client, *names)
        for name in names:
            await client.patch(k.MCP_SERVER, name, {"spec": {"deployment": {"port": 4000}}}, NAMESPACE)
        await quiet(cluster, "stop-b")
        first.signal(signal.SIGCONT)
        resumed = datetime.now().timestamp()
        for name in names:
            await client.patch(k.MCP_SERVER, name, {"spec": {"deployment": {"port": 5000}}}, NAMESPACE)
        await asyncio.sleep(DURATION)  # real processes: the old leader gets all the time it needs to do harm
        await quiet(cluster, "stop-a", "stop-b")
    deadline = held(cluster, "stop-a")[-1] + DEADLINE
    late = [e for e in writes(cluster, "stop-a") if at(e) > deadline]
    assert resumed > deadline
    assert [e for e in late if e["responseStatus"]["code"] < 300] == [], "nothing of the old leader has an effect"
    assert late == [], "it does not even ask"
    ports = {
        s["metadata"]["name"]: s["spec"]["ports"][0]["port"] for s in (await client.list(k.SERVICE, NAMESPACE)).items
    }
    assert {ports[name] for name in names} == {5000}
