"""Two replicas of the operator at a real API server: one leads, both serve; what people edited stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.options import Options
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.resources.crd import crds
from quarterdeck.server.database import Database
from quarterdeck.server.operator import Operator
from quarterdeck.server.operator_options import parse
from quarterdeck.wire.http import Exchange, Server

from .plane import NO_ROUTES, Plane, available, plane

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
                "--kagent=127.0.0.1:0", "--health=127.0.0.1:0", f"--database-url={tmp_path}/shared.db",
            ],
            {"POD_NAME": name},
        )
    )  # fmt: skip


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def database(tmp_path: Path) -> None:
    """All replicas share one, as two must: made before they start, since of SQLite they do not take turns."""
    await (await Database.open(f"{tmp_path}/shared.db")).close()


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 90) -> None:
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
        await until(lambda: agree(first, second, token))
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


async def agree(first: Operator, second: Operator, token: str) -> bool:
    """Both tell the gateway the same; each follows the cluster by itself, so not at the same moment."""
    return await configuration(first, token) == await configuration(second, token)


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
        await asyncio.wait_for(running, 30)
        assert not operator.elector.is_leader
        assert await health(operator, "/readyz") == (503, "shutting down\n")
    finally:
        running.cancel()
        await operator.stop()


async def leads_at_last(operator: Operator) -> bool:
    return "health" in operator.addresses and operator.elector.is_leader


class Relay:
    """The Service before the replicas: each new connection goes to ``target``."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()

    def switch(self, target: tuple[str, int]) -> None:
        """To another replica, as when the one before is taken out of the Service and gone."""
        self.target, self.connections = target, 0
        for writer in self._open:
            writer.transport.abort()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            upstream = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, upstream[1]}
        await asyncio.gather(_carry(reader, upstream[1]), _carry(upstream[0], writer), return_exceptions=True)
        self._open -= {writer, upstream[1]}


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def _answer(exchange: Exchange) -> None:
    exchange.respond(200, b'{"jsonrpc":"2.0","id":1,"result":{"awake":true}}', [(b"content-type", b"application/json")])


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_call_that_is_held_outlives_the_leader(
    server: tuple[Plane, KubeClient], tmp_path: Path, when: str
) -> None:
    """The call comes before the leader goes, asking a standby in vain, or while nobody leads: another one wakes."""
    started, admin = server
    if not started.routes:
        pytest.skip(NO_ROUTES)
    for document in crds():
        await admin.apply(k.CRD, document)
    name = f"sleeper-{when}"
    first, second = replica(started, tmp_path, f"one-{when}"), replica(started, tmp_path, f"two-{when}")
    async with contextlib.AsyncExitStack() as stack:
        for each in (first, second):
            stack.push_async_callback(each.stop)
        await asyncio.gather(first.start(), second.start())
        await until(lambda: leads(first, second))
        leader, other = (first, second) if first.elector.is_leader else (second, first)
        await until(lambda: is_ready(leader))
        await until(lambda: is_ready(other))
        spec = {"type": "Declarative", "declarative": {"systemMessage": "z"}, "replicas": 0,
                "scaleToZero": {"after": "1h", "hold": "60s"}}  # fmt: skip
        await admin.apply(k.AGENT, {"metadata": {"name": name, "namespace": "kagent"}, "spec": spec})
        await until(lambda: replicas_are(admin, name, 0))

        relay = Relay(leader.addresses["api"])  # where the configuration comes from
        service = await asyncio.start_server(relay.handle, "127.0.0.1", 0)
        stack.callback(service.close)
        url = f"http://127.0.0.1:{service.sockets[0].getsockname()[1]}"
        gateway = await stack.enter_async_context(running_gateway(url, await gateway_token(admin), tmp_path))
        await until(lambda: knows(gateway, name))
        relay.switch(other.addresses["api"])
        if when == "after":
            await leader.stop()
        call = asyncio.create_task(ask(gateway, admin, name))
        stack.callback(call.cancel)
        if when == "before":
            await until(lambda: more_than(relay, 2))
            assert await replicas_are(admin, name, 0), "a standby wakes nobody"
            await leader.stop()
        await until(lambda: replicas_are(admin, name, 1))
        assert other.elector.is_leader and not call.done()

        peer = Server(_answer)
        host, port = await peer.listen(urlsplit(started.url).hostname or "", 0)  # a real server takes no loopback here
        stack.push_async_callback(peer.stop, 0.1)
        made = await admin.get(k.SERVICE, name, "kagent")
        await admin.create(k.ENDPOINT_SLICE, {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "kagent", "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [host]}],
            "ports": [{"name": made["spec"]["ports"][0].get("name", ""), "port": port}],
        })  # fmt: skip
        assert await asyncio.wait_for(call, 30) == (200, {"awake": True})


async def replicas_are(admin: KubeClient, name: str, wanted: int) -> bool:
    found = {d["metadata"]["name"]: d["spec"]["replicas"] for d in (await admin.list(k.DEPLOYMENT, "kagent")).items}
    return found.get(name) == wanted


async def more_than(relay: Relay, count: int) -> bool:
    return relay.connections > count


async def knows(gateway: Gateway, name: str) -> bool:
    return any(agent.name == name and agent.wake for agent in gateway.snapshot.agents)


@contextlib.asynccontextmanager
async def running_gateway(url: str, token: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    file, zero = tmp_path / "token", ("127.0.0.1", 0)
    file.write_text(token)
    gateway = Gateway(
        Options(zero, zero, zero, zero, zero, control_plane=url, data_dir=tmp_path / "gateway", token_file=file,
                audit_file=tmp_path / "audit.jsonl")
    )  # fmt: skip
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop(0.2)


async def ask(gateway: Gateway, admin: KubeClient, name: str) -> tuple[int, object]:
    secret = await admin.get(k.SECRET, "quarterdeck-access-token", SYSTEM)
    headers = {"authorization": f"Bearer {b64decode(secret['data']['token']).decode()}"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {}}
    url = f"{gateway.endpoints['local']}/a2a/kagent/{name}"
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=body) as answer:
        said = json.loads(await answer.text())
        return answer.status, said.get("result", said)
