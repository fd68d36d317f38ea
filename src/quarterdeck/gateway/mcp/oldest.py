"""Clients of 2024-11-05 (HTTP+SSE): one stream that carries all they are told, and an address for what they say.

``GET …/sse`` opens the stream and names the address; what is posted there is served as any request of a later revision
is, with its answer on the stream. Reference: agentgateway_and_peers.md §2.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from os import urandom
from typing import Any, cast
from urllib.parse import parse_qs

from quarterdeck.errors import UpstreamError
from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.wire import sse
from quarterdeck.wire.http import Disconnected, Exchange, Header

from ..policy.principal import Principal
from ..upstream import Upstreams
from .answers import EVENTS, KEEP_ALIVE, Answers, departure, first
from .call import McpCall, Problem
from .groups import McpGroup
from .heads import ACCEPT
from .peers import Peers
from .session import Session, SessionSealer

Handle = Callable[[Exchange, McpGroup, Principal], Coroutine[Any, Any, None] | None]
_STREAMS = 10_000
_INITIALIZED = b"notifications/initialized"


class Carried:
    """A request whose answer goes on another exchange's stream; to handlers it is an exchange like any other."""

    def __init__(
        self, stream: Stream, method: str, body: bytes, headers: dict[bytes, bytes], *, last: bool = False
    ) -> None:
        """``last``: nobody waits for the answer; the client has gone."""
        self.method = method
        self.body = body
        self.headers = list(headers.items())
        self.context: Any = headers
        self.target = b"/"
        self.keep_alive = True
        self.upgrade = False
        self.started = False
        self.finished = False
        self.route: Any = stream.exchange.route
        self.admission: Any = stream.exchange.admission
        self.flow: Any = None
        self._stream = stream
        self._passes = False
        self._last = last
        self._callbacks: list[Callable[[], None]] = []
        self._ends: list[Callable[[], None]] = []
        stream.carried.add(self)

    def header(self, name: bytes) -> bytes | None:
        return self.context.get(name)

    def __getattr__(self, name: str) -> Any:
        """Where it came from is where its stream came from."""
        return getattr(self._stream.exchange, name)

    @property
    def disconnected(self) -> bool:
        return self._stream.exchange.disconnected and not self._last

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        if self.disconnected:
            callback()
        else:
            self._callbacks.append(callback)

    def on_end(self, callback: Callable[[], None]) -> None:
        self._ends.append(callback)

    def edit_head(self, edit: Any) -> None:
        """There is no head of its own."""

    def respond(self, status: int, body: bytes = b"", headers: list[Header] | tuple[Header, ...] = ()) -> None:
        self.started = True
        self._stream.learn(headers)
        if body and self.method == "POST" and body[:1] == b"{":
            self._stream.write(sse.encode(body, event=b"message"))
        self.finish()

    def start(self, status: int, headers: list[Header] | tuple[Header, ...] = ()) -> None:
        self.started = True
        self._stream.learn(headers)
        self._passes = any(k == b"content-type" and v.startswith(b"text/event-stream") for k, v in headers)

    def write(self, data: bytes) -> None:
        if self._passes:
            self._stream.write(data)

    async def send(self, data: bytes) -> None:
        if self._passes:
            await self._stream.exchange.send(data)

    def finish(self) -> None:
        self.finished = True
        self._stream.carried.discard(self)
        for callback in self._ends:
            callback()

    def abort(self) -> None:
        self.finish()

    def lost(self) -> None:
        """The stream's client has gone."""
        for callback in (*self._callbacks, *self._ends):
            callback()


class Stream:
    """One client's stream, and the session behind it."""

    def __init__(self, exchange: Exchange, group: McpGroup, principal: Principal) -> None:
        self.exchange = exchange
        self.group = group
        self.principal = principal
        self.target = ("", "")
        self.session = b""
        """``Mcp-Session-Id`` of what is behind."""
        self.carried: set[Carried] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    def give_up(self, error: UpstreamError) -> None:
        """The gateway ends the stream."""
        del error
        self.exchange.abort()

    def learn(self, headers: list[Header] | tuple[Header, ...]) -> None:
        for name, value in headers:
            if name == protocol.H_SESSION:
                self.session = value

    def write(self, data: bytes) -> None:
        try:
            self.exchange.write(data)
        except Disconnected:
            return  # the stream's own loop notices


