"""Copies of requests for another service; what it answers is read and thrown away."""

from __future__ import annotations

import asyncio

from quarterdeck.errors import TimedOut, UpstreamError

from .request import HttpRequest
from .route import HttpTarget

_MOST = 256
_TIMEOUT = 15.0  # seconds to the head of the answer, and again for its body


class Mirrors:
    """Copies under way, a bounded number: a slow copy must cost the original nothing."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def send(self, method: str, request: HttpRequest, target: HttpTarget) -> None:
        """Send a copy, unless too many are under way."""
        if len(self._tasks) >= _MOST or request.upgrade:
            self.dropped += 1
            return
        task = asyncio.get_running_loop().create_task(self._copy(method, request, target))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _copy(self, method: str, request: HttpRequest, target: HttpTarget) -> None:
        origin = target.address()
        if origin is None:
            self.dropped += 1
            return
        fields = request.fields(target, origin)
        try:
            response = await target.pool.request(method, origin, request.path, fields, request.body, timeout=_TIMEOUT)
            try:
                async with asyncio.timeout(_TIMEOUT):
                    async for _ in response:
                        pass
            finally:
                response.close()
        except (UpstreamError, TimedOut, TimeoutError):
            self.dropped += 1
