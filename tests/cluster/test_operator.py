"""Two replicas of the operator at a real API server: one leads, both serve; what people edited stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.resources.crd import crds
from quarterdeck.server.operator import Operator
from quarterdeck.server.operator_options import parse

from .plane import Plane, available, plane

COMMANDS, WHY = available()
pytestmark = [
    pytest.mark.skipif(COMMANDS is None, reason=f"kube-apiserver: {WHY}"),
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]
SYSTEM = "quarterdeck-system"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[tuple[Plane, KubeClient]]:
    with plane(controllers=False) as started:
        admin = KubeClient(started.client_config())
        await admin.create(k.NAMESPACE, {"metadata": {"name": SYSTEM}})
        yield started, admin
        await admin.close()


def replica(started: Plane, tmp_path: Path, name: str) -> Operator:
    return Operator(
        parse(
            [
                f"--namespace={SYSTEM}", f"--kubeconfig={started.kubeconfig}", "--api=127.0.0.1:0", "--webhook=off",
                "--kagent=127.0.0.1:0", "--health=127.0.0.1:0", f"--database-url={tmp_path / name}.db",
            ],
            {"POD_NAME": name},
        )
    )  # fmt: skip


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 40.0) -> None:
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.1)


async def health(operator: Operator, path: str) -> tuple[int, str]:
    host, port = operator.addresses["health"]
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_one_leads_and_both_serve(server: tuple[Plane, KubeClient], tmp_path: Path) -> None:
    started, admin = server
    first, second = replica(started, tmp_path, "one"), replica(started, tmp_path, "two")
    try:
        await asyncio.gather(first.start(), second.start())
        await until(lambda: leads(first, second))
        assert await health(first, "/livez") == (200, "ok\n")
        status, text = await health(first, "/readyz")
        assert status == 503 and "agents" in text, "the definitions are missing, and it says which"
        for document in crds():
            await admin.apply(k.CRD, document)
        for each in (first, second):
            await until(lambda each=each: is_ready(each))
        token = await gateway_token(admin)
        assert await configuration(first, token) == await configuration(second, token)
        assert (await configuration(first, token))["gateway"] == f"{SYSTEM}/quarterdeck"
        await until(lambda: exists(admin, "default-model-config"))

        leader, other = (first, second) if first.elector.is_leader else (second, first)
        await leader.stop()
        await until(lambda: leads(other))
        assert 'leader_election_master_status{name="quarterdeck-controller"} 1' in (await health(other, "/metrics"))[1]
        assert await configuration(other, token)
    finally:
        for each in (first, second):
            await each.stop()


async def leads(*operators: Operator) -> bool:
    return sum(operator.elector.is_leader for operator in operators) == 1


async def is_ready(operator: Operator) -> bool:
    return await health(operator, "/readyz") == (200, "ready\n")


async def exists(admin: KubeClient, name: str) -> bool:
    return any(m["metadata"]["name"] == name for m in (await admin.list(k.MODEL_CONFIG, "kagent")).items)


async def gateway_token(admin: KubeClient) -> str:
    """As the gateway's Pod has it."""
    await admin.apply(k.SERVICE_ACCOUNT, {"metadata": {"name": "quarterdeck", "namespace": SYSTEM}})
    spec = {"audiences": ["quarterdeck"]}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    made = await admin.create(k.SERVICE_ACCOUNT, request, SYSTEM, name="quarterdeck", subresource="token")
    return made["status"]["token"]


async def configuration(operator: Operator, token: str) -> dict[str, object]:
    host, port = operator.addresses["api"]
    url = f"http://{host}:{port}/v1/gateways/{SYSTEM}/quarterdeck/config"
    headers = {"authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
        assert answer.status == 200, await answer.text()
        return json.loads(await answer.text())


async def test_a_default_model_that_somebody_edited_stays(server: tuple[Plane, KubeClient], tmp_path: Path) -> None:
    started, admin = server
    spec = {"spec": {"model": "mine", "provider": "Ollama"}}
    await admin.patch(k.MODEL_CONFIG, "default-model-config", spec, "kagent")
    secrets = {name: await admin.get(k.SECRET, name, SYSTEM) for name in ("quarterdeck-gateway-key",)}
    operator = replica(started, tmp_path, "three")
    stop = asyncio.Event()
    running = asyncio.create_task(operator.run(stop))
    try:
        await until(lambda: leads_at_last(operator))
        await until(lambda: is_ready(operator))
        kept = await admin.get(k.MODEL_CONFIG, "default-model-config", "kagent")
        assert kept["spec"] == spec["spec"]
        for name, before in secrets.items():
            assert await admin.get(k.SECRET, name, SYSTEM) == before
        stop.set()
        await asyncio.wait_for(running, 20)
        assert not operator.elector.is_leader
        assert await health(operator, "/readyz") == (503, "shutting down\n")
    finally:
        running.cancel()
        await operator.stop()


async def leads_at_last(operator: Operator) -> bool:
    return "health" in operator.addresses and operator.elector.is_leader
