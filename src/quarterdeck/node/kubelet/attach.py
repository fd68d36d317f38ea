"""attach: the output of a container from now on, and its standard input where it asked for one.

Containers write to log files and read a named pipe, so that they survive the node; there is no terminal. For a client
that has put its own terminal into raw mode, line ends are translated.
"""

from __future__ import annotations

import asyncio
import os

from quarterdeck.node.kubelet.exec import SUCCESS, wanted, write_all
from quarterdeck.node.kubelet.streams import STDIN, STDOUT, Streams, accept
from quarterdeck.node.logs import LogFile, LogOptions, stream
from quarterdeck.node.worker import PodWorker
from quarterdeck.wire.http import Exchange

_LOOK = 0.05


async def serve_attach(exchange: Exchange, worker: PodWorker, container: str) -> None:
    """Serve until the container ends or the client goes away."""
    channels, tty = wanted(exchange)
    path = worker.log_file(container, previous=False)
    streams = await accept(exchange, channels)
    tasks = [asyncio.ensure_future(_feed(streams, worker, container, tty=tty, stdin=STDIN in channels))]
    try:
        if path is not None:
            tasks.append(asyncio.ensure_future(_show(streams, worker, container, LogFile(path), tty=tty)))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await streams.finish(SUCCESS)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        streams.close()


async def _show(streams: Streams, worker: PodWorker, name: str, log: LogFile, *, tty: bool) -> None:
    container = worker.containers[name]
    attempt = container.attempt

    async def grown() -> bool:
        await asyncio.sleep(_LOOK)
        return container.state == "running" and container.attempt == attempt

    async for data in stream(log, LogOptions(follow=True, tail=0), worker.runtime.clock.time, grown):
        await streams.send(STDOUT, data.replace(b"\n", b"\r\n") if tty else data)


async def _feed(streams: Streams, worker: PodWorker, name: str, *, tty: bool, stdin: bool) -> None:
    """Ends when the client has gone away; the end of its input alone ends nothing."""
    spec = worker.spec_of(name) or {}
    fifo: int | None = None
    try:
        if stdin and spec.get("stdin"):
            fifo = os.open(worker.files.stdin(name), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        while (message := await streams.receive()) is not None:
            channel, data = message
            if channel != STDIN or fifo is None:
                continue
            if data is None:
                if spec.get("stdinOnce"):
                    os.close(fifo)
                    fifo = None
                    worker.end_stdin(name)
            else:
                await write_all(fifo, data.replace(b"\r", b"\n") if tty else data)
    except OSError:
        return  # the container has ended
    finally:
        if fifo is not None:
            os.close(fifo)
        if spec.get("stdinOnce") and stdin:
            worker.end_stdin(name)
