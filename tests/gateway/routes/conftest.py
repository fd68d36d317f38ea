"""A gateway with listeners of its own, and plain HTTP services behind it, all on real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.snapshot import routing as r
from quarterdeck.wire.client import Pool, Response
from quarterdeck.wire.http import Exchange, Server

from ..conftest import Rig

Reply = Callable[[Exchange], Coroutine[Any, Any, None] | None]


def echo(exchange: Exchange) -> None:
    """What came, as JSON."""
    body = {
        "method": exchange.method,
        "target": exchange.target.decode("latin-1"),
        "headers": [(k.decode("latin-1"), v.decode("latin-1")) for k, v in exchange.headers],
        "body": exchange.body.decode("latin-1"),
    }
    exchange.respond(200, msgspec.json.encode(body), [(b"content-type", b"application/json")])


@dataclass
class Service:
    """A backend: answers by ``reply`` and remembers what it was asked."""

    name: str = "svc"
    reply: Reply = echo
    port: int = 0
    seen: list[Exchange] = field(default_factory=list[Exchange])
    server: Server = None  # type: ignore[assignment]  # set when it starts

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self.server = Server(self._handle)
        self.port = (await self.server.listen("127.0.0.1", 0, tls=tls))[1]

    def _handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        self.seen.append(exchange)
        return self.reply(exchange)

    def backend(self, **more: Any) -> r.HttpBackend:
        return r.HttpBackend(self.name, (r.Endpoint("127.0.0.1", self.port),), **more)

    def to(self, **more: Any) -> r.RouteBackend:
        return r.RouteBackend(http=self.backend(), **more)


class Front:
    """The gateway's listeners and a client of them."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.gateway = rig.gateway
        self.pool = Pool()
        self._versions = 0

    async def serve(self, *listeners: r.Listener, **more: Any) -> None:
        self._versions += 1
        self.gateway.use(s.Snapshot(version=f"t{self._versions}", listeners=listeners, **more))
        await self.gateway.listeners.settled()

    def listener(self, *routes: r.Route, name: str = "web", **more: Any) -> r.Listener:
        return r.Listener(name, 0, "127.0.0.1", routes=routes, **more)

    def port(self, name: str = "web") -> int:
        return int(self.gateway.endpoints[name].rpartition(":")[2])

    async def ask(
        self,
        target: str = "/",
        *,
        method: str = "GET",
        host: str = "x.example",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        listener: str = "web",
    ) -> Response:
        lines = [(b"host", host.encode()), *((k.encode(), v.encode()) for k, v in (headers or {}).items())]
        origin = ("127.0.0.1", self.port(listener), False)
        return await self.pool.request(method, origin, target, lines, body, timeout=60)

    async def raw(self, data: bytes, listener: str = "web") -> bytes:
        """Bytes as they are; what comes until the gateway closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port(listener))
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        return answer


async def seen(response: Response) -> dict[str, Any]:
    """What the service behind says it was asked."""
    body = await response.read()
    assert response.status == 200, body
    found = msgspec.json.decode(body)
    found["fields"] = {name: value for name, value in found["headers"]}
    return found


def route(*backends: r.RouteBackend, name: str = "default/r", **more: Any) -> r.Route:
    return r.Route(name, backends=backends, **more)


@pytest.fixture
async def front(bare: Rig) -> AsyncIterator[Front]:
    front = Front(bare)
    yield front
    front.pool.close()


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Coroutine[Any, Any, Service]]]:
    services: list[Service] = []

    async def begin(reply: Reply = echo, name: str = "svc", tls: ssl.SSLContext | None = None) -> Service:
        service = Service(name, reply)
        services.append(service)
        await service.start(tls)
        return service

    yield begin
    for service in services:
        await service.server.stop(0)
