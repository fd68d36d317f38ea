"""Pod subresources against a kubelet that speaks real TLS, HTTP and WebSocket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus

from quarterdeck.apiserver.pods import PodProxy
from quarterdeck.errors import ApiError
from quarterdeck.kube.resource import NODE, POD
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Server


def kubelet_tls(pki: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = pki.node_serving_pair("n1")
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(cadata=pki.ca_pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def publish(objects: Any, port: int) -> None:
    status = {
        "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    objects.put(NODE, {"metadata": {"name": "n1"}, "status": status})
    spec = {"nodeName": "n1", "containers": [{"name": "a"}]}
    objects.put(POD, {"metadata": {"name": "p", "namespace": "ns"}, "spec": spec, "status": {"phase": "Running"}})
    two = {"nodeName": "n1", "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}
    objects.put(POD, {"metadata": {"name": "two", "namespace": "ns"}, "spec": two})
    objects.put(POD, {"metadata": {"name": "new", "namespace": "ns"}, "spec": {"containers": [{"name": "a"}]}})


class Kubelet:
    """Answers /containerLogs; ``gone`` is set when a follower's connection ends."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self.subjects: list[Any] = []
        self.gone = asyncio.Event()
        self.sent = 0
        self.server = Server(self.handle)

    async def handle(self, exchange: Exchange) -> None:
        target = exchange.target.decode()
        self.targets.append(target)
        self.subjects.append((exchange.peer_certificate or {}).get("subject"))
        exchange.on_disconnect(self.gone.set)
        if "previous=true" in target:
            exchange.respond(400, b'previous terminated container "a" in pod "p" not found\n')
            return
        exchange.start(200)
        await exchange.send(b"one\n")
        while "follow=true" in target:
            await exchange.send(b"x" * 65536)
            self.sent += 65536
        exchange.finish()


@pytest.fixture
async def kubelet(objects: Any, pki: Any) -> AsyncIterator[Kubelet]:
    kubelet = Kubelet()
    _, port = await kubelet.server.listen("127.0.0.1", 0, tls=kubelet_tls(pki))
    publish(objects, port)
    yield kubelet
    await kubelet.server.stop(0)


@pytest.fixture
async def front(objects: Any, pki: Any) -> AsyncIterator[int]:
    """An API server that knows only Pod subresources; returns its port."""
    proxy = PodProxy(objects, pki.kubelet_client_context())
    verbs = {"log": proxy.log, "exec": proxy.exec, "attach": proxy.attach, "portforward": proxy.port_forward}

    async def handle(exchange: Exchange) -> None:
        name, verb = exchange.path.strip("/").split("/")
        try:
            await verbs[verb](exchange, "ns", name)
        except ApiError as error:
            exchange.respond(error.status_code, str(error).encode())

    server = Server(handle)
    _, port = await server.listen("127.0.0.1", 0)
    yield port
    proxy.close()
    await server.stop(0)


async def get(port: int, target: str) -> tuple[int, str]:
    pool = Pool()
    response = await pool.request("GET", ("127.0.0.1", port, False), target)
    text = (await response.read()).decode()
    pool.close()
    return response.status, text


async def test_log(kubelet: Kubelet, front: int) -> None:
    target = "/p/log?tailLines=5&timestamps&sinceSeconds=60&limitBytes=9&follow=false"
    assert await get(front, target) == (200, "one\n")
    assert kubelet.targets == ["/containerLogs/ns/p/a?timestamps=true&sinceSeconds=60&tailLines=5&limitBytes=9"]
    subject = (("organizationName", "system:masters"),), (("commonName", "kube-apiserver-kubelet-client"),)
    assert kubelet.subjects == [subject]


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("/two/log", 400, "a container name must be specified for pod two, choose one of: [a b] or one of the init "
                          "containers: [i]"),
        ("/two/log?container=x", 400, "container x is not valid for pod two"),
        ("/none/log", 404, 'pods "none" not found'),
        ("/new/log", 200, ""),
        ("/p/log?previous=true", 400, 'previous terminated container "a" in pod "p" not found'),
        ("/p/log?tailLines=-1", 422, 'PodLogOptions "p" is invalid: tailLines: Invalid value: -1: must be greater than '
                                     "or equal to 0"),
        ("/p/exec?command=ls&stdout=1", 400, "Upgrade request required"),
        ("/p/exec?stdout=1", 400, "you must specify at least 1 command"),
        ("/p/exec?command=ls", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/new/exec?command=ls&stdout=1", 400, "pod new does not have a host assigned"),
    ],
)  # fmt: skip
async def test_refusals(kubelet: Kubelet, front: int, target: str, status: int, text: str) -> None:
    assert await get(front, target) == (status, text)


