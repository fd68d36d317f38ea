"""``python -m quarterdeck.agents.scripted --host H --port 8080 [--model NAME] [--script FILE]``."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys

import uvloop

from quarterdeck.errors import QuarterdeckError
from quarterdeck.wire.http import Limits, Server

from . import script as scripts
from .server import BODY_LIMIT, ModelServer


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m quarterdeck.agents.scripted",
        description="An OpenAI-compatible model server that plans by rules: provider Scripted.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="port; 0 takes a free one and prints it")
    parser.add_argument("--model", default="scripted", help="name of the model as clients see it")
    parser.add_argument("--script", help="file (YAML) with answers that go before the planner's")
    return parser.parse_args(arguments)


def inherited(port: int) -> socket.socket | None:
    """The listening socket the node made for ``port`` (``QUARTERDECK_LISTEN_FDS="8080=3"``), if any."""
    for pair in os.environ.pop("QUARTERDECK_LISTEN_FDS", "").split(","):
        number, _, descriptor = pair.partition("=")
        if number == str(port) and descriptor.isdigit():
            return socket.socket(fileno=int(descriptor))
    return None


async def serve(chosen: argparse.Namespace) -> None:
    entries = scripts.load(chosen.script) if chosen.script else []
    server = Server(ModelServer(chosen.model, entries).handle, name="model", limits=Limits(body_bytes=BODY_LIMIT))
    listener = inherited(chosen.port)
    if listener is not None:
        listener.setblocking(False)
        await server.listen_socket(listener)
        address = (chosen.host, chosen.port)
    else:
        address = await server.listen(chosen.host, chosen.port)
    print(f"scripted model {chosen.model} on http://{address[0]}:{address[1]}/v1", flush=True)
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    await stop.wait()
    await server.stop(grace=10)


def main(arguments: list[str]) -> int:
    try:
        uvloop.run(serve(options(arguments)))
    except (QuarterdeckError, OSError) as error:
        print(f"scripted model: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, QuarterdeckError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
