"""First process inside a Pod's own network namespace: carries connections in and out, and supervises the command.

Run as ``python -I -S relay.py JSON``; keys: argv, cwd, listen {container port: inherited bound socket}, hand_over
(the command takes the sockets itself), egress (unix socket of the egress proxy, or ""), proxy_port, policed (a file
that is there while NetworkPolicies apply to who comes in: the egress proxy is asked then). Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import Any

_CHUNK = 64 * 1024


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until end of file, no faster than the other side reads; passes the half-close on."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other_reader: asyncio.StreamReader,
    other_writer: asyncio.StreamWriter,
) -> None:
    """Connect two streams both ways until both directions have ended."""
    try:
        await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer))
    finally:
        writer.close()
        other_writer.close()


def listening(port: int, tables: Iterable[str]) -> bool:
    """Whether a TCP port is in LISTEN state, by the text of /proc/net/tcp and /proc/net/tcp6."""
    ending = f":{port:04X}"
    for table in tables:
        for line in table.splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[1].endswith(ending) and fields[3] == "0A":
                return True
    return False


def _tables() -> Iterator[str]:
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path) as file:
                yield file.read()
        except OSError:
            continue


async def admitted(path: str, sender: tuple[str, int], local: tuple[str, int]) -> bool:
    """Ask the node, which knows the sender and the policies. No answer means no."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    try:
        writer.write(f"INGRESS {sender[0]}:{sender[1]} {local[0]}:{local[1]} HTTP/1.1\r\n\r\n".encode())
        return (await asyncio.wait_for(reader.readline(), 10)).split()[1:2] == [b"204"]
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


async def serve_inbound(sock: socket.socket, port: int, egress: str = "", policed: str = "") -> asyncio.Server:
    """Forward connections on an inherited, bound socket to 127.0.0.1:port of this namespace.

    Until the command itself listens connections are refused, as they would be without us: probes depend on it.
    """
    delay = 0.01
    while not listening(port, _tables()):
        await asyncio.sleep(delay)
        delay = min(delay * 1.5, 0.25)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if policed and os.path.exists(policed):
            ends = [writer.get_extra_info(name) for name in ("peername", "sockname")]
            if not all(ends) or not await admitted(egress, *(end[:2] for end in ends)):
                writer.transport.abort()
                return
        try:
            inner = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        await join(reader, writer, *inner)

    return await asyncio.start_server(accept, sock=sock)


async def serve_outbound(port: int, path: str) -> asyncio.Server:
    """Forward connections on 127.0.0.1:port of this namespace to the egress proxy's unix socket."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            outer = await asyncio.open_unix_connection(path)
        except OSError:
            writer.transport.abort()
            return
        await join(reader, writer, *outer)

    return await asyncio.start_server(accept, "127.0.0.1", port)


async def main(spec: dict[str, Any]) -> int:
    """Start the forwarders, then the command; returns its exit code."""
    listen = {int(port): int(fd) for port, fd in spec.get("listen", {}).items()}
    forwarders: list[asyncio.Task[asyncio.Server]] = []
    if not spec.get("hand_over"):
        for port, fd in listen.items():
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            inbound = serve_inbound(sock, port, spec.get("egress", ""), spec.get("policed", ""))
            forwarders.append(asyncio.ensure_future(inbound))
    outbound = await serve_outbound(int(spec["proxy_port"]), spec["egress"]) if spec.get("egress") else None
    try:
        child = await asyncio.create_subprocess_exec(
            *spec["argv"], cwd=spec["cwd"], pass_fds=tuple(listen.values()) if spec.get("hand_over") else ()
        )
    except OSError as error:
        sys.stderr.write(f"quarterdeck: cannot start {spec['argv'][0]!r}: {error.filename}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    if spec.get("hand_over"):
        for fd in listen.values():
            os.close(fd)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, lambda n=number: child.returncode is None and child.send_signal(n))
    code = await child.wait()
    for forwarder in forwarders:
        forwarder.cancel()
    if outbound is not None:
        outbound.close()
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    result = asyncio.run(main(json.loads(sys.argv[1])))
    sys.stdout.flush()
    os._exit(result)
