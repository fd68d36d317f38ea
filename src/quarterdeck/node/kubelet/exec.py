"""exec: another command in a running container, with its streams or a terminal of its own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import termios
from typing import Any

from quarterdeck.errors import BadRequest
from quarterdeck.node.execute import start
from quarterdeck.node.kubelet.streams import ERROR, RESIZE, STDERR, STDIN, STDOUT, Streams, accept
from quarterdeck.node.process import Ended, ProcessId, kill, wait
from quarterdeck.node.worker import PodWorker
from quarterdeck.wire.http import Exchange

_FLAGS = {"input": STDIN, "stdin": STDIN, "output": STDOUT, "stdout": STDOUT, "error": STDERR, "stderr": STDERR}
_LINGER_SECONDS = 1.0


def exit_status(ended: Ended) -> dict[str, Any]:
    """The v1.Status of the error channel."""
    code = ended.code if ended.code is not None else 1
    if code == 0:
        return SUCCESS
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


SUCCESS: dict[str, Any] = {"metadata": {}, "status": "Success"}


def internal_error(message: str) -> dict[str, Any]:
    return {"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500}


def wanted(exchange: Exchange) -> tuple[set[int], bool]:
    """The channels a request asks for, and whether it wants a terminal."""
    on = {key for key, value in exchange.query if value in ("1", "true")}
    channels = {_FLAGS[key] for key in on if key in _FLAGS}
    if "tty" not in on:
        return channels, False
    return (channels - {STDERR}) | {RESIZE}, True


async def serve_exec(exchange: Exchange, worker: PodWorker, container: str) -> None:
    """Run ``command`` in the container with the streams the query asks for."""
    argv = [value for key, value in exchange.query if key == "command"]
    if not argv:
        raise BadRequest("you must specify at least 1 command")
    channels, tty = wanted(exchange)
    streams = await accept(exchange, channels)
    session = _Session(streams, tty=tty, stdin=STDIN in channels)
    try:
        await session.run(worker, container, argv)
    except (OSError, KeyError) as error:
        await streams.finish(internal_error(f"exec in container {container!r}: {error}"))
    finally:
        session.close()
        streams.close()


class _Session:
    def __init__(self, streams: Streams, *, tty: bool, stdin: bool) -> None:
        self._streams = streams
        self._tty = tty
        self._stdin = stdin
        self._input: int | None = None
        self._fds: set[int] = set()

    async def run(self, worker: PodWorker, container: str, argv: list[str]) -> None:
        ends, channels = self._pty() if self._tty else self._pipes()
        try:
            child = await start(
                worker.processes[container], worker.files.confinement(container), argv, ends, tty=self._tty
            )
        finally:
            for fd in set(ends):
                os.close(fd)
        readers = [asyncio.ensure_future(self._pump(fd, channel)) for fd, channel in channels]
        feeder = asyncio.ensure_future(self._feed(child))
        try:
            ended = await wait(child)
            await asyncio.wait(readers, timeout=_LINGER_SECONDS)  # a background child may hold the pipes for ever
        finally:
            for task in (*readers, feeder):
                task.cancel()
            await asyncio.gather(*readers, feeder, return_exceptions=True)
            kill(child)
        await self._streams.finish(exit_status(ended))

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _pty(self) -> tuple[tuple[int, int, int], list[tuple[int, int]]]:
        master, slave = pty.openpty()
        self._fds.add(master)
        self._input = master
        return (slave, slave, slave), [(master, STDOUT)]

    def _pipes(self) -> tuple[tuple[int, int, int], list[tuple[int, int]]]:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        self._fds |= {out_read, err_read}
        if self._stdin:
            in_read, self._input = os.pipe2(os.O_CLOEXEC)
            self._fds.add(self._input)
        else:
            in_read = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return (in_read, out_write, err_write), [(out_read, STDOUT), (err_read, STDERR)]

    async def _pump(self, fd: int, channel: int) -> None:
        os.set_blocking(fd, False)
        while True:
            await ready(fd, write=False)
            try:
                data = os.read(fd, 32768)
            except BlockingIOError:
                continue
            except OSError:  # EIO: the terminal's other side is closed
                return
            if not data:
                return
            await self._streams.send(channel, data)

    async def _feed(self, child: ProcessId) -> None:
        """Carry input until the client goes away, which ends the command."""
        while (message := await self._streams.receive()) is not None:
            channel, data = message
            if channel == STDIN and data is None:
                self._end_input()
            elif channel == STDIN and data and self._input is not None:
                await write_all(self._input, data)
            elif channel == RESIZE and data and self._tty and self._input is not None:
                size = json.loads(data)
                window = struct.pack("HHHH", int(size.get("Height", 24)), int(size.get("Width", 80)), 0, 0)
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, window)
            elif channel == ERROR:
                break
        kill(child)

    def _end_input(self) -> None:
        """Only a pipe can be closed; a terminal's user types Ctrl-D."""
        if self._input is not None and not self._tty:
            self._fds.discard(self._input)
            os.close(self._input)
            self._input = None


async def ready(fd: int, *, write: bool) -> None:
    """Wait until ``fd`` can be read, or written."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not found.done():
            found.set_result(None)

    (loop.add_writer if write else loop.add_reader)(fd, wake)
    try:
        await found
    finally:
        (loop.remove_writer if write else loop.remove_reader)(fd)


async def write_all(fd: int, data: bytes) -> None:
    """Write to a pipe or terminal as fast as it takes it; a closed other side ends it silently."""
    copy = os.dup(fd)  # the terminal's descriptor is read by another task, and one loop entry holds one callback
    os.set_blocking(copy, False)
    try:
        with contextlib.suppress(OSError):
            while data:
                try:
                    data = data[os.write(copy, data) :]
                except BlockingIOError:
                    await ready(copy, write=True)
    finally:
        os.close(copy)
