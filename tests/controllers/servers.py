"""Our controllers beside an API server with a cluster's own controllers: the embedded ones, or Kubernetes' real ones.

No node: what is tested is what is written and said, not what runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from cluster.plane import Plane
from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.apiserver.workloads import controllers as workload_controllers
from quarterdeck.controllers import ControllerOptions, GatewayConfig, build
from quarterdeck.errors import NotFound
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.resources.crd import crds

MODEL = {"provider": "Scripted", "model": "scripted"}


class World:
    """One API server as an administrator sees it. ``config`` reaches it with the same rights."""

    def __init__(self, client: KubeClient, config: ClientConfig, plane: Plane | None) -> None:
        self.client = client
        self.config = config
        self.plane = plane
        """None for the embedded server."""

    async def create(self, res: Resource, body: Object) -> Object:
        return await self.client.create(res, {"apiVersion": res.api_version, "kind": res.kind} | body)

    async def namespace(self, prefix: str = "team", labels: dict[str, str] | None = None) -> str:
        name = f"{prefix}-{uuid4().hex[:8]}"
        await self.create(k.NAMESPACE, {"metadata": {"name": name, "labels": labels or {}}})
        return name

    async def model(self, namespace: str, name: str = "default-model-config") -> None:
        await self.create(k.MODEL_CONFIG, {"metadata": {"name": name, "namespace": namespace}, "spec": MODEL})

    @asynccontextmanager
    async def operator(self, **options: Any) -> AsyncGenerator[tuple[ControllerSet, GatewayConfig]]:
        """Our controllers with a client of their own, so that their writes can be counted; ``options`` are theirs."""
        client = KubeClient(self.config)
        controllers, gateway = build(client, ControllerOptions(discovery_interval=3600, **options))
        await controllers.start()
        try:
            yield controllers, gateway
        finally:
            await controllers.stop()
            await client.close()

    async def eventually(self, read: Callable[[], Any], what: str, seconds: float = 90) -> Any:
        """What the coroutine function ``read`` gives once that is true."""
        last: Any = None
        try:
            async with asyncio.timeout(seconds):
                while not (last := await read()):
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s: {what}") from None
        return last

    async def find(self, res: Resource, namespace: str, name: str) -> Object | None:
        try:
            return await self.client.get(res, name, namespace)
        except NotFound:
            return None

    async def condition(
        self, res: Resource, namespace: str, name: str, kind: str, status: str, reason: str = "", seconds: float = 90
    ) -> Object:
        """The condition once it has ``status`` (and ``reason``) for the newest generation."""
        seen: list[Any] = [None]

        async def read() -> Object | None:
            obj = await self.find(res, namespace, name) or {"metadata": {}}
            found = get_condition((obj.get("status") or {}).get("conditions"), kind) or {}
            seen[0] = (obj.get("status") or {}).get("conditions")
            current = found.get("observedGeneration") == obj["metadata"].get("generation")
            return found if current and found.get("status") == status and reason in ("", found["reason"]) else None

        try:
            return await self.eventually(read, kind, seconds)
        except AssertionError:
            raise AssertionError(f"{res.kind} {name}: no {kind}={status} {reason}; there are {seen[0]}") from None

    async def warned(self, namespace: str, name: str, reason: str) -> Object:
        """A Warning about the object."""

        async def read() -> Object | None:
            events = (await self.client.list(k.EVENT, namespace)).items
            return next(
                (
                    e
                    for e in events
                    if (e["involvedObject"]["name"], e["type"], e["reason"]) == (name, "Warning", reason)
                ),
                None,
            )

        return await self.eventually(read, f"Warning {reason} about {name}")

    async def gone(self, res: Resource, namespace: str, name: str) -> None:
        last: Object | None = None

        async def read() -> bool:
            nonlocal last
            last = await self.find(res, namespace, name)
            return last is None

        try:
            await self.eventually(read, f"{res.kind} {name} is gone", 210)  # a real garbage collector takes its time
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}") from None


async def quiet(controllers: ControllerSet, turns: int = 25) -> None:
    """No key waits and nothing was written for a while of event-loop turns."""
    calm, last = 0, -1
    async with asyncio.timeout(30):
        while calm < turns:
            await asyncio.sleep(0.01)
            writes = controllers.client.writes
            calm = calm + 1 if controllers.idle and writes == last else 0
            last = writes


async def prepare(client: KubeClient) -> None:
    """Our definitions, once."""
    for crd in crds():
        await client.apply(k.CRD, crd)
    async with asyncio.timeout(30):
        while not all(map(_established, (await client.list(k.CRD)).items)):
            await asyncio.sleep(0.05)
    await client.apply(k.NAMESPACE, {"metadata": {"name": "kagent"}})


def _established(crd: Object) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


@asynccontextmanager
async def embedded(path: Path, *, workloads: bool = True) -> AsyncGenerator[World]:
    """``workloads``: with the cluster's own controllers."""
    server = ApiServer(ApiServerConfig(path, port=0))
    await server.start()
    config = ClientConfig(**server.client_config())
    client = KubeClient(config)
    built_in = workload_controllers(client)
    try:
        await prepare(client)
        if workloads:
            await built_in.start()
        yield World(client, config, None)
    finally:
        if workloads:
            await built_in.stop()
        await client.close()
        await server.stop()


@asynccontextmanager
async def real(plane: Plane) -> AsyncGenerator[World]:
    """A shared plane; the namespaces made here go with the world."""
    config = plane.client_config()
    client = KubeClient(config)
    before = {item["metadata"]["name"] for item in (await client.list(k.NAMESPACE)).items}
    try:
        if "kagent" not in before:
            await prepare(client)
        yield World(client, config, plane)
    finally:
        for name in names((await client.list(k.NAMESPACE)).items) - before - {"kagent"}:
            await client.delete(k.NAMESPACE, name)
        for res in (k.AGENT, k.MCP_SERVER, k.REMOTE_MCP_SERVER, k.MODEL_CONFIG):
            await client.delete_collection(res, "kagent")
        await client.close()


def names(objects: Iterable[Object]) -> set[str]:
    return {obj["metadata"]["name"] for obj in objects}
