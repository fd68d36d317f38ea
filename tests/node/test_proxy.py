"""Services of a cluster on this node: relays at their addresses, names in /etc/hosts. Loopback needs no rights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.kube.resource import ENDPOINT_SLICE, SERVICE
from quarterdeck.node.hosts import hosts_text, write_hosts
from quarterdeck.node.proxy import ServiceProxy, targets
from quarterdeck.node.services import port_endpoints, ready_addresses
from quarterdeck.node.usage import machine_usage

from .fake_api import FakeApi

ADDRESS = "127.77.3.9"
"""Of the Service; tests of this module run one after the other."""


def service(name: str = "web", ip: str = ADDRESS, namespace: str = "default", **port: Any) -> dict[str, Any]:
    wanted = {"port": 18080, "targetPort": 8080, "protocol": "TCP"} | port
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [wanted]},
    }


def slice_of(*endpoints: tuple[str, dict[str, bool]], port: int = 8080, name: str = "web-1") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "", "port": port}],
        "endpoints": [{"addresses": [a], "conditions": c} for a, c in endpoints],
    }


READY = {"ready": True, "serving": True, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
BROKEN = {"ready": False, "serving": False, "terminating": False}


@pytest.mark.parametrize(
    ("slices", "found"),
    [
        ([slice_of(("10.0.0.1", READY), ("10.0.0.2", BROKEN))], ["10.0.0.1"]),
        ([slice_of(("10.0.0.1", {}))], ["10.0.0.1"]),
        ([slice_of(("10.0.0.1", LEAVING), ("10.0.0.2", BROKEN))], ["10.0.0.1"]),
        ([slice_of(("10.0.0.1", LEAVING)), slice_of(("10.0.0.2", READY), name="web-2")], ["10.0.0.2"]),
        ([slice_of(("10.0.0.2", BROKEN))], []),
        ([], []),
    ],
    ids=["ready", "unknown is ready", "leaving when none is ready", "ready in another slice", "broken", "none"],
)
def test_who_gets_connections(slices: list[dict[str, Any]], found: list[str]) -> None:
    assert port_endpoints(slices, "") == [(address, 8080) for address in found]
    assert ready_addresses(slices) == found
    assert targets(service(), slices) == ({(ADDRESS, 18080): [(a, 8080) for a in found]} if found else {})


def test_ports_are_told_apart_by_name_and_protocol() -> None:
    ready = [slice_of(("10.0.0.1", READY))]
    assert targets(service(name="a", ip="None"), ready) == {}
    assert targets(service(protocol="UDP"), ready) == {}
    assert port_endpoints(ready, "other") == []


def test_the_names_of_services() -> None:
    pod = {"metadata": {"name": "p-1", "namespace": "default"}, "spec": {
        "hostAliases": [{"ip": "10.9.9.9", "hostnames": ["a", "b"]}]}}  # fmt: skip
    head = service(ip="None", name="head", namespace="other")
    told = hosts_text(pod, "10.0.0.7", [(service(), []), (head, [slice_of(("10.0.0.1", READY))])])
    assert told.splitlines()[2:] == [
        "10.0.0.7 p-1",
        "10.9.9.9 a b",
        f"{ADDRESS} web.default.svc.cluster.local web.default.svc web.default web",
        "10.0.0.1 head.other.svc.cluster.local head.other.svc head.other",
    ]


def test_the_file_stays_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    write_hosts(path, "one\n")
    before = path.stat().st_ino
    write_hosts(path, "two\n")
    assert (path.read_text(), path.stat().st_ino) == ("two\n", before)


def test_what_the_machine_uses() -> None:
    usage = machine_usage("cpu  100 10 40 9000 50 5 5 0 0 0\n", "MemTotal: 1000 kB\nMemAvailable: 400 kB\n")
    assert (usage.cpu_nanoseconds, usage.memory) == (160 * 10_000_000, 600 * 1024)


# -- the relay


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    found = FakeApi()
    await found.create(SERVICE, service())
    yield found


@pytest.fixture
async def proxy(api: FakeApi) -> AsyncIterator[ServiceProxy]:
    changed = asyncio.Event()
    started = ServiceProxy(api, "127.77.3.0/24", changed.set)  # type: ignore[arg-type]
    await started.start()
    yield started
    await started.stop()


async def serve(text: bytes, address: str = "127.77.4.1") -> tuple[asyncio.Server, int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text + await reader.read())
        writer.close()

    server = await asyncio.start_server(answer, address, 0)
    return server, int(server.sockets[0].getsockname()[1])


async def ask(sent: bytes = b"!") -> bytes:
    reader, writer = await asyncio.open_connection(ADDRESS, 18080)
    writer.write(sent)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


async def until(check: Any, seconds: float = 90) -> Any:
    async with asyncio.timeout(seconds):
        while True:
            try:
                if found := await check():
                    return found
            except OSError:
                pass
            await asyncio.sleep(0.01)


async def refused() -> bool:
    try:
        await ask()
    except ConnectionRefusedError:
        return True
    return False


async def test_connections_go_to_ready_endpoints_and_are_refused_without(api: FakeApi, proxy: ServiceProxy) -> None:
    assert await refused()
    server, port = await serve(b"one")
    await api.create(ENDPOINT_SLICE, slice_of(("127.77.4.1", READY), port=port))
    assert await until(ask) == b"one!"
    big = bytes(range(256)) * 20_000
    assert await ask(big) == b"one" + big
    await api.delete(ENDPOINT_SLICE, "web-1", "default")
    assert await until(refused)
    server.close()


async def test_an_endpoint_that_refuses_is_passed_over(api: FakeApi, proxy: ServiceProxy) -> None:
    server, port = await serve(b"two")
    await api.create(ENDPOINT_SLICE, slice_of(("127.77.4.2", READY), ("127.77.4.1", READY), port=port))
    assert await until(ask) == b"two!"
    assert [await ask() for _ in range(4)] == [b"two!"] * 4
    server.close()


async def test_two_nodes_of_one_machine_serve_the_same_address(api: FakeApi, proxy: ServiceProxy) -> None:
    server, port = await serve(b"both")
    await api.create(ENDPOINT_SLICE, slice_of(("127.77.4.1", READY), port=port))
    other = ServiceProxy(api, "127.77.3.0/24", lambda: None)  # type: ignore[arg-type]
    await other.start()
    assert await until(ask) == b"both!"
    await other.stop()
    assert await until(ask) == b"both!"
    server.close()
