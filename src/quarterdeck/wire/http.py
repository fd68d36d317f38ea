"""HTTP/1.1 server side of the data path: an asyncio protocol around httptools (llhttp), no framework.

A handler gets an :class:`Exchange` once head and body are complete. A handler that needs no waiting does its work in
the call and returns None; any other returns a coroutine, which the connection runs and owns. Requests on one connection
are handled one after the other (pipelined ones wait), as RFC 9112 §9.3 asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from time import monotonic, time
from typing import Any

from .connection import ServerConnection as ServerConnection
from .exchange import Exchange as Exchange
from .exchange import Header as Header
from .limits import Disconnected as Disconnected
from .limits import Flow as Flow
from .limits import Limits as Limits
from .seen import Seen
from .status import plain_text, status_line

Handler = Callable[[Exchange], Coroutine[Any, Any, None] | None]

_HEADS = 32
"""Heads of responses that are kept for a second."""
_TICK = 0.5  # seconds between looks for connections past their deadline; a timer per request costs 3 µs


def _ignore_error(exchange: Exchange, error: Exception) -> None:
    del exchange, error


class Server:
    """A listener: binds addresses, keeps its connections, drains them on stop."""

    def __init__(
        self,
        handler: Handler,
        *,
        name: str = "",
        limits: Limits | None = None,
        on_error: Callable[[Exchange, Exception], None] = _ignore_error,
        error_body: Callable[[int, str], tuple[bytes, bytes]] = plain_text,
    ) -> None:
        """``error_body(status, message)`` gives media type and body of what this server itself refuses."""
        self.handler = handler
        self.name = name
        self.limits = limits or Limits()
        self.on_error = on_error
        self.error_body = error_body
        self.draining = False
        self.barrier: Callable[[], bool] | None = None
        """Asked before responses are sent, once for all of a loop iteration; False: they must not be."""
        self._corked: list[ServerConnection] = []
        self.connections: set[ServerConnection] = set()
        self.held = 0
        """Bytes of request bodies in memory, where the limits bound them all together."""
        self.seen = Seen()
        self.unsent = 0
        """Bytes of responses that slow clients have not taken yet."""
        self._servers: list[asyncio.AbstractServer] = []
        self._paths: list[str] = []
        self._date = (0.0, b"")
        self._heads: dict[tuple[int, tuple[Header, ...]], bytes] = {}
        self.clock: Callable[[], float] = monotonic
        self._tick: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()

    async def listen(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
    ) -> tuple[str, int]:
        """Bind and serve; port 0 takes a free one. Returns the bound address. Raises OSError when it is in use."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: ServerConnection(self), host, port, ssl=tls, reuse_port=reuse_port or None, backlog=1024
        )
        self._servers.append(server)
        bound: Any = server.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    async def listen_socket(self, sock: Any, *, tls: ssl.SSLContext | None = None) -> None:
        """Serve on an already bound socket, for example one inherited from the node."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: ServerConnection(self),
            sock=sock,
            ssl=tls,
            ssl_handshake_timeout=self.limits.header_timeout or None if tls is not None else None,
            backlog=1024,
        )
        self._servers.append(server)

    async def listen_unix(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(lambda: ServerConnection(self), path))
        self._paths.append(path)

    async def stop(self, grace: float = 5.0) -> None:
        """Stop accepting, let requests in flight finish for ``grace`` seconds, then cut what is left."""
        self.draining = True
        for server in self._servers:
            server.close()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        for connection in list(self.connections):
            connection.drain_and_close()
        if self.connections:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._idle.wait()
        for connection in list(self.connections):
            connection.transport.abort()

    def forget(self) -> None:
        """What is remembered of heads holds no longer."""
        self.seen = Seen()

    def date_line(self) -> bytes:
        now = self.clock()
        if now >= self._date[0]:
            self._date = (now + 1.0, b"date: %b\r\n" % formatdate(time(), usegmt=True).encode())
            self._heads.clear()
        return self._date[1]

    def common_head(self, status: int, headers: tuple[Header, ...]) -> bytes:
        """A response's head up to its length, as others of this second have it, too."""
        date = self.date_line()
        found = self._heads.get((status, headers))
        if found is None:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            lines = (status_line(status), date, *(b"%b: %b\r\n" % header for header in headers))
            found = self._heads[status, headers] = b"".join(lines)
        return found

    def corked(self, connection: ServerConnection) -> None:
        """A connection has something to send at the end of this loop iteration."""
        if not self._corked:
            asyncio.get_running_loop().call_soon(self._release)
        self._corked.append(connection)

    def _release(self) -> None:
        corked, self._corked = self._corked, []
        passed = self.barrier is None or self.barrier()
        for connection in corked:
            connection.release(passed)

    def opened(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        if len(self.connections) > self.limits.connections:
            connection.transport.abort()
        elif self._tick is None:
            self._tick = asyncio.get_running_loop().call_later(_TICK, self._sweep)

    def lost(self, connection: ServerConnection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._idle.set()

    def _sweep(self) -> None:
        now = self.clock()
        for connection in list(self.connections):
            if 0.0 < connection.deadline < now:
                connection.expire()
        self._tick = asyncio.get_running_loop().call_later(_TICK, self._sweep) if self.connections else None
