"""TLS towards services, and WebSocket."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Policies
from quarterdeck.wire.http import Exchange

from .certs import Authority
from .conftest import Front, Service, route, seen

CA = Authority()
HANDSHAKE = (
    b"GET /chat?x=1 HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def serving(tmp_path: Path, *names: str, client_ca: str = "") -> ssl.SSLContext:
    chain, key = tmp_path / "svc.pem", tmp_path / "svc.key"
    for path, text in zip((chain, key), CA.sign(*names), strict=True):
        path.write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca)
    return context


def over_tls(svc: Service, **tls: Any) -> r.Route:
    return route(r.RouteBackend(http=svc.backend(tls=r.Tls(**tls))))


async def test_a_service_is_verified(front: Front, start: Any, tmp_path: Path) -> None:
    svc = await start(tls=serving(tmp_path, "svc.test"))
    await front.serve(front.listener(over_tls(svc, ca=CA.pem, hostname="svc.test")))
    assert (await seen(await front.ask()))["fields"]["host"] == "x.example"
    for wrong in ({"ca": CA.pem, "hostname": "other.test"}, {"ca": Authority("x").pem, "hostname": "svc.test"}):
        await front.serve(front.listener(over_tls(svc, **wrong)))
        assert (await front.ask()).status == 502
    await front.serve(front.listener(over_tls(svc, insecure=True)))
    assert (await front.ask()).status == 200


async def test_the_gateway_shows_its_own_certificate(front: Front, start: Any, tmp_path: Path) -> None:
    names: list[Any] = []

    def reply(exchange: Exchange) -> None:
        names.append(exchange.peer_certificate)
        exchange.respond(200)

    svc = await start(reply, tls=serving(tmp_path, "svc.test", client_ca=CA.pem))
    await front.serve(front.listener(over_tls(svc, ca=CA.pem, hostname="svc.test")))
    assert (await front.ask()).status == 502
    chain, key = CA.sign("gateway.test")
    await front.serve(front.listener(over_tls(svc, ca=CA.pem, hostname="svc.test", certificate=chain, key=key)))
    assert (await front.ask()).status == 200
    assert ((("commonName", "gateway.test"),)) in names[0]["subject"]


def talkative(exchange: Exchange) -> None:
    """Switches, and from then on says everything twice."""

    class Twice(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            transport.write(data + data)

        def eof_received(self) -> bool:
            transport.close()
            return False

    if not exchange.upgrade:
        exchange.respond(426)
        return
    transport, install, early = exchange.hijack()
    transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nx-ws: 1\r\n\r\nhello"
    )
    two = Twice()
    install(two)
    if early:
        two.data_received(early)


async def test_websocket_passes_both_ways(front: Front, start: Any) -> None:
    svc = await start(talkative)
    rules = Policies(timeout=0.05)
    await front.serve(front.listener(route(svc.to(policies=rules), policies=rules)))
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port())
    writer.write(HANDSHAKE + b"early.")
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        assert b"x-ws: 1" in head
        assert await reader.readexactly(5 + 12) == b"helloearly.early."
        fields = dict(svc.seen[0].headers)
        assert fields[b"sec-websocket-key"] == b"dGhlIHNhbXBsZSBub25jZQ=="
        await asyncio.sleep(0.06)  # the time limit of a request is none of a conversation
        writer.write(b"x" * 300_000)
        assert await reader.readexactly(600_000) == b"x" * 600_000
        writer.write_eof()
        assert await reader.read() == b""
    writer.close()
    assert front.rig.records()[-1]["status"] == 101
    async with asyncio.timeout(30):
        while front.gateway.upstreams.in_flight:
            await asyncio.sleep(0.01)


async def test_a_conversation_can_be_ended_from_here(front: Front, start: Any) -> None:
    svc = await start(talkative)
    await front.serve(front.listener(route(svc.to())))
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port())
    writer.write(HANDSHAKE)
    async with asyncio.timeout(30):
        await reader.readuntil(b"hello")
        front.gateway.upstreams.cancel(lambda relay: True)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    writer.close()


async def test_a_service_that_does_not_switch_answers_as_ever(front: Front, start: Any) -> None:
    svc = await start(lambda exchange: exchange.respond(403, b"no"))
    await front.serve(front.listener(route(svc.to())))
    answer = await front.raw(HANDSHAKE)
    assert answer.startswith(b"HTTP/1.1 403")
    assert answer.endswith(b"no")


async def test_other_protocols_are_not_switched_to(front: Front, start: Any) -> None:
    svc = await start()
    await front.serve(front.listener(route(svc.to())))
    answer = await front.raw(HANDSHAKE.replace(b"websocket\r\n", b"h2c\r\n", 1))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"upgrade" not in dict(svc.seen[0].headers)
    answer = await front.raw(b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
