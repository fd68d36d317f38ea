"""Sending to collectors: one POST, and a bounded queue that a task empties."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from urllib.parse import unquote, urlsplit

from quarterdeck.errors import ConfigError, QuarterdeckError, UpstreamError
from quarterdeck.wire.client import Origin, Pool
from quarterdeck.wire.http import Header
from quarterdeck.wire.tls import client_context

_BATCH = 512
_FIRST, _LONGEST = 0.5, 10.0
"""Seconds between attempts: doubled each time."""


class Target:
    """A URL that takes POSTs. Headers of ``$OTEL_EXPORTER_OTLP_HEADERS`` (W3C Baggage form) are sent along."""

    def __init__(self, url: str, content: bytes) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise ConfigError(f"{url!r} is no http(s) URL")
        secure = parts.scheme == "https"
        self.url = url
        self._origin: Origin = (parts.hostname, parts.port or (443 if secure else 80), secure)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._pool = Pool(tls=client_context() if secure else None, server_hostname=parts.hostname if secure else None)
        # a kept connection may be closed just when the next batch goes out, and a POST is not repeated
        self._headers: list[Header] = [
            (b"host", parts.netloc.rpartition("@")[2].encode()),
            (b"content-type", content),
            (b"connection", b"close"),
            *_environment(),
        ]

    async def post(self, body: bytes) -> None:
        """Raises QuarterdeckError when it is not taken."""
        response = await self._pool.request("POST", self._origin, self._path, self._headers, body, timeout=10.0)
        text = (await response.read())[:200].decode("utf-8", "replace")
        if response.status >= 300:
            raise UpstreamError(f"POST {self.url} gave HTTP {response.status}: {text}")

    def close(self) -> None:
        self._pool.close()


class Exporter:
    """A copy of lines elsewhere. ``encode`` makes the body of one POST of some of them.

    ``full`` from ``limit`` lines on until half of them are gone; what is offered nevertheless is kept.
    """

    def __init__(
        self,
        post: Callable[[bytes], Awaitable[None]],
        encode: Callable[[list[bytes]], bytes],
        *,
        limit: int,
        on_error: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._post = post
        self._encode = encode
        self._limit = limit
        self._on_error = on_error
        self._sleep = sleep
        self._queue: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._stepped = asyncio.Event()
        self.full = False
        self.sent = 0
        self.dropped = 0
        self.errors = 0

    def offer(self, lines: list[bytes]) -> None:
        self._queue.extend(lines)
        self.full = len(self._queue) >= self._limit
        self._wake.set()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def run(self) -> None:
        """Until cancelled: send what is offered, in order; a batch is sent again until it is taken."""
        wait = _FIRST
        while True:
            await self._wake.wait()
            if not await self._step():
                await self._sleep(wait)
                wait = min(wait * 2, _LONGEST)
                continue
            wait = _FIRST
            if not self._queue:
                self._wake.clear()

    async def drained(self) -> None:
        """Wait until :meth:`run` has sent all; for ever while nobody takes it."""
        while self._queue:
            self._stepped.clear()
            await self._stepped.wait()

    async def _step(self) -> bool:
        """Send one batch; False when it was not taken."""
        batch = [self._queue[at] for at in range(min(_BATCH, len(self._queue)))]
        if not batch:
            return True
        try:
            await self._post(self._encode(batch))
        except (QuarterdeckError, OSError) as error:
            self.errors += 1
            if self.errors in (1, 10, 1000):
                self._on_error(f"{len(self._queue)} records or spans wait to be sent: {error}")
            return False
        for _ in batch:
            self._queue.popleft()
        self.sent += len(batch)
        self._stepped.set()
        if self.full and len(self._queue) <= self._limit // 2:
            self.full = False
        return True


def _environment() -> list[Header]:
    pairs = (pair.partition("=") for pair in os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",") if pair)
    return [(name.strip().lower().encode(), unquote(value.strip()).encode()) for name, _, value in pairs]
