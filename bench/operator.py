"""The operator on a real control plane (kube-apiserver, etcd, controller manager, scheduler), at two sizes.

Agents, MCP servers and ModelConfigs are created, 16 at a time; then nothing happens for a while; then single objects
change. Nothing runs the Pods: no node. What the controllers asked of the API server is read from its audit log.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from tests.cluster.plane import Plane
from tests.cluster.plane import plane as running_plane

from quarterdeck import errors
from quarterdeck.controllers import bootstrap
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.resources.crd import crds

from .measure import Row, cpu, rss
from .reconcile import controllers, line, settled

NAMESPACE = "bench"
AGENT = "operator"
LIKE_A_CLUSTER = {"BENCH_NETWORK_POLICIES": "1"}
_AT_ONCE = 16
_LATE_AFTER = 600.0
"""Seconds: a Deployment's progressDeadlineSeconds."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many of what; one ModelConfig for 20 agents."""

    agents: int
    changes: int
    quiet: float

    @property
    def name(self) -> str:
        return f"{self.agents:,} + {self.agents:,} + {self.models}"

    @property
    def models(self) -> int:
        return max(self.agents // 20, 1)

    @property
    def objects(self) -> int:
        return 2 * self.agents + self.models

    @property
    def deployments(self) -> int:
        return 2 * self.agents


def agent(number: int, size: Size) -> Object:
    """A declarative Agent with a tool server and a model of its own."""
    tool = {
        "apiGroup": "kagent.dev", "kind": "MCPServer", "name": f"tools-{number:04}", "toolNames": ["echo"],
    }  # fmt: skip
    return {
        "apiVersion": "kagent.dev/v1alpha2", "kind": "Agent",
        "metadata": {"name": f"agent-{number:04}", "namespace": NAMESPACE},
        "spec": {
            "type": "Declarative", "description": "A bench agent.",
            "declarative": {
                "modelConfig": f"model-{number % size.models:03}",
                "systemMessage": "You answer questions about the time by calling your tools.",
                "tools": [{"type": "McpServer", "mcpServer": tool}],
            },
        },
    }  # fmt: skip


def mcp_server(number: int) -> Object:
    return {
        "apiVersion": "kagent.dev/v1alpha1", "kind": "MCPServer",
        "metadata": {"name": f"tools-{number:04}", "namespace": NAMESPACE},
        "spec": {"transportType": "stdio", "deployment": {"cmd": "uvx", "args": ["mcp-server-time"], "port": 3000}},
    }  # fmt: skip


def model(number: int) -> list[tuple[Resource, Object]]:
    """A ModelConfig and the Secret with its key."""
    name = f"model-{number:03}"
    return [
        (k.SECRET, {"metadata": {"name": name, "namespace": NAMESPACE}, "stringData": {"KEY": f"key-{number}"}}),
        (k.MODEL_CONFIG, {
            "apiVersion": "kagent.dev/v1alpha2", "kind": "ModelConfig",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"provider": "OpenAI", "model": "gpt-4.1-mini", "apiKeySecret": name, "apiKeySecretKey": "KEY"},
        }),
    ]  # fmt: skip


async def prepare(client: KubeClient) -> None:
    for document in await asyncio.to_thread(crds):
        await client.create(k.CRD, document)
    for namespace in bootstrap.namespaces():
        await client.apply(k.NAMESPACE, namespace)
    await client.apply(k.NAMESPACE, {"metadata": {"name": NAMESPACE}})
    async with asyncio.timeout(30):
        for res in (k.AGENT, k.MCP_SERVER, k.MODEL_CONFIG):
            while not await _served(client, res):
                await asyncio.sleep(0.1)


async def _served(client: KubeClient, res: Resource) -> bool:
    try:
        group: Any = await client.request("GET", f"/apis/{res.group}/{res.version}")
    except errors.ApiError:  # the group is not served yet
        return False
    return any(entry["name"] == res.plural for entry in group["resources"])


