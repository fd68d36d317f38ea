"""Servers of 2024-11-05: one GET stream that carries all they say, and an address for what they are told."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Raw

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.wire.client import Response
from quarterdeck.wire.sse import Event as SseEvent
from quarterdeck.wire.sse import SseParser

from . import client
from .call import SSE_VERSION
from .client import INFO, Link, RpcError
from .conversation import Conversation, Event, Flight, Greeting

_OPEN = 10.0
"""Seconds until a server has said where it wants to be told things."""
_ids = count(1)


class SseConversation(Conversation):
    """The session is the connection: when it breaks, the next request opens another."""

    _target = ""

    async def _begin(self) -> Link:
        self.close()
        opened = Link(client.origin_of(self.route), SSE_VERSION, extra=self.extra)
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stream = asyncio.get_running_loop().create_task(self._receive_all(opened, told))
        try:
            async with asyncio.timeout(_OPEN):
                self._target = _same_origin(self.route.path.decode(), await told)
        except TimeoutError:
            raise TimedOut(f"did not open its event stream within {_OPEN:g} s") from None
        self.link = opened
        params = {
            "protocolVersion": SSE_VERSION,
            "capabilities": self.capabilities,
            "clientInfo": self.info or INFO,
        }
        try:
            self.greeting = msgspec.json.decode(await self._asked(protocol.INITIALIZE, params), type=Greeting)
            await self._post(jsonrpc.notification(protocol.INITIALIZED))
        except BaseException:
            self.close()
            raise
        return opened

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> Raw:
        await self.open()
        return await self._asked(method, params or {})

    async def send(self, method: str, params: dict[str, Any]) -> Flight:
        await self.open()
        return await self._sent(method, params)

    async def tell(self, body: bytes, method: str) -> None:
        del method
        await self.open()
        await self._post(body)

    # -- inside
    async def _sent(self, method: str, params: dict[str, Any]) -> Flight:
        flight = Flight(next(_ids))
        self._flights[flight.id] = flight
        try:
            await self._post(jsonrpc.request(flight.id, method, params))
        except BaseException:
            self._flights.pop(flight.id, None)
            raise
        return flight

    async def _asked(self, method: str, params: dict[str, Any]) -> Raw:
        flight = await self._sent(method, params)
        try:
            while True:
                event = await flight.next(self.route.server.timeout)
                if event.kind == "end":
                    raise event.error or UpstreamError("ended its stream")
                if event.kind == "answer":
                    break
                if event.kind == "question":
                    await self.refuse(event.message, "nobody is there to answer")
        finally:
            self._flights.pop(flight.id, None)
        if isinstance(event.message.error, Raw):
            raise RpcError(msgspec.json.decode(event.message.error, type=jsonrpc.ErrorObject))
        return event.message.result if isinstance(event.message.result, Raw) else Raw(b"{}")

    async def _post(self, body: bytes) -> None:
        link = self.link
        if link is None:
            raise UpstreamError("ended its event stream")
        response = await self.route.pool.request(
            "POST", link.origin, self._target, client.lines(self.lane.headers + link.extra + _CONTENT), body,
            timeout=self.route.server.timeout or None,
        )  # fmt: skip
        text = await response.read()
        if response.status >= 400:
            raise UpstreamError(f"refused a message (HTTP {response.status}): {text[:200].decode('utf-8', 'replace')}")

    async def _receive_all(self, link: Link, told: asyncio.Future[str]) -> None:
        error = UpstreamError("ended its event stream")
        try:
            response = await self._connect(link)
            parser = SseParser()
            async for chunk in response:
                for event in parser.feed(chunk):
                    if event.event == b"endpoint" and not told.done():
                        told.set_result(event.data.decode("latin-1").strip())
                    else:
                        await self._heard(event)
        except (UpstreamError, TimedOut) as failure:
            error = UpstreamError(str(failure))
        finally:
            if not told.done():
                told.set_exception(error)
            if self.link is link:
                self.link = None
                for flight in list(self._flights.values()):
                    flight.put(Event("end", error=error))

    async def _connect(self, link: Link) -> Response:
        head = client.lines(self.lane.headers + link.extra + b"accept: text/event-stream\r\n")
        response = await self.route.pool.request("GET", link.origin, self.route.path.decode(), head, timeout=_OPEN)
        if response.status != 200:
            response.close()
            raise UpstreamError(f"answered HTTP {response.status} where its event stream should be")
        return response

    async def _heard(self, event: SseEvent) -> None:
        message = jsonrpc.read(event.data) if event.data else None
        if message is None:
            return
        if message.method:
            await self._unasked(message)
            return
        ident = msgspec.json.decode(message.id) if isinstance(message.id, Raw) else None
        flight = self._flights.pop(ident, None) if isinstance(ident, str) else None
        if flight is not None:
            flight.put(Event("answer", message))


_CONTENT = b"content-type: application/json\r\n"


def _same_origin(path: str, told: str) -> str:
    """Path and query of the address to send to. Raises UpstreamError when it leads to another machine."""
    parts = urlsplit(urljoin("http://self" + path, told))
    if parts.netloc != "self" and urlsplit(told).netloc == parts.netloc:
        # an absolute address: only path and query count, it is sent to where the stream is
        parts = parts._replace(netloc="self")
    if not parts.path.startswith("/"):
        raise UpstreamError(f"named {told[:100]!r} to send messages to, which is no address of its own")
    return parts.path + (f"?{parts.query}" if parts.query else "")
