"""``python -m quarterdeck.server``: the control plane process; ``qd up`` runs it and starts it again when it dies.

``python -m quarterdeck.server operator`` is the control plane in a cluster.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

import uvloop

from quarterdeck.errors import QuarterdeckError

from . import operator_options
from .operator_options import OperatorOptions
from .options import ServerOptions, parse


async def serve(options: ServerOptions) -> None:
    """Start, then run until SIGTERM, SIGINT or the end of standard input (our supervisor is gone)."""
    from .controlplane import ControlPlane

    stop = _signals()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: os.read(sys.stdin.fileno(), 4096) or stop.set())
    plane = ControlPlane(options)
    try:
        await plane.start()
        await stop.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
        await plane.stop()


async def operate(options: OperatorOptions) -> None:
    """The same in a cluster, where only signals end us."""
    from .operator import Operator

    stop = _signals()
    operator = Operator(options)
    try:
        await operator.run(stop)
    finally:
        await operator.stop()


def _signals() -> asyncio.Event:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    return stop


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        if arguments[:1] == ["operator"]:
            uvloop.run(operate(operator_options.parse(arguments[1:])))
        else:
            uvloop.run(serve(parse(arguments)))
    except QuarterdeckError as error:
        print(f"control plane: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
