"""The server's processes: which era they speak, spares started ahead, restarts."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import deque
from collections.abc import Coroutine
from typing import Any

import msgspec

from quarterdeck.errors import QuarterdeckError, UpstreamError
from quarterdeck.mcptypes import LATEST_LEGACY, MODERN_VERSIONS, protocol
from quarterdeck.mcptypes.jsonrpc import Message, read

from .child import Child
from .config import BridgeConfig
from .link import Link

_CLIENT = {"name": "quarterdeck-bridge", "version": "1"}


class _Probe:
    """Receives the answer to a question of our own."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def on_interim(self, message: bytes) -> None:
        del message

    def on_answer(self, message: bytes) -> None:
        decoded = read(message)
        if decoded is not None and not self.answer.done():
            self.answer.set_result(decoded)

    def on_failure(self, error: QuarterdeckError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Processes:
    """Starts, keeps and ends the processes of one stdio server."""

    def __init__(self, config: BridgeConfig) -> None:
        self.config = config
        self.ready = False
        self.modern = False
        self.starts = 0
        self.crashes = 0
        self.last_error = ""
        self.tried = asyncio.Event()
        """Set once the first attempt to find out what the server speaks is over."""
        self._spare: deque[Child] = deque()
        self._all: set[Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def take(self) -> Child:
        """A process nobody has spoken to yet. Raises UpstreamError when the command cannot be started."""
        while self._spare:
            child = self._spare.popleft()
            if child.alive:
                self._spawn(self.refill())
                return child
        child = await self._start()
        self._spawn(self.refill())
        return child

    async def refill(self) -> None:
        """Bring the spares up to ``config.warm`` (none in shared mode: the one process serves everybody)."""
        wanted = self.config.warm if self.config.mode == "per-session" else 0
        while self.ready and not self._stopping and len(self._spare) < wanted:
            self._spare.append(await self._start())

    async def discover(self) -> None:
        """Find out which eras the server speaks; sets ``ready``. Tries again with back-off until it succeeds."""
        delay = 1.0
        while not self._stopping:
            try:
                await self._probe()
            except QuarterdeckError as error:
                self.last_error = str(error)
                self.tried.set()
                print(f"[bridge] {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(delay * (0.5 + random.random()))  # noqa: S311 - jitter, not a secret
                delay = min(delay * 2, 30.0)
            else:
                self.ready = True
                self.last_error = ""
                self.tried.set()
                await self.refill()
                return

    async def stop(self) -> None:
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*(child.stop() for child in list(self._all)))

    def retire(self, child: Child) -> None:
        """End a process whose session is over."""
        self._spawn(child.stop())

    async def _start(self) -> Child:
        child = await Child.start(self.config, self._exited)
        self.starts += 1
        self._all.add(child)
        return child

    def _exited(self, child: Child) -> None:
        self._all.discard(child)
        if not child.stopping and child.process.returncode:
            self.crashes += 1

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_logged(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self) -> None:
        child = await self._start()
        try:
            link = Link(child, lambda message: False)
            try:
                self.modern = await self.greet(link)
            except UpstreamError:
                # Some servers end on a method they do not know before initialize: greet a fresh process the old way.
                child = await self._start()
                link = Link(child, lambda message: False)
                self.modern = False
            if not self.modern:
                params = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": _CLIENT}
                answer = await self._ask(link, protocol.INITIALIZE, params)
                if answer.error is not msgspec.UNSET:
                    raise UpstreamError(
                        f"MCP server {self.config.name} refused initialize: {bytes(answer.error)[:500]!r}"
                    )
        finally:
            self.retire(child)

    async def greet(self, link: Link) -> bool:
        """Speak first, in the modern era: a process serves the era of the first message it gets. False: refused."""
        return (await self.ask_modern(link, protocol.DISCOVER)).error is msgspec.UNSET

    async def ask_modern(self, link: Link, method: str, params: dict[str, Any] | None = None) -> Message:
        """A request of our own in the modern era. Raises UpstreamError."""
        meta = {
            protocol.META_VERSION: MODERN_VERSIONS[-1],
            protocol.META_CLIENT_CAPABILITIES: {},
            protocol.META_CLIENT_INFO: _CLIENT,
        }
        return await self._ask(link, method, {**(params or {}), "_meta": meta})

    async def _ask(self, link: Link, method: str, params: object) -> Message:
        probe = _Probe()
        message = Message(id=msgspec.Raw(b"0"), method=method, params=msgspec.Raw(msgspec.json.encode(params)))
        link.request(message, probe, "", self.config.start_timeout)
        return await probe.answer


async def _logged(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a background coroutine; what the server's process did wrong goes to the Pod log."""
    try:
        await coroutine
    except UpstreamError as error:
        print(f"[bridge] {error}", file=sys.stderr, flush=True)