async def test_a_slow_reader_slows_the_kubelet_and_leaving_ends_it(kubelet: Kubelet, front: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", front, limit=1024)
    writer.write(b"GET /p/log?follow=true HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    before = -1
    while before != kubelet.sent:  # it stands still once every buffer on the way is full
        before = kubelet.sent
        for _ in range(200):
            await asyncio.sleep(0)
    assert kubelet.sent < 64 * 1024 * 1024
    writer.transport.abort()
    await asyncio.wait_for(kubelet.gone.wait(), 30)


async def test_an_unreachable_kubelet_is_an_internal_error(objects: Any, front: int) -> None:
    publish(objects, 1)
    status, text = await get(front, "/p/log")
    assert status == 500 and "https://127.0.0.1:1/containerLogs/ns/p/a" in text


async def test_exec_is_relayed_over_websocket(objects: Any, pki: Any, front: int) -> None:
    seen: list[str] = []

    async def shell(socket: Any) -> None:
        seen.append(socket.request.path)
        seen.append(str(socket.request.headers.get("Authorization")))
        async for message in socket:
            await socket.send(b"\x01" + bytes(message[1:]))
            if message == b"\x00exit":
                return

    async with serve(
        shell, "127.0.0.1", 0, ssl=kubelet_tls(pki), subprotocols=["v5.channel.k8s.io"], max_size=None
    ) as kubelet:  # type: ignore[list-item]
        publish(objects, kubelet.sockets[0].getsockname()[1])
        uri = f"ws://127.0.0.1:{front}/p/exec?command=sh&command=-c&stdin=true&stdout=true&tty=false"
        headers = {"Authorization": "Bearer secret"}
        async with connect(
            uri, subprotocols=["v5.channel.k8s.io"], additional_headers=headers, max_size=None
        ) as client:  # type: ignore[list-item]
            assert client.subprotocol == "v5.channel.k8s.io"
            big = b"\x00" + b"y" * 3_000_000
            await client.send(big)
            assert await client.recv() == b"\x01" + big[1:]
            await client.send(b"\x00exit")
            assert await client.recv() == b"\x01exit"
            await asyncio.wait_for(client.wait_closed(), 30)
    assert seen == ["/exec/ns/p/a?input=1&output=1&command=sh&command=-c", "None"]


async def test_portforward_ends_on_the_node_when_the_client_leaves(objects: Any, pki: Any, front: int) -> None:
    closed = asyncio.Event()

    async def forward(socket: Any) -> None:
        assert socket.request.path == "/portForward/ns/p?port=8080"
        await socket.wait_closed()
        closed.set()

    async with serve(forward, "127.0.0.1", 0, ssl=kubelet_tls(pki)) as kubelet:
        publish(objects, kubelet.sockets[0].getsockname()[1])
        client = await connect(f"ws://127.0.0.1:{front}/p/portforward?ports=8080")
        client.transport.abort()
        await asyncio.wait_for(closed.wait(), 30)


async def test_a_refused_upgrade_reaches_the_client(objects: Any, pki: Any, front: int) -> None:
    async def refuse(exchange: Exchange) -> None:
        exchange.respond(404, b"container not found")

    server = Server(refuse)
    _, port = await server.listen("127.0.0.1", 0, tls=kubelet_tls(pki))
    publish(objects, port)
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://127.0.0.1:{front}/p/exec?command=ls&stdout=1")
    await server.stop(0)
    assert caught.value.response.status_code == 404
    assert caught.value.response.body == b"container not found"