class OldestClients:
    """Serves ``…/sse``. ``handle`` serves what the requests of these clients become."""

    def __init__(
        self, upstreams: Upstreams, sealer: SessionSealer, peers: Peers, answers: Answers, handle: Handle
    ) -> None:
        self._upstreams = upstreams
        self._sealer = sealer
        self._peers = peers
        self._answers = answers
        self._handle = handle
        self._streams: dict[str, Stream] = {}

    def takes(self, exchange: Exchange) -> bool:
        """Whether a request is one of 2024-11-05; others at ``…/sse`` are of later revisions."""
        if not exchange.raw_path.endswith(b"/sse"):
            return False
        if exchange.method == "GET":
            return protocol.H_SESSION not in exchange.context
        return exchange.method == "POST" and b"sessionId=" in exchange.target

    def serve(self, exchange: Exchange, group: McpGroup, principal: Principal) -> Coroutine[Any, Any, None] | None:
        """Answer a request that :meth:`takes` was true of."""
        if exchange.method == "GET":
            return self._open(exchange, group, principal)
        token = parse_qs(exchange.target.partition(b"?")[2].decode("latin-1")).get("sessionId", [""])[0]
        return self._post(exchange, group, principal, token.encode())

    async def _open(self, exchange: Exchange, group: McpGroup, principal: Principal) -> None:
        call = McpCall(exchange, group, principal)
        self._answers.observer.begin(call)
        call.method = "GET"
        if len(self._streams) >= _STREAMS:
            self._answers.invalid(call, Problem(f"{_STREAMS} streams are open already", status=503))
            return
        key = urandom(16).hex()
        stream = self._streams[key] = Stream(exchange, group, principal)
        token = self._sealer.seal(Session(key, owner=self._peers.owner), _binding(group, principal)).decode()
        self._upstreams.held.add(stream)
        gone = departure(exchange)
        exchange.start(200, EVENTS)
        try:
            address = exchange.raw_path + b"?sessionId=" + token.encode()
            await exchange.send(sse.encode(address, event=b"endpoint"))
            while not gone.done():
                await first(asyncio.sleep(KEEP_ALIVE), gone)
                if not gone.done():
                    await exchange.send(b": keep-alive\n\n")
        except Disconnected:
            pass
        finally:
            self._upstreams.held.discard(stream)
            del self._streams[key]
            self._close(stream)
            self._answers.finish(call, "ok", 200)

    def _post(
        self, exchange: Exchange, group: McpGroup, principal: Principal, token: bytes
    ) -> Coroutine[Any, Any, None] | None:
        session = self._sealer.open(token, _binding(group, principal))
        if session is not None and session.owner != self._peers.owner:
            return self._peers.pass_on(McpCall(exchange, group, principal), session.owner)
        stream = self._streams.get(session.upstream) if session is not None else None
        if stream is None:
            call = McpCall(exchange, group, principal)
            self._answers.observer.begin(call)
            self._answers.invalid(call, Problem("unknown session; open the stream again", status=404))
            return None
        exchange.respond(202, b"Accepted", [(b"content-type", b"text/plain; charset=utf-8")])
        self._run(stream, "POST", exchange.body, exchange.context)
        message = jsonrpc.read(exchange.body) if _INITIALIZED in exchange.body else None
        if message is not None and message.method == protocol.INITIALIZED and stream.session:
            self._run(stream, "GET", b"", {})
        return None

    def _run(
        self, stream: Stream, method: str, body: bytes, headers: dict[bytes, bytes], *, last: bool = False
    ) -> None:
        """Serve one message as a request of a later revision."""
        kept = {k: v for k, v in headers.items() if not k.startswith(b"mcp-") and k != b"content-length"}
        kept |= {b"accept": ACCEPT if method == "POST" else b"text/event-stream"}
        if method == "POST":
            kept[b"content-type"] = b"application/json"
        if stream.session:
            kept[protocol.H_SESSION] = stream.session
        carried = cast(Exchange, Carried(stream, method, body, kept, last=last))
        rest = self._handle(carried, stream.group, stream.principal)
        if rest is not None:
            task = asyncio.get_running_loop().create_task(_quietly(rest))
            stream.tasks.add(task)
            task.add_done_callback(stream.tasks.discard)

    def _close(self, stream: Stream) -> None:
        """The client has gone: what it waited for is cancelled, its session ends."""
        for carried in list(stream.carried):
            carried.lost()
        stream.carried.clear()
        if stream.session:
            self._run(stream, "DELETE", b"", {}, last=True)


def _binding(group: McpGroup, principal: Principal) -> bytes:
    return group.binding(principal) + b"|sse"


async def _quietly(rest: Coroutine[Any, Any, None]) -> None:
    try:
        await rest
    except Disconnected:
        return  # the stream's own loop notices
