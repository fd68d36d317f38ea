"""One stdio MCP server process: newline-delimited JSON-RPC over its pipes (MCP transports, "stdio").

stderr is the Pod's own, so what the server logs lands in ``kubectl logs`` and never in the protocol. A line on stdout
that is not JSON goes there too and is otherwise ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Protocol

from quarterdeck.errors import UpstreamError
from quarterdeck.mcptypes.jsonrpc import Message, read

from .config import BridgeConfig


class Listener(Protocol):
    """Who hears the process."""

    def on_message(self, message: Message) -> None: ...
    def on_exit(self, error: UpstreamError) -> None: ...


class Child:
    """A running server process. Start it with :meth:`start`; give it a listener before the first message is sent."""

    def __init__(
        self, config: BridgeConfig, process: asyncio.subprocess.Process, on_exit: Callable[[Child], None]
    ) -> None:
        self.config = config
        self.process = process
        self.listener: Listener | None = None
        self.error: UpstreamError | None = None
        self._on_exit = on_exit
        self.stopping = False
        self._reason = ""
        self._reader = asyncio.get_running_loop().create_task(self._read(), name=f"stdio-{process.pid}")

    @classmethod
    async def start(cls, config: BridgeConfig, on_exit: Callable[[Child], None]) -> Child:
        """Spawn the command. Raises UpstreamError when it cannot be executed."""
        try:
            process = await asyncio.create_subprocess_exec(
                config.command,
                *config.args,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=config.message_bytes,
                start_new_session=True,
            )
        except OSError as error:
            raise UpstreamError(
                f"MCP server {config.name}: cannot run {config.command!r}: {error.strerror}; check its cmd and args"
            ) from error
        return cls(config, process, on_exit)

    @property
    def alive(self) -> bool:
        return self.error is None and self.process.returncode is None

    def send(self, line: bytes) -> None:
        """Write one message. ``line`` must hold no newline. Raises UpstreamError when the process is gone."""
        stdin = self.process.stdin
        if not self.alive or stdin is None or stdin.is_closing():
            raise self.error or UpstreamError(f"MCP server {self.config.name} has exited")
        stdin.write(line + b"\n")

    async def drain(self) -> None:
        """Wait while the process reads slower than we write."""
        if self.process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                await self.process.stdin.drain()

    async def stop(self, grace: float = 3.0) -> None:
        """End the process as the specification asks: close stdin, then SIGTERM, then SIGKILL its group."""
        self.stopping = True
        if self.process.stdin is not None:
            self.process.stdin.close()
        for signum, wait in ((None, grace / 3), (signal.SIGTERM, grace), (signal.SIGKILL, grace)):
            if signum is not None:
                self._signal(signum)
            try:
                await asyncio.wait_for(self.process.wait(), wait)
                break
            except TimeoutError:
                continue
        self._signal(signal.SIGKILL)  # what the server itself started
        self._reader.cancel()

    def kill(self, reason: str) -> None:
        """End the process at once; ``reason`` completes "MCP server NAME ..." for the callers in flight."""
        self._reason = reason
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signum)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        stream = self.process.stdout
        try:
            while True:
                try:
                    line = await stream.readuntil(b"\n")
                except asyncio.IncompleteReadError as error:
                    self._line(error.partial)
                    break
                except asyncio.LimitOverrunError:
                    self.kill(f"sent a message longer than {self.config.message_bytes} bytes and was ended")
                    break
                self._line(line)
        finally:
            await self._gone()

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        message = read(line)
        if message is None:
            text = line[:2000].decode("utf-8", "replace").rstrip("\n")
            print(
                f"[bridge] {self.config.name} wrote to stdout what is not JSON-RPC: {text}", file=sys.stderr, flush=True
            )
        elif self.listener is not None:
            self.listener.on_message(message)

    async def _gone(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), 2.0)
        if self.process.returncode is None:
            self._signal(signal.SIGKILL)
            await self.process.wait()
        code = self.process.returncode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        self.error = UpstreamError(
            f"MCP server {self.config.name} {self._reason or how}; a new process is started for the next request, "
            "its own messages are in the log"
        )
        self._on_exit(self)
        if self.listener is not None:
            self.listener.on_exit(self.error)
