"""Entering a running container: its namespaces by setns(2), in the order that needs the least privilege.

Standard library only: the launcher loads this file without site-packages. nsenter(1) is not used, since it would give
the command all capabilities of the container's user namespace, and cannot follow bubblewrap's nested user namespaces.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
from collections.abc import Callable

_NS_GET_USERNS = 0xB701
_PR_SET_PDEATHSIG = 1


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"joining the container's namespaces: {os.strerror(errno)}")


def _identity(fd: int) -> tuple[int, int]:
    stat = os.fstat(fd)
    return stat.st_dev, stat.st_ino


def enter(pid: int, become: Callable[[], None]) -> bool:
    """Join all namespaces of ``pid`` that differ from ours; True when the pid namespace is among them, which holds
    for children only. ``become`` takes the container's uid as soon as nothing needs ours. Raises OSError."""
    fds: dict[str, int] = {}
    for kind in ("user", "mnt", "pid", "ipc", "uts", "net"):
        fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        own = os.stat(f"/proc/self/ns/{kind}")
        if _identity(fd) == (own.st_dev, own.st_ino):
            os.close(fd)
        else:
            fds[kind] = fd
    become()
    user = fds.pop("user", None)
    if user is not None and "mnt" in fds:
        owner = fcntl.ioctl(fds["mnt"], _NS_GET_USERNS)
        if _identity(owner) == _identity(user):
            user = None
        _setns(owner)
        os.close(owner)
    for fd in fds.values():
        _setns(fd)
        os.close(fd)
    if user is not None:
        _setns(user)
        os.close(user)
    return "pid" in fds


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` (which execs) in a child of its own session, wait, and exit as it did; the child dies with us."""
    child = os.fork()
    if child == 0:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        work()
        os._exit(126)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda n, _: os.kill(child, n))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)
