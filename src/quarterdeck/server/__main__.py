"""``python -m quarterdeck.server``: the control plane process; ``qd up`` runs it and starts it again when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

import uvloop

from quarterdeck.errors import QuarterdeckError

from .controlplane import ControlPlane
from .options import ServerOptions, parse


async def serve(options: ServerOptions) -> None:
    """Start, then run until SIGTERM, SIGINT or the end of standard input (our supervisor is gone)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    loop.add_reader(sys.stdin.fileno(), lambda: os.read(sys.stdin.fileno(), 4096) or stop.set())
    plane = ControlPlane(options)
    try:
        await plane.start()
        await stop.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
        await plane.stop()


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        uvloop.run(serve(parse(arguments)))
    except QuarterdeckError as error:
        print(f"control plane: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
