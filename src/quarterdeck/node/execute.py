"""Running another command in a container: same namespaces, environment and confinement."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from quarterdeck.node.process import ProcessId, children, inner, kill, launch, wait
from quarterdeck.node.sandbox.isolation import enter

_OUTPUT_LIMIT = 64 * 1024


def environ_of(pid: int) -> dict[str, str]:
    """The environment a process was started with. Raises OSError."""
    data = Path(f"/proc/{pid}/environ").read_bytes()
    items = [item.partition("=") for item in data.decode(errors="surrogateescape").split("\0") if item]
    return {name: value for name, _, value in items}


def inside(process: ProcessId) -> int:
    """The process whose namespaces and environment a command joins: below bubblewrap's init, if there is one."""
    pid = inner(process.pid)
    below = children(pid)
    own = os.readlink("/proc/self/ns/pid")
    return below[0] if below and os.readlink(f"/proc/{pid}/ns/pid") != own else pid


def start(
    process: ProcessId, argv: Sequence[str], stdin: int, stdout: int, stderr: int, *, tty: bool = False
) -> ProcessId:
    """Start ``argv`` in the container of ``process``. Raises OSError when the container is gone."""
    pid = inside(process)
    env = environ_of(pid)
    cwd = os.readlink(f"/proc/{pid}/cwd")
    line = enter(pid, argv, cwd)
    started = launch(stdin, stdout, stderr)
    joined = line[0].endswith("nsenter") and len(line) > len(argv)
    started.release({"argv": line, "env": env, "cwd": "/" if joined else cwd, "tty": tty})
    return started.process


async def run_in(process: ProcessId, argv: Sequence[str], timeout: float) -> tuple[int, bytes]:
    """Run to the end: (exit code, start of the output). Raises TimeoutError after ``timeout`` seconds."""
    read, write = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        child = start(process, argv, null, write, write)
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
