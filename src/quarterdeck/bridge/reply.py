"""One HTTP exchange that carries the answer to one JSON-RPC request: JSON, or an SSE stream once there is more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quarterdeck.errors import QuarterdeckError
from quarterdeck.mcptypes.jsonrpc import error_response, probe
from quarterdeck.mcptypes.modern import status_of
from quarterdeck.mcptypes.protocol import H_SESSION
from quarterdeck.wire.http import Disconnected, Exchange, Header

PATIENCE = 2.0
"""Seconds between signs of life while a process starts: callers wait for less than ``uvx`` and ``npx`` may need."""
KEEP_ALIVE = 15.0
"""Seconds between SSE comments; intermediaries cut streams that stay silent for longer."""
_SLOW = 8 * 1024 * 1024
_SSE_HEADERS: list[Header] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def event(message: bytes) -> bytes:
    """One SSE event; JSON-RPC messages from stdio hold no newline."""
    return b"event: message\ndata: " + message + b"\n\n"


class Stream:
    """An SSE response that stays open; drops the connection of a reader that is too slow to keep up."""

    def __init__(self, exchange: Exchange, extra: list[Header] | None = None) -> None:
        self.exchange = exchange
        self._behind = 0  # bytes written since the reader stopped keeping up
        exchange.start(200, _SSE_HEADERS + (extra or []))
        self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._keep_alive)

    @property
    def open(self) -> bool:
        return not self.exchange.finished and not self.exchange.disconnected

    def send(self, message: bytes) -> bool:
        """Write one event. False when the reader is gone."""
        if not self.open:
            return False
        self._behind = 0 if self.exchange.writable else self._behind + len(message)
        if self._behind > _SLOW:
            self.close(abort=True)
            return False
        try:
            self.exchange.write(event(message))
        except Disconnected:
            return False
        return True

    def comment(self, text: bytes) -> bool:
        """A sign of life. False when the reader is gone."""
        if not self.open:
            return False
        try:
            self.exchange.write(b": %b\n\n" % text)
        except Disconnected:
            return False
        return True

    def close(self, *, abort: bool = False) -> None:
        self._timer.cancel()
        if abort:
            self.exchange.abort()
        elif self.open:
            self.exchange.finish()

    def _keep_alive(self) -> None:
        if self.open:
            self.exchange.write(b": keep-alive\n\n")
            self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._keep_alive)


class Reply:
    """The :class:`~quarterdeck.bridge.link.Receiver` of a POST."""

    def __init__(self, exchange: Exchange, request_id: bytes, *, modern: bool = False) -> None:
        self.exchange = exchange
        self.request_id = request_id
        self._modern = modern
        self.session_id = ""
        self.failed = False
        self.done = asyncio.Event()
        self._stream: Stream | None = None
        accept = exchange.header(b"accept") or b""
        self._streams = b"text/event-stream" in accept or b"*/*" in accept

    def on_interim(self, message: bytes) -> None:
        stream = self._streaming()
        if stream is not None:
            stream.send(message)

    def starting(self) -> Callable[[], None]:
        """Give signs of life from now on, until the function that is returned is called."""
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []

        def tick() -> None:
            stream = self._streaming() if not self.done.is_set() else None
            if stream is not None and stream.comment(b"starting"):
                timers[:] = [loop.call_later(PATIENCE, tick)]

        def stop() -> None:
            timers[0].cancel()

        timers.append(loop.call_later(PATIENCE, tick))
        return stop

    def _streaming(self) -> Stream | None:
        """The stream of the answer, begun when it has not been; None for a client that takes none."""
        if not self._streams or self.exchange.disconnected:
            return None
        if self._stream is None:
            self._stream = Stream(self.exchange, self._extra())
        return self._stream

    def on_answer(self, message: bytes) -> None:
        if self._stream is not None:
            self._stream.send(message)
            self._stream.close()
        elif not self.exchange.disconnected:
            self.exchange.respond(
                self._status(message), message, [(b"content-type", b"application/json"), *self._extra()]
            )
        self.done.set()

    def on_failure(self, error: QuarterdeckError) -> None:
        self.failed = True
        self.on_answer(error_response(self.request_id, error.jsonrpc_code, str(error)))

    def _status(self, message: bytes) -> int:
        """In the modern era the HTTP status tells of some errors."""
        answer = probe(message) if self._modern else None
        return 200 if answer is None or answer.error is None else status_of(answer.error.code)

    def _extra(self) -> list[Header]:
        return [(H_SESSION, self.session_id.encode())] if self.session_id else []
