"""Ports as snapshots come and go, and TLS by the name a client asks for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.snapshot import policies as p
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Policies
from quarterdeck.wire.http import Limits, Server
from quarterdeck.wire.sockets import bound_socket
from quarterdeck.wire.tls import ListenerTls, port_context

from .certs import Authority
from .conftest import Front, route

CA = Authority()
CLIENTS = Authority("clients")
BROKEN_OFF = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)


def says(text: str, name: str = "") -> r.Route:
    return route(policies=Policies(direct_response=p.DirectResponse(200, text)), name=f"default/{name or text}")


def https(front: Front, name: str, hostname: str, *pairs: tuple[str, str], **more: Any) -> r.Listener:
    certificates = tuple(r.Certificate(chain, key) for chain, key in pairs)
    return front.listener(says(name), name=name, hostname=hostname, protocol="HTTPS", certificates=certificates, **more)


def trusting(tmp_path: Path, identity: tuple[str, str] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=CA.pem)
    if identity is not None:
        chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
        chain.write_text(identity[0])
        key.write_text(identity[1])
        context.load_cert_chain(chain, key)
    return context


async def ask(port: int, context: ssl.SSLContext, sni: str, host: str = "") -> tuple[int, str]:
    """Status and body; raises what the handshake raises."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=sni)
    return await again(reader, writer, host or sni)


async def again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> tuple[int, str]:
    writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return int(head.split()[1]), (await reader.readexactly(length)).decode()


async def test_the_most_specific_host_name_has_the_request(front: Front) -> None:
    await front.serve(
        front.listener(says("any"), name="any"),
        front.listener(says("wide"), name="wide", hostname="*.example"),
        front.listener(says("narrow"), name="narrow", hostname="*.a.example"),
        front.listener(says("exact"), name="exact", hostname="x.a.example"),
    )
    assert len({front.port(name) for name in ("any", "wide", "narrow", "exact")}) == 1
    hosts = {"x.a.example": "exact", "X.A.example:80": "exact", "y.a.example": "narrow", "b.example": "wide",
             "example": "any", "127.0.0.1": "any"}  # fmt: skip
    for host, body in hosts.items():
        assert await (await front.ask(host=host, listener="any")).read() == body.encode(), host


async def test_ports_that_stay_keep_their_connections(front: Front) -> None:
    await front.serve(front.listener(says("one")), r.Listener("other", 0, "::1", routes=(says("o"),)))
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port())
    assert await again(reader, writer, "x") == (200, "one")
    before = front.port()
    other = front.gateway.endpoints["other"]
    await front.serve(front.listener(says("two")))
    assert front.port() == before
    assert await again(reader, writer, "x") == (200, "two")
    writer.close()
    assert "other" not in front.gateway.endpoints
    with pytest.raises(OSError):
        await asyncio.open_connection("::1", int(other.rpartition(":")[2]))


async def test_a_taken_port_is_told_and_the_rest_is_served(front: Front) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        late = r.Listener("late", number, "127.0.0.1", routes=(says("late"),))
        await front.serve(front.listener(says("web")), late)
        assert (await front.ask()).status == 200
        assert f"cannot listen on 127.0.0.1:{number}" in front.gateway.listeners.problems["late"]
        metrics = front.gateway.registry.render().decode()
        assert 'quarterdeck_gateway_listener_up{listener="late"} 0' in metrics
        assert 'quarterdeck_gateway_listener_up{listener="web"} 1' in metrics
    async with asyncio.timeout(30):
        while front.gateway.listeners.problems:
            await asyncio.sleep(0.05)
    assert await (await front.ask(listener="late")).read() == b"late"


async def test_listeners_that_conflict_are_told(front: Front) -> None:
    pair = CA.sign("x.example")
    await front.serve(
        front.listener(says("web")),
        front.listener(says("same"), name="same"),
        https(front, "tls", "", pair),
    )
    problems = front.gateway.listeners.problems
    assert "same port and host name" in problems["same"]
    assert "serves http for listener web" in problems["tls"]
    assert await (await front.ask()).read() == b"web"


async def test_certificates_by_name(front: Front, tmp_path: Path) -> None:
    context = trusting(tmp_path)
    await front.serve(
        https(front, "a", "a.example", CA.sign("a.example")),
        https(front, "both", "*.b.example", CA.sign("one.b.example"), CA.sign("two.b.example")),
    )
    port = front.port("a")
    assert front.gateway.endpoints["a"].startswith("https://")
    assert await ask(port, context, "a.example") == (200, "a")
    assert await ask(port, context, "one.b.example") == (200, "both")
    assert await ask(port, context, "two.b.example") == (200, "both")
    with pytest.raises(ssl.SSLError):  # the first certificate is not for that name
        await ask(port, context, "three.b.example")
    with pytest.raises(BROKEN_OFF):
        await ask(port, context, "c.example")
    assert (await ask(port, context, "a.example", host="one.b.example"))[0] == 421


