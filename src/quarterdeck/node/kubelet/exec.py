"""exec and attach over WebSocket: channels 0 stdin, 1 stdout, 2 stderr, 3 error (v1.Status), 4 resize, 255 close.

Protocol ``v5.channel.k8s.io`` (close of stdin) and ``v4.channel.k8s.io``; KEP-4006.
"""

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
from quarterdeck.node.kubelet.websocket import WebSocket
from quarterdeck.node.process import Ended, ProcessId, kill, wait
from quarterdeck.node.worker import PodWorker
from quarterdeck.wire.http import Exchange

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255


def exit_status(ended: Ended) -> dict[str, Any]:
    """The v1.Status of the error channel."""
    code = ended.code if ended.code is not None else 1
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _wants(query: dict[str, str], *names: str) -> bool:
    return any(query.get(name, "") in ("1", "true") for name in names)


async def serve_exec(exchange: Exchange, worker: PodWorker, container: str) -> None:
    """Run ``command`` in the container with the streams the query asks for."""
    if not exchange.upgrade or b"websocket" not in (exchange.header(b"upgrade") or b"").lower():
        raise BadRequest("exec needs a WebSocket upgrade with v5.channel.k8s.io or v4.channel.k8s.io")
    query = dict(exchange.query)
    argv = [value for key, value in exchange.query if key == "command"]
    if not argv:
        raise BadRequest("you must specify at least 1 command")
    tty = _wants(query, "tty")
    stdin = _wants(query, "input", "stdin")
    socket = WebSocket(exchange, PROTOCOLS)
    session = _Session(socket, tty=tty, stdin=stdin)
    try:
        await session.run(worker.processes[container], argv)
    except (OSError, KeyError) as error:
        await session.report({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": str(error)})
    finally:
        session.close()
        socket.close()


async def serve_attach(exchange: Exchange, worker: PodWorker, container: str) -> None:
    """Attach: containers write to files here, so only their output from now on can be given, and no input taken."""
    del worker, container
    raise BadRequest("attach is not supported on this node: use kubectl logs -f, or kubectl exec")


class _Session:
    def __init__(self, socket: WebSocket, *, tty: bool, stdin: bool) -> None:
        self._socket = socket
        self._tty = tty
        self._stdin = stdin
        self._input: int | None = None
        self._fds: set[int] = set()

    async def run(self, process: ProcessId, argv: list[str]) -> None:
        outputs = self._pty() if self._tty else self._pipes()
        ends, channels = outputs
        try:
            child = start(process, argv, ends[0], ends[1], ends[2], tty=self._tty)
        finally:
            for fd in set(ends):
                os.close(fd)
        readers = [asyncio.ensure_future(self._pump(fd, channel)) for fd, channel in channels]
        feeder = asyncio.ensure_future(self._feed(child))
        ended = await wait(child)
        await asyncio.wait(readers, timeout=1.0)  # a background child may hold the pipes for ever
        for task in (*readers, feeder):
            task.cancel()
        await asyncio.gather(*readers, feeder, return_exceptions=True)
        await self.report(exit_status(ended))

    async def report(self, status: dict[str, Any]) -> None:
        await self._socket.send(bytes([_ERROR]) + json.dumps(status).encode())

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _pty(self) -> tuple[tuple[int, int, int], list[tuple[int, int]]]:
        master, slave = pty.openpty()
        self._fds.add(master)
        self._input = master
        return (slave, slave, slave), [(master, _STDOUT)]

    def _pipes(self) -> tuple[tuple[int, int, int], list[tuple[int, int]]]:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        self._fds |= {out_read, err_read}
        if self._stdin:
            in_read, self._input = os.pipe2(os.O_CLOEXEC)
            self._fds.add(self._input)
        else:
            in_read = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return (in_read, out_write, err_write), [(out_read, _STDOUT), (err_read, _STDERR)]

    async def _pump(self, fd: int, channel: int) -> None:
        loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        while True:
            await _readable(loop, fd)
            try:
                data = os.read(fd, 32768)
            except BlockingIOError:
                continue
            except OSError:  # EIO: the terminal's other side is closed
                return
            if not data:
                return
            await self._socket.send(bytes([channel]) + data)

    async def _feed(self, child: ProcessId) -> None:
        while (message := await self._socket.receive()) is not None:
            channel, data = (message[0], message[1:]) if message else (_CLOSE, b"")
            if channel == _STDIN and self._input is not None:
                await asyncio.to_thread(_write_all, self._input, data)
            elif channel == _RESIZE and self._tty and self._input is not None:
                size = json.loads(data)
                window = struct.pack("HHHH", int(size.get("Height", 24)), int(size.get("Width", 80)), 0, 0)
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, window)
            elif channel == _CLOSE and data[:1] == b"\0" and self._input is not None and not self._tty:
                self._fds.discard(self._input)
                os.close(self._input)
                self._input = None
        kill(child)


async def _readable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    ready = loop.create_future()
    loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _write_all(fd: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]
