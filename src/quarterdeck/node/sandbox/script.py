"""A script kept alone: run one command without network, credentials or sight of other processes, and end all it starts.

Run as ``python -I -S script.py FD`` with one JSON object on FD, or with ``--probe``, which exits 0 where this machine
can do it and else says why not. For programs that already run confined in a Pod, where no namespaces can be had: what
holds is Landlock, a system-call filter and limits. Keys: argv, env, cwd, read and write (path trees), seconds, memory
(bytes, of all its processes together), disk (bytes below cwd, and of open files in no folder), processes, report (a
descriptor that is told what stopped it: time, memory, disk, processes, or told: by SIGTERM, which the end of its parent
is, too). The exit code is the command's, 128 + N for a signal. Standard library only.
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38
_LOOK = 0.1
"""Seconds between looks at what the processes use."""
_AWAITED = {signal.SIGCHLD, signal.SIGTERM}
_SCOPED = 6
"""The Landlock ABI from which a process signals its own kind only."""


def main(arguments: list[str]) -> int:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import landlock  # pyright: ignore[reportMissingImports]
    import seccomp  # pyright: ignore[reportMissingImports]

    abi = landlock.abi()
    program = seccomp.program(platform.machine(), alone=True, signals=abi >= _SCOPED)
    if abi == 0 or program is None:
        what = "no Landlock" if abi == 0 else f"no system-call filter for {platform.machine()}"
        print(f"the kernel here offers {what} to this container")
        return 125
    if arguments == ["--probe"]:
        return _probe()
    with os.fdopen(int(arguments[0]), "rb") as channel:
        spec: dict[str, Any] = json.loads(channel.read())
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_SUBREAPER, 1)
    if abi >= _SCOPED:
        landlock.restrict(["/"], ["/"], None)  # nothing but the scope: what we kill is ours
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            _confine(spec, landlock, program)
            os.execve(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606
        except OSError as error:
            os.write(2, f"{error.filename or spec['argv'][0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    return _watch(child, spec, scoped=abi >= _SCOPED)


def _confine(spec: dict[str, Any], landlock: Any, program: bytes) -> None:
    """In the child: everything of ours is given up before the command begins."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # before the agent, when memory is short
    for name, most in (("DATA", spec["memory"]), ("FSIZE", spec["disk"]), ("CORE", 0), ("NOFILE", 256),
                       ("CPU", int(spec["seconds"]) + 1)):  # fmt: skip
        kind = getattr(resource, f"RLIMIT_{name}")
        ceiling = resource.getrlimit(kind)[1]
        value = most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)
        resource.setrlimit(kind, (value, value))
    os.closerange(3, max(1024, spec["report"] + 1))
    os.nice(10)
    os.chdir(spec["cwd"])
    os.umask(0o077)
    landlock.restrict(spec["read"], spec["write"], [])
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "system-call filter")


def _watch(child: int, spec: dict[str, Any], *, scoped: bool) -> int:
    """Wait for the command; end everything when it ends, or uses more than it may."""
    until = time.monotonic() + float(spec["seconds"])
    code, why = None, ""
    while code is None and not why:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
        elif time.monotonic() >= until:  # also while orphans end one after the other
            why = "time"
        elif ended == 0:
            why = _excess(spec)
            if not why:
                told = signal.sigtimedwait(_AWAITED, min(_LOOK, max(0.001, until - time.monotonic())))
                why = "told" if told is not None and told.si_signo == signal.SIGTERM else ""
    _end_all(scoped=scoped)
    if why:
        with contextlib.suppress(OSError):
            os.write(spec["report"], why.encode())
        return 137
    assert code is not None
    return code if code >= 0 else 128 - code


def _end_all(*, scoped: bool) -> None:
    """Kill every descendant: in one go where the kernel keeps signals among us, else until none is left."""
    while True:
        found = list(_descendants())
        if scoped:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def _excess(spec: dict[str, Any]) -> str:
    """What the processes use too much of; empty when nothing."""
    page = os.sysconf("SC_PAGE_SIZE")
    processes = list(_descendants())
    memory = 0
    nameless: dict[tuple[int, int], int] = {}
    for process in processes:
        with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{process}/statm") as file:
            memory += int(file.read().split()[1]) * page
        nameless.update(_nameless(process))
    if len(processes) > spec["processes"]:
        return "processes"
    if memory > spec["memory"]:
        return "memory"
    return "disk" if _used(spec["cwd"], spec["disk"]) + sum(nameless.values()) > spec["disk"] else ""


def _used(folder: str, most: int) -> int:
    """Bytes on disk below a folder; counting ends where there are more than ``most``. A file counts 4 KiB at least."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += max(4096, os.lstat(os.path.join(root, name)).st_blocks * 512)
        total += 4096
        if total > most:
            break
    return total


def _nameless(process: int) -> Iterator[tuple[tuple[int, int], int]]:
    """Files a process has open that are in no folder (any more), as those of Python's tempfile, with their bytes."""
    with contextlib.suppress(OSError):
        for handle in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):
                about = os.stat(f"/proc/{process}/fd/{handle}")
                if stat.S_ISREG(about.st_mode) and about.st_nlink == 0:
                    yield (about.st_dev, about.st_ino), about.st_blocks * 512


def _descendants() -> Iterator[int]:
    """Processes below us; those whose parents have gone are our children, for we take them over."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{entry}/stat", "rb") as file:
                parents.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(int(entry))
    pending = [os.getpid()]
    while pending:
        for process in parents.get(pending.pop(), ()):
            pending.append(process)
            yield process


def _probe() -> int:
    """Whether a command runs confined here: it must run, and must not read what it was not given."""
    me = os.path.abspath(__file__)
    with tempfile.NamedTemporaryFile() as hidden:
        return _probe_with(me, hidden.name)


def _probe_with(me: str, hidden: str) -> int:
    folder = os.path.dirname(me)
    for argv, wanted in ((["/bin/sh", "-c", "exit 7"], 7), (["/bin/sh", "-c", f"exec < {hidden}"], None)):
        spec = {"argv": argv, "env": {}, "cwd": folder, "read": ["/bin", "/usr", "/lib", "/lib64"], "write": [],
                "seconds": 10, "memory": 1 << 28, "disk": 1 << 40, "processes": 16, "report": 2}  # fmt: skip
        read, write = os.pipe()
        os.write(write, json.dumps(spec).encode())
        os.close(write)
        done = subprocess.run(
            [sys.executable, "-I", "-S", me, str(read)], pass_fds=(read,), capture_output=True, text=True, check=False
        )
        os.close(read)
        if done.returncode == wanted or (wanted is None and done.returncode not in (0, 127, 125)):
            continue
        said = (done.stderr or done.stdout).strip().splitlines()
        print(f"the sandbox does not work in this container: {said[-1] if said else f'exit code {done.returncode}'}")
        return 125
    return 0


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