async def test_certificates_rotate_under_open_connections(front: Front, tmp_path: Path) -> None:
    context = trusting(tmp_path)
    await front.serve(https(front, "a", "a.example", CA.sign("a.example")))
    port = front.port("a")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="a.example")
    assert await again(reader, writer, "a.example") == (200, "a")
    fresh = CA.sign("a.example")
    await front.serve(https(front, "a", "a.example", fresh))
    assert front.port("a") == port
    assert await again(reader, writer, "a.example") == (200, "a")
    _, second = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="a.example")
    shown = second.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert ssl.DER_cert_to_PEM_cert(shown).replace("\n", "") == fresh[0].replace("\n", "")
    writer.close()
    second.close()


async def test_a_listener_without_a_usable_certificate_hides_behind_no_other(front: Front, tmp_path: Path) -> None:
    context = trusting(tmp_path)
    await front.serve(
        https(front, "wide", "*.w.example", CA.sign("*.w.example")),
        https(front, "admin", "admin.w.example", ("nonsense", "nonsense")),
    )
    assert "certificate" in front.gateway.listeners.problems["admin"]
    assert await ask(front.port("wide"), context, "a.w.example") == (200, "wide")
    with pytest.raises(BROKEN_OFF):
        await ask(front.port("wide"), context, "admin.w.example")


async def refused(port: int, context: ssl.SSLContext, sni: str) -> bool:
    """Whether no answer came: with TLS 1.3 a client learns that its certificate was refused when it reads."""
    try:
        status, _ = await ask(port, context, sni)
    except BROKEN_OFF:
        return True
    return status == 421


@pytest.mark.parametrize("alone", [True, False])
async def test_clients_must_show_a_certificate_where_the_listener_says_so(
    front: Front, tmp_path: Path, alone: bool
) -> None:
    listeners = [https(front, "m", "m.w.example", CA.sign("m.w.example"), client_ca=CLIENTS.pem)]
    if not alone:
        listeners.insert(0, https(front, "open", "*.w.example", CA.sign("*.w.example")))
    await front.serve(*listeners)
    port = front.port("m")
    nobody, known = trusting(tmp_path), trusting(tmp_path, CLIENTS.sign("client"))
    stranger = trusting(tmp_path, Authority("others").sign("client"))
    assert await ask(port, known, "m.w.example") == (200, "m")
    assert await refused(port, nobody, "m.w.example")
    assert await refused(port, stranger, "m.w.example")
    if not alone:
        assert await ask(port, nobody, "o.w.example") == (200, "open")
        # shaken hands for the open name, asked for the guarded one
        assert (await ask(port, nobody, "o.w.example", host="m.w.example"))[0] == 421


async def test_another_client_ca_does_not_take_those_who_came_by_the_old_one(front: Front, tmp_path: Path) -> None:
    pair = CA.sign("m.w.example")
    await front.serve(https(front, "m", "m.w.example", pair, client_ca=CLIENTS.pem))
    known = trusting(tmp_path, CLIENTS.sign("client"))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", front.port("m"), ssl=known, server_hostname="m.w.example"
    )
    assert await again(reader, writer, "m.w.example") == (200, "m")
    await front.serve(https(front, "m", "m.w.example", pair, client_ca=Authority("new").pem))
    assert (await again(reader, writer, "m.w.example"))[0] == 421
    assert await refused(front.port("m"), known, "m.w.example")
    writer.close()


async def test_who_does_not_shake_hands_is_cut_off() -> None:
    context = port_context()
    context.use({"": ListenerTls("", (CA.sign("a.example"),))})
    server = Server(lambda exchange: exchange.respond(200), limits=Limits(header_timeout=0.05))
    sock = bound_socket("127.0.0.1", 0)
    await server.listen_socket(sock, tls=context)
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()
    await server.stop(0)


async def test_no_request_is_lost_while_configurations_change(front: Front, tmp_path: Path) -> None:
    context, stop = trusting(tmp_path), asyncio.Event()

    def listeners(turn: int) -> list[r.Listener]:
        more = [r.Listener("more", 0, "::1", routes=(says("more"),))] if turn % 2 else []
        tls = https(front, "tls", "a.example", CA.sign("a.example"))
        # its own address: a port is either with TLS or without
        return [front.listener(says(f"web {turn}")), msgspec.structs.replace(tls, address="127.0.0.2"), *more]

    async def kept() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port())
        asked = 0
        while not stop.is_set():
            assert (await again(reader, writer, "a.example"))[0] == 200
            asked += 1
        writer.close()
        return asked

    async def secure() -> int:
        port = front.port("tls")
        asked = 0
        while not stop.is_set():  # a handshake each time
            reader, writer = await asyncio.open_connection("127.0.0.2", port, ssl=context, server_hostname="a.example")
            assert (await again(reader, writer, "a.example"))[0] == 200
            writer.close()
            asked += 1
        return asked

    await front.serve(*listeners(0))
    clients = [asyncio.create_task(kept()) for _ in range(3)] + [asyncio.create_task(secure())]
    for turn in range(1, 15):
        await front.serve(*listeners(turn))
        await asyncio.sleep(0.01)
    stop.set()
    assert all(asked > 0 for asked in await asyncio.gather(*clients))
