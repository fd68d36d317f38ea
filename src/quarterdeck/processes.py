"""Processes of this machine: whether one lives, how one of ours is ended, and what it says."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import StreamReader
    from asyncio.subprocess import Process


def alive(pid: int) -> bool:
    """Whether there is such a process, whoever owns it; one that has ended and waits for its parent is gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return not os.path.isdir("/proc/self")  # without procfs the signal's answer stands
    return stat[stat.rindex(b")") + 2 :][:1] not in (b"Z", b"X")


async def end(process: Process, grace: float) -> None:
    """SIGTERM, and SIGKILL when the process is still there after ``grace`` seconds. Returns when it is gone."""
    import asyncio  # commands ask for `alive` only, and start faster without

    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def first_bytes(reader: StreamReader, most: int) -> tuple[bytes, int]:
    """What a stream says first, and how many bytes it has in all; the rest is read and dropped."""
    kept, total = bytearray(), 0
    while chunk := await reader.read(1 << 16):
        kept += chunk[: most - len(kept)]
        total += len(chunk)
    return bytes(kept), total
