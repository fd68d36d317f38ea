"""``python -m quarterdeck.bridge --config /config/bridge.json`` and ``… install DIR``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import uvloop

from quarterdeck.errors import QuarterdeckError, UsageError
from quarterdeck.wire.http import Limits, Server

from .config import BridgeConfig, load
from .endpoint import Endpoint
from .processes import Processes

USAGE = "usage: python -m quarterdeck.bridge --config FILE | install DIR"


def install(directory: str) -> None:
    """Put an executable ``quarterdeck-bridge`` into ``directory`` that starts this interpreter with this package.

    ``-I`` keeps the server image's PYTHONPATH out of the bridge; the server itself still gets it.
    """
    target = Path(directory) / "quarterdeck-bridge"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".tmp")
    partial.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -m quarterdeck.bridge "$@"\n')
    partial.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    partial.rename(target)


def inherited(port: int) -> socket.socket | None:
    """The listening socket the node made for ``port`` (``QUARTERDECK_LISTEN_FDS="3000=3"``), if any."""
    for pair in os.environ.pop("QUARTERDECK_LISTEN_FDS", "").split(","):
        number, _, descriptor = pair.partition("=")
        if number == str(port) and descriptor.isdigit():
            return socket.socket(fileno=int(descriptor))
    return None


async def serve(config: BridgeConfig) -> None:
    processes = Processes(config)
    server = Server(Endpoint(processes).handle, name="mcp", limits=Limits(body_timeout=60, idle_timeout=0))
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    discovery = asyncio.create_task(processes.discover())
    if config.hold:
        await _first(processes.tried, stop)
    listener = inherited(config.listen.port)
    if listener is not None:
        listener.setblocking(False)
        await server.listen_socket(listener)
    else:
        # The node's relay in front of us, else the Pod's own address.
        host = os.environ.pop("QUARTERDECK_LISTEN_HOST", "") or os.environ.get("POD_IP") or "0.0.0.0"  # noqa: S104
        await server.listen(host, config.listen.port)
    await stop.wait()
    discovery.cancel()
    await server.stop(grace=20)
    await processes.stop()


async def _first(*events: asyncio.Event) -> None:
    """Return when one of them is set."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["install", directory]:
                install(directory)
            case ["--config", path]:
                uvloop.run(serve(load(path)))
            case _:
                raise UsageError(USAGE)
    except (QuarterdeckError, OSError) as error:
        print(f"bridge: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, QuarterdeckError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
