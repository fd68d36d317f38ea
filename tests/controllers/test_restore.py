"""What others write into an owned workload is put back: on the embedded API server and on a real kube-apiserver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.plane import available, running
from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.controllers import ControllerOptions, bootstrap, build
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.resource import Object
from quarterdeck.resources.crd import crds

COMMANDS, WHY = available()
RESTARTED = "kubectl.kubernetes.io/restartedAt"
SERVER = {
    "apiVersion": "kagent.dev/v1alpha1", "kind": "MCPServer", "metadata": {"name": "m", "namespace": "kagent"},
    "spec": {"deployment": {"cmd": "uvx", "args": ["x"]}, "transportType": "stdio"},
}  # fmt: skip


@pytest.fixture(params=["embedded", "kube-apiserver"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KubeClient]:
    if request.param == "embedded":
        server = ApiServer(ApiServerConfig(tmp_path, port=0))
        await server.start()
        client = KubeClient(ClientConfig(**server.client_config()))
        await prepare(client)
        yield client
        await client.close()
        await server.stop()
        return
    if COMMANDS is None:
        pytest.skip(f"kube-apiserver: {WHY}")
    with running(COMMANDS) as peer:
        client = KubeClient(ClientConfig(**peer.config))
        await prepare(client)
        yield client
        await client.close()


async def prepare(client: KubeClient) -> None:
    for crd in crds():
        await client.apply(k.CRD, crd)
    for namespace in bootstrap.namespaces():
        await client.apply(k.NAMESPACE, namespace)
    async with asyncio.timeout(20):
        while any(not established(crd) for crd in (await client.list(k.CRD)).items):
            await asyncio.sleep(0.05)


def established(crd: Object) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


async def eventually(client: KubeClient, check: Callable[[Object], Any]) -> Object:
    async with asyncio.timeout(20):
        while True:
            found = [d for d in (await client.list(k.DEPLOYMENT, "kagent")).items if d["metadata"]["name"] == "m"]
            if found and check(found[0]):
                return found[0]
            await asyncio.sleep(0.02)


async def settled(client: KubeClient, idle: Any) -> None:
    quiet, last = 0, -1
    async with asyncio.timeout(30):
        while quiet < 25:
            await asyncio.sleep(0.01)
            quiet = quiet + 1 if idle.idle and client.writes == last else 0
            last = client.writes


def names(deployment: Object) -> list[str]:
    return [c["name"] for c in deployment["spec"]["template"]["spec"]["containers"]]


def variables(deployment: Object) -> set[str]:
    return {v["name"] for v in deployment["spec"]["template"]["spec"]["containers"][0].get("env") or ()}


@pytest.mark.timeout(180)
async def test_additions_are_taken_out_and_a_restart_stays(client: KubeClient) -> None:
    controllers, _ = build(client, ControllerOptions(discovery_interval=3600))
    await controllers.start()
    try:
        await client.create(k.MCP_SERVER, SERVER)
        first = await eventually(client, lambda d: True)
        await settled(client, controllers)
        main = names(first)[0]
        foreign = {"spec": {"containers": [{"name": main, "env": [{"name": "FOREIGN", "value": "1"}]}]}}
        stamp = {"metadata": {"annotations": {RESTARTED: "2026-01-01T00:00:00Z"}}}
        for body, manager in ((stamp, "kubectl-rollout"), (foreign, "kubectl-set")):
            patch = {"spec": {"template": body}}
            await client.patch(k.DEPLOYMENT, "m", patch, "kagent", kind="strategic", field_manager=manager)
        restored = await eventually(client, lambda d: "FOREIGN" not in variables(d))
        assert variables(restored) == variables(first)
        sidecar = [{"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "s", "image": "s"}}]
        await client.patch(k.DEPLOYMENT, "m", sidecar, "kagent", kind="json", field_manager="kubectl-patch")
        restored = await eventually(client, lambda d: names(d) == [main])
        assert restored["spec"]["template"]["metadata"]["annotations"][RESTARTED] == "2026-01-01T00:00:00Z"
        changed = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other"}]
        await client.patch(k.DEPLOYMENT, "m", changed, "kagent", kind="json", field_manager="kubectl-set")
        image = first["spec"]["template"]["spec"]["containers"][0]["image"]
        await eventually(client, lambda d: d["spec"]["template"]["spec"]["containers"][0]["image"] == image)
        await settled(client, controllers)
        events = [e for e in (await client.list(k.EVENT, "kagent")).items if e["reason"] == "Restored"]
        assert events
    finally:
        await controllers.stop()

    again, _ = build(client, ControllerOptions(discovery_interval=3600))
    before = client.writes
    await again.start()
    try:
        await settled(client, again)
        assert client.writes == before, "nothing is left to put back"
    finally:
        await again.stop()
