"""One request and its response, as a handler sees them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from .limits import Disconnected, Flow
from .seen import Head
from .status import status_line

if TYPE_CHECKING:
    from .http import ServerConnection

Header = tuple[bytes, bytes]
HeadEdit = Callable[[int, list[Header]], list[Header]]
"""Changes the headers of a response; gets its status, too."""


class Exchange:
    """One request and its response. ``headers`` keys are lower case, in the order they came."""

    __slots__ = (
        "_also", "_bodiless", "_chunked", "_connection", "_edits", "_ends", "_on_disconnect", "admission", "body",
        "context", "finished", "flow", "head", "headers", "keep_alive", "method", "old", "route", "started", "target",
        "upgrade",
    )  # fmt: skip

    def __init__(
        self,
        connection: ServerConnection,
        method: str,
        target: bytes,
        headers: list[Header],
        body: bytes,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.upgrade = False
        self.old = False
        """Whether the client speaks HTTP/1.0, which knows no chunks."""
        self.started = False
        self.finished = False
        self._chunked = False
        self._bodiless = False
        self._edits: list[HeadEdit] | None = None
        self._ends: list[Callable[[], None]] | None = None
        self._on_disconnect: Callable[[], None] | None = None
        self._also: list[Callable[[], None]] | None = None  # who else wants to know of that
        self.context: Any = None  # free for the handler chain, e.g. the authenticated principal
        self.route: Any = None  # free for the handler chain: where the request was routed to
        self.admission: Any = None  # free for the handler chain: what is known of the caller while rules are applied
        self.head: Head | None = None
        """What is remembered of requests with this very head; None when it was seen for the first time."""
        self.flow: Flow | None = None  # paused while the client reads slower than we write

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header; ``name`` in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def path(self) -> str:
        """The path, percent-decoded, without the query."""
        return unquote(self.target.partition(b"?")[0].decode("latin-1"))

    @property
    def raw_path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)

    @property
    def peer(self) -> tuple[str, int] | None:
        """Remote address; None on a unix socket."""
        return self._connection.peer

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The context that the handshake chose; None on a plain connection."""
        tls: ssl.SSLObject | None = self._connection.transport.get_extra_info("ssl_object")
        return tls.context if tls is not None else None

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The verified client certificate as :meth:`ssl.SSLSocket.getpeercert` gives it, or None."""
        tls: ssl.SSLObject | None = self._connection.transport.get_extra_info("ssl_object")
        return (tls.getpeercert() or None) if tls is not None else None

    @property
    def listener(self) -> str:
        """Name of the listener the request came in on."""
        return self._connection.server.name

    @property
    def writable(self) -> bool:
        """False while the client reads slower than we write."""
        return self._connection.writable

    @property
    def disconnected(self) -> bool:
        return self._connection.closed

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once if the client goes away before the response is complete."""
        if self._connection.closed:
            callback()
        else:
            self._listen(callback)

    def _listen(self, callback: Callable[[], None]) -> None:
        if self._on_disconnect is None:
            self._on_disconnect = callback
        elif self._also is None:
            self._also = [callback]
        else:
            self._also.append(callback)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once: the response is complete, the client gone or the connection taken over."""
        if self._connection.closed or self.finished:
            callback()
        elif self._ends is None:
            self._ends = [callback]
        else:
            self._ends.append(callback)

    def edit_head(self, edit: HeadEdit) -> None:
        """Have the headers of the response changed on their way, whoever sends it; edits apply in the order added."""
        if self._edits is None:
            self._edits = []
        self._edits.append(edit)

    def pass_barrier(self) -> None:
        """Let the response go out whatever the server's barrier says: it tells that nothing was done."""
        self._connection.pass_barrier()

    def respond(self, status: int, body: bytes = b"", headers: list[Header] | tuple[Header, ...] = ()) -> None:
        """Send a complete response. Content-Length, Date and Connection are added.

        Give headers that many responses have in common as one tuple: its lines are made once a second then.
        """
        if self._edits is None and self.keep_alive and not self.started and isinstance(headers, tuple):
            self.started = True
            head = self._connection.server.common_head(status, headers)
        else:
            head = b"".join(self._head(status, headers))
        if status == 204 or status == 304:
            data = head + b"\r\n"
        else:
            data = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body if self.method != "HEAD" else b"")
        self._connection.answer(data)
        self._finish()

    def start(self, status: int, headers: list[Header] | tuple[Header, ...] = ()) -> None:
        """Send the head of a streamed response (chunked, unless a content-length is among ``headers``)."""
        # RFC 9112 §6.3: anything after the head of a 204 or 304 would be read as the next response
        self._bodiless = status in (204, 304)
        sized = self._bodiless or any(k.lower() == b"content-length" for k, _ in headers)
        if not sized and self.old:
            self.keep_alive = False  # the end of the connection is the end of the body
        parts = self._head(status, headers)
        self._chunked = not sized and not self.old
        parts.append(b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n")
        self._connection.cork(b"".join(parts))
        self._connection.rest()

    def write(self, data: bytes) -> None:
        """Send a piece of the body, in this loop iteration. Raises Disconnected when the client is gone."""
        if self._connection.closed:
            raise Disconnected("client closed the connection")
        if data and self.method != "HEAD" and not self._bodiless:
            self._connection.cork(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def send(self, data: bytes) -> None:
        """:meth:`write`, then wait while the client reads slower than we write."""
        self.write(data)
        await self._connection.drain()

    def finish(self) -> None:
        self._connection.answer(b"0\r\n\r\n" if self._chunked and self.method != "HEAD" else b"")
        self._finish()

    def abort(self) -> None:
        """Break the connection: the only way to tell the client that a started response is incomplete."""
        self._connection.flush()
        self._connection.transport.abort()

    def hijack(self) -> tuple[asyncio.Transport, Callable[[asyncio.Protocol], None], bytes]:
        """Take over the connection after an upgrade.

        Returns the transport, a function that installs the protocol that receives from now on, and bytes that
        arrived after the request head. Nothing has been written; the 101 response is the caller's.
        """
        self.started = self.finished = True
        self._end()
        return self._connection.hijack()

    def _head(self, status: int, headers: list[Header] | tuple[Header, ...]) -> list[bytes]:
        if self.started:
            raise RuntimeError("response already started")
        self.started = True
        if self._edits is not None:
            headers = list(headers)
            for edit in self._edits:
                headers = edit(status, headers)
        parts = [status_line(status), self._connection.server.date_line()]
        parts += [b"%b: %b\r\n" % header for header in headers]
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        return parts

    def _finish(self) -> None:
        self.finished = True
        self._on_disconnect = self._also = None
        if self._ends is not None:
            self._end()
        self._connection.exchange_done(self)

    def _end(self) -> None:
        callbacks, self._ends = self._ends, None
        for callback in callbacks or ():
            callback()

    def lost(self) -> None:
        first, also = self._on_disconnect, self._also
        self._on_disconnect = self._also = None
        if first is not None:
            first()
        for callback in also or ():
            callback()
        self._end()
