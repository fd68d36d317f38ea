"""Operating-system processes of containers: start, recognise again, wait for, and end them.

A process is known by pid, start time and boot id together; a pid alone is never trusted, since pids are reused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAUNCHER = Path(__file__).parent / "sandbox" / "launcher.py"


def base_python() -> str:
    """The interpreter below any virtual environment: what plain ``python`` in an image means."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is no such process (zombies have ended)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process for all time."""

    pid: int
    ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        ticks = start_ticks(pid)
        return None if ticks is None else cls(pid, ticks, boot_id())

    def alive(self) -> bool:
        return start_ticks(self.pid) == self.ticks and self.boot == boot_id()


@dataclass(frozen=True, slots=True)
class Launch:
    """A process about to be started; :meth:`release` lets it run."""

    process: ProcessId
    channel: int

    def release(self, spec: dict[str, Any]) -> None:
        """Hand over the launcher's instructions; see :mod:`quarterdeck.node.sandbox.launcher`."""
        with os.fdopen(self.channel, "wb") as channel:
            channel.write(json.dumps(spec).encode())

    def abandon(self) -> None:
        os.close(self.channel)


def launch(stdin: int, stdout: int, stderr: int, pass_fds: Sequence[int] = ()) -> Launch:
    """Start a launcher in its own session; it does nothing until released. Raises OSError."""
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        child = subprocess.Popen(
            [base_python(), "-I", "-S", str(LAUNCHER), str(read)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={"PATH": "/usr/bin:/bin", "LC_CTYPE": "C.UTF-8"},
            cwd="/",
            pass_fds=(read, *pass_fds),
            start_new_session=True,
        )
    except OSError:
        os.close(write)
        raise
    finally:
        os.close(read)
    child.returncode = 0  # waited for by pidfd here, not by subprocess
    process = ProcessId.of(child.pid)
    if process is None:
        os.close(write)
        raise ProcessLookupError(f"launcher {child.pid} ended at once")
    return Launch(process, write)


@dataclass(frozen=True, slots=True)
class Ended:
    """``code`` as a shell sees it (128 + signal), None when another process than ours was the parent."""

    code: int | None
    signal: int = 0


async def wait(process: ProcessId) -> Ended:
    """Wait until the process has ended; works for children and, without exit code, for adopted processes."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return Ended(None)
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    try:
        ticks = start_ticks(process.pid)
        if ticks is not None and ticks != process.ticks:
            return Ended(None)  # the pid belongs to somebody else by now
        loop.add_reader(fd, lambda: done.done() or done.set_result(None))
        try:
            await done
        finally:
            loop.remove_reader(fd)
        return _reap(fd)
    finally:
        os.close(fd)


def _reap(fd: int) -> Ended:
    try:
        info = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return Ended(None)
    if info is None:
        return Ended(None)
    if info.si_code == os.CLD_EXITED:
        code = info.si_status
        return Ended(code, code - 128 if code > 128 else 0)
    return Ended(128 + info.si_status, info.si_status)


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """A process and everything below it, parents first."""
    found = [pid]
    for each in found:
        found += children(each)
    return found


def inner(pid: int) -> int:
    """The container's own first process: below bubblewrap's monitor, its pid-namespace init, and our relay."""
    current = pid
    for _ in range(4):
        name = _command(current)
        if name != "bwrap":
            break
        below = children(current)
        if not below:
            break
        current = below[0]
    return current


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def terminate(process: ProcessId) -> None:
    """SIGTERM to the container's first process and its group."""
    if not process.alive():
        return
    target = inner(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(target, signal.SIGTERM)
    if target == process.pid:
        _signal_group(process.pid, signal.SIGTERM)


def kill(process: ProcessId, procs_files: Sequence[str] = ()) -> None:
    """SIGKILL to all of it: descendants, session, and what else is in its cgroups."""
    if process.alive():
        for pid in reversed(descendants(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _signal_group(process.pid, signal.SIGKILL)
    for path in procs_files:
        with contextlib.suppress(OSError):
            for pid in Path(path).read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
