"""The relay beside somebody else's image in a cluster: its Pod's token on what it sends to gateway and control plane.

``python -m quarterdeck.agents.relay --token-file FILE 127.0.0.1:8083=http://kagent-controller.NS:8083 …``. On a laptop
the node does the same (:mod:`quarterdeck.node.workload_token`).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

from quarterdeck.errors import ConfigError, QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.mcpclient import split_url
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Header, Limits, Server

_BODY = 32 * 1024 * 1024
_SILENCE = 600.0
_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"upgrade"}
    | {b"transfer-encoding", b"host", b"content-length", b"authorization"}
)
_BACK = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"date", b"server"})


class Relay:
    """Passes the requests of one listener on to ``url``."""

    def __init__(self, pool: Pool, url: str, token_file: Path) -> None:
        self._pool = pool
        self._origin, base = split_url(url)
        self._base = base.rstrip("/")
        self._token_file = token_file

    def handle(self, exchange: Exchange) -> Coroutine[Any, Any, None]:
        return self._pass(exchange)

    async def _pass(self, exchange: Exchange) -> None:
        headers = [header for header in exchange.headers if header[0] not in _HOP]
        try:
            token = await asyncio.to_thread(self._token_file.read_bytes)  # rotated by the kubelet
            headers.append((b"authorization", b"Bearer " + token.strip()))
            target = self._base + exchange.target.decode("latin-1")
            answer = await self._pool.request(
                exchange.method, self._origin, target, headers, exchange.body, timeout=_SILENCE
            )
        except (UpstreamError, TimedOut, TimeoutError, OSError) as error:
            exchange.respond(502, f"quarterdeck relay: {error}\n".encode(), [(b"content-type", b"text/plain")])
            return
        kept: list[Header] = [header for header in answer.headers if header[0] not in _BACK]
        exchange.start(answer.status, kept)
        exchange.on_disconnect(answer.close)
        try:
            async for chunk in answer:
                await exchange.send(chunk)
        except (UpstreamError, ConnectionError):
            exchange.abort()
            return
        exchange.finish()


def listeners(given: list[str]) -> list[tuple[str, int, str]]:
    """(host, port, URL) of ``HOST:PORT=URL``. Raises ConfigError."""
    found: list[tuple[str, int, str]] = []
    for each in given:
        address, _, url = each.partition("=")
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not url:
            raise ConfigError(f"{each!r} is not HOST:PORT=URL")
        found.append((host, int(port), url))
    return found


async def start(pool: Pool, given: list[tuple[str, int, str]], token_file: Path) -> list[tuple[Server, int]]:
    """The servers, listening, and their ports."""
    started: list[tuple[Server, int]] = []
    for host, port, url in given:
        server = Server(Relay(pool, url, token_file).handle, name="relay", limits=Limits(body_bytes=_BODY))
        _, bound = await server.listen(host, port)
        started.append((server, bound))
        print(f"relay http://{host}:{bound} to {url}", flush=True)
    return started


async def _until_signalled(given: list[tuple[str, int, str]], token_file: Path) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    pool = Pool()
    started = await start(pool, given, token_file)
    await ended.wait()
    for server, _ in started:
        await server.stop(20.0)
    pool.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.agents.relay", description=__doc__)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("listen", nargs="+", metavar="HOST:PORT=URL")
    given = parser.parse_args(arguments)
    try:
        uvloop.run(_until_signalled(listeners(given.listen), given.token_file))
    except (QuarterdeckError, OSError) as error:
        print(f"relay: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