async def at_once(jobs: Iterable[Awaitable[Any]]) -> None:
    """Run them all, a few at a time."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def run(job: Awaitable[Any]) -> None:
        async with limit:
            await job

    await asyncio.gather(*map(run, jobs))


async def create_all(client: KubeClient, size: Size) -> None:
    for number in range(size.models):
        for res, obj in model(number):
            await client.create(res, obj)
    await at_once(client.create(k.MCP_SERVER, mcp_server(number)) for number in range(size.agents))
    await at_once(client.create(k.AGENT, agent(number, size)) for number in range(size.agents))


async def deployments(client: KubeClient, count: int, limit: float) -> None:
    async with asyncio.timeout(limit):
        while len((await client.list(k.DEPLOYMENT, NAMESPACE, metadata_only=True)).items) < count:
            await asyncio.sleep(1.0)  # listing thousands costs the server more than a creation


def calls(plane: Plane) -> list[dict[str, Any]]:
    """What the controllers have asked of the API server so far."""
    return plane.audit(user_agent=AGENT)


def by_kind(events: list[dict[str, Any]], objects: int) -> str:
    """Requests per object, by verb and resource, the most frequent first."""
    found = Counter(f"{e['verb']} {_resource(e)}" for e in events)
    return ", ".join(f"{name} {count / objects:.2f}" for name, count in found.most_common() if count >= objects / 10)


def _resource(event: dict[str, Any]) -> str:
    reference = event.get("objectRef") or {}
    return "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))


async def creation(plane: Plane, client: KubeClient, process: Process, size: Size) -> tuple[list[Row], dict[str, Any]]:
    """Everything from nothing."""
    seen = len(calls(plane))
    before, start = cpu(process.pid), time.monotonic()
    await create_all(client, size)
    await deployments(client, size.deployments, 1_800.0)
    elapsed, used = time.monotonic() - start, cpu(process.pid) - before
    state = await settled(process, size.objects, 1_800.0)
    after = cpu(process.pid) - before
    asked = calls(plane)[seen:]
    return [
        Row(f"{size.name}: CPU of the controllers until all Deployments exist", used, "s", 0.12 * size.agents,
            f"{elapsed:.0f} s elapsed, {after:.1f} s CPU until everything rests"),
        Row(f"{size.name}: API calls per object at creation", len(asked) / size.objects, "", 8.0,
            by_kind(asked, size.objects)),
        Row(f"{size.name}: memory of the controllers", rss(process.pid), "MB", 300.0,
            f"{state['reconciles']} reconciles, {state['errors']} errors, {state['conflicts']} conflicts"),
    ], state  # fmt: skip


async def given_up(client: KubeClient, process: Process, size: Size) -> Row:
    """Nothing runs the Pods: ten minutes after its creation the cluster itself declares each Deployment late."""
    reading, before = asyncio.create_task(_drain(process)), cpu(process.pid)
    try:
        async with asyncio.timeout(1_200.0):
            while not all(map(_late, (await client.list(k.DEPLOYMENT, NAMESPACE)).items)):
                await asyncio.sleep(20.0)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await settled(process, 0, 300.0)
    return Row(
        f"{size.name}: CPU while the cluster declares {size.deployments:,} Deployments late",
        cpu(process.pid) - before, "s", None, "they have no Pods here; silence is measured after that",
    )  # fmt: skip


def _late(deployment: dict[str, Any]) -> bool:
    conditions = (deployment.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Progressing" and c["status"] == "False" for c in conditions)


async def silence(plane: Plane, process: Process, size: Size) -> list[Row]:
    """Nothing happens."""
    seen, before, start = len(calls(plane)), cpu(process.pid), time.monotonic()
    end = start + size.quiet
    while time.monotonic() < end:
        await line(process)  # it tells its state once a second, and stops when nobody reads
    share = (cpu(process.pid) - before) / (time.monotonic() - start) * 100
    asked = calls(plane)[seen:]
    written = [e for e in asked if e["verb"] in ("create", "update", "patch", "delete")]
    return [
        Row(f"{size.name}: writes while nothing changes", len(written), "", 0.0,
            f"over {size.quiet / 60:.1f} min; {len(asked)} watches renewed and the like"),
        Row(f"{size.name}: CPU while nothing changes", share, "% of a core", 1.0),
    ]  # fmt: skip


async def changes(client: KubeClient, process: Process, size: Size) -> Row:
    """One Agent's spec changes; until a watch tells of its Deployment's new generation."""
    version = (await client.list(k.DEPLOYMENT, NAMESPACE, metadata_only=True)).resource_version
    seen: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

    async def follow() -> None:
        async for event in client.watch(k.DEPLOYMENT, NAMESPACE, resource_version=version):
            if (
                event.type == "MODIFIED"
                and (event.object.get("status") or {}).get("observedGeneration")
                != (event.object["metadata"]["generation"])
            ):
                seen.put_nowait((event.object["metadata"]["name"], time.monotonic()))

    following, reading = asyncio.create_task(follow()), asyncio.create_task(_drain(process))
    latencies: list[float] = []
    before = cpu(process.pid)
    try:
        for number in range(size.changes):
            name = f"agent-{number * 7 % size.agents:04}"
            change = {"spec": {"declarative": {"systemMessage": f"Answer with {number} words."}}}
            start = time.monotonic()
            await client.patch(k.AGENT, name, change, NAMESPACE)
            async with asyncio.timeout(30.0):
                while (found := await seen.get())[0] != name:
                    pass
            latencies.append(found[1] - start)
    finally:
        for task in (following, reading):
            task.cancel()
        await asyncio.gather(following, reading, return_exceptions=True)
    latencies.sort()
    p99 = latencies[min(int(len(latencies) * 0.99), len(latencies) - 1)]
    each = (cpu(process.pid) - before) / size.changes * 1e3
    return Row(
        f"{size.name}: one Agent changed until its Deployment is, p99", p99, "s", 1.0,
        f"p50 {latencies[len(latencies) // 2]:.3f} s, {size.changes} changes, {each:.0f} ms CPU each",
    )  # fmt: skip


async def _drain(process: Process) -> None:
    while True:
        await line(process)


async def relists(plane: Plane, config: dict[str, Any], process: Process, size: Size) -> list[Row]:
    """All kinds listed anew in the running process; then a restart, which reconciles everything too."""
    state = await settled(process, 0, 300.0)
    seen, before, wanted = len(calls(plane)), cpu(process.pid), state["lists"] + state["informers"]
    process.send_signal(signal.SIGUSR1)
    async with asyncio.timeout(120.0):
        while state["lists"] < wanted:
            state = json.loads(await line(process))
    await settled(process, 0, 120.0)
    listed = cpu(process.pid) - before
    lists = sum(e["verb"] == "list" for e in calls(plane)[seen:])
    process.terminate()
    await process.wait()
    async with controllers(config, **LIKE_A_CLUSTER) as again:
        state = await settled(again, size.objects, 300.0)
        return [
            Row(f"{size.name}: CPU of listing everything anew", listed, "s", None, f"{lists} pages"),
            Row(f"{size.name}: writes after a restart", state["writes"], "", 0.0,
                f"{state['reconciles']} reconciles, {cpu(again.pid):.1f} s CPU with start-up"),
        ]  # fmt: skip


async def one(size: Size) -> list[Row]:
    """All figures of one size, on a cluster of its own."""
    with running_plane(nodes=0, service_cidr="10.96.0.0/16") as plane:
        client = KubeClient(plane.client_config())
        config = asdict(plane.client_config()) | {"user_agent": AGENT}
        try:
            await prepare(client)
            async with controllers(config, **LIKE_A_CLUSTER) as process:
                await settled(process, 0, 60.0)
                rows, _ = await creation(plane, client, process, size)
                if size.quiet > _LATE_AFTER / 2:
                    rows.append(await given_up(client, process, size))
                rows += await silence(plane, process, size)
                rows.append(await changes(client, process, size))
                rows += await relists(plane, config, process, size)
        finally:
            await client.close()
    return rows


async def takeover(rounds: int) -> list[Row]:
    """Two replicas; the leader is killed. Until the other writes: an Agent made at that moment has its Deployment."""
    size, took = Size(1, 0, 0.0), list[float]()
    with running_plane(nodes=0) as plane:
        client = KubeClient(plane.client_config())
        config = asdict(plane.client_config()) | {"user_agent": AGENT}
        try:
            await prepare(client)
            async with AsyncExitStack() as stack:
                leader = await stack.enter_async_context(controllers(config, BENCH_IDENTITY="0"))
                await until(leader, "leads")
                for res, obj in model(0):
                    await client.create(res, obj)
                for number in range(1, rounds + 1):
                    other = await stack.enter_async_context(controllers(config, BENCH_IDENTITY=str(number)))
                    await until(other, "synced")
                    await client.create(k.MCP_SERVER, mcp_server(number))
                    await deployments(client, 2 * number - 1, 60.0)
                    leader.kill()
                    start = time.monotonic()
                    await client.create(k.AGENT, agent(number, size))
                    await deployments(client, 2 * number, 60.0)
                    took.append(time.monotonic() - start)
                    leader = other
        finally:
            await client.close()
    text = ", ".join(f"{seconds:.1f}" for seconds in took)
    return [Row("leader killed (SIGKILL) until the other replica writes, worst", max(took), "s", 20.0, f"{text} s")]


async def until(process: Process, what: str) -> None:
    """Until its state says so."""
    async with asyncio.timeout(120.0):
        while not json.loads(await line(process))[what]:
            pass


async def bench(quick: bool) -> list[Row]:
    """Both sizes."""
    rows: list[Row] = []
    for count in (50, 200) if quick else (100, 1_000):
        rows += await one(Size(count, 20 if quick else 100, 20.0 if quick or count < 1_000 else 600.0))
    return rows


async def takeover_bench(quick: bool) -> list[Row]:
    """The leader is killed, three times."""
    return await takeover(1 if quick else 3)
