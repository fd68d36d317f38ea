"""Running another command in a container: same namespaces, environment and confinement."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quarterdeck.node.foreign import exec_line
from quarterdeck.node.images.engine import client_environment
from quarterdeck.node.process import LAUNCHER, ProcessId, inner, kill, launch, wait

_OUTPUT_LIMIT = 64 * 1024


def environ_of(pid: int) -> dict[str, str]:
    """The environment a process was started with. Raises OSError."""
    data = Path(f"/proc/{pid}/environ").read_bytes()
    items = [item.partition("=") for item in data.decode(errors="surrogateescape").split("\0") if item]
    return {name: value for name, _, value in items}


_STARTING_SECONDS = 5.0


async def first_process(process: ProcessId, *, joined: bool) -> int:
    """The container's own first process, once its confinement is in place; ``joined``: it has own namespaces.

    Raises OSError when the container has ended, or has not come so far in a few seconds.
    """
    deadline = asyncio.get_running_loop().time() + _STARTING_SECONDS
    while True:
        pid = inner(process.pid)
        if not process.alive():
            raise ProcessLookupError("the container is not running")
        with contextlib.suppress(OSError):
            launching = str(LAUNCHER).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            outside = os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if not launching and name != "bwrap" and not (joined and outside):
                return pid
        if asyncio.get_running_loop().time() >= deadline:
            raise TimeoutError("the container is still being started")
        await asyncio.sleep(0.01)


async def start(
    process: ProcessId,
    confinement: Mapping[str, Any],
    argv: Sequence[str],
    stdio: tuple[int, int, int],
    *,
    tty: bool = False,
) -> ProcessId:
    """Start ``argv`` in the container of ``process``, confined like it. Raises OSError when the container is gone."""
    through_engine = exec_line(confinement, argv, tty=tty)
    if through_engine is not None:
        started = launch(*stdio)
        started.release({"argv": through_engine, "env": client_environment(), "cwd": "/", "tty": tty, "client": True})
        return started.process
    joined = bool(confinement.get("joined"))
    pid = await first_process(process, joined=joined)
    spec: dict[str, Any] = {**confinement, "argv": list(argv), "env": environ_of(pid), "tty": tty}
    if joined:
        spec |= {"join": pid, "drop_caps": True}
    started = launch(*stdio)
    started.release(spec)
    return started.process


async def run_in(
    process: ProcessId, confinement: Mapping[str, Any], argv: Sequence[str], timeout: float
) -> tuple[int, bytes]:
    """Run to the end: (exit code, start of the output). Raises TimeoutError after ``timeout`` seconds."""
    read, write = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        child = await start(process, confinement, argv, (null, write, write))
    except OSError as error:
        os.close(read)
        return 126, str(error).encode()
    finally:
        os.close(write)
        os.close(null)
    output = bytearray()
    os.set_blocking(read, False)
    loop = asyncio.get_running_loop()

    def drain() -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(read, 65536)
            if not data:
                loop.remove_reader(read)
            elif len(output) < _OUTPUT_LIMIT:
                output.extend(data)

    loop.add_reader(read, drain)
    try:
        ended = await asyncio.wait_for(wait(child), timeout)
        drain()
        return ended.code if ended.code is not None else 1, bytes(output)
    finally:
        kill(child)
        loop.remove_reader(read)
        os.close(read)
