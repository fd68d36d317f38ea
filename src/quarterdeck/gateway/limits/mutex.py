"""A lock between the workers of one gateway that a killed holder does not keep.

Linux: a robust, process-shared pthread mutex in the shared memory itself (pthread_mutexattr_setrobust(3)): two calls
into libc and no system call while nobody else wants it. Elsewhere: a record lock on the file, which the kernel drops
with its owner.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from mmap import mmap
from time import time
from typing import Protocol

MUTEX_BYTES = 64
"""Room for a pthread_mutex_t on every platform we know (40 bytes on x86_64, 48 on aarch64)."""
PATIENCE = 0.05
"""Seconds to wait for a holder that is stopped; then we go on without the lock: a counter may be off by a call."""

_PROCESS_SHARED = 1
_ROBUST = 1


class Lock(Protocol):
    """Held for less than a microsecond at a time."""

    def acquire(self) -> bool:
        """False: the last holder died with it; what it was writing may be half done."""
        ...

    def release(self) -> None: ...


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class RobustMutex:
    """A pthread mutex at ``offset`` of a shared mapping. ``fresh``: nobody has made it yet."""

    def __init__(self, memory: mmap, offset: int, *, fresh: bool) -> None:
        self._keep = ctypes.c_char.from_buffer(memory, offset)  # the mapping must not move or close under us
        self._address = ctypes.addressof(self._keep)
        libc = ctypes.PyDLL(None, use_errno=False)
        if fresh:
            _make(libc, self._address)
        self._try = libc.pthread_mutex_trylock
        self._wait = libc.pthread_mutex_timedlock
        self._consistent = libc.pthread_mutex_consistent
        self._unlock = libc.pthread_mutex_unlock
        for function in (self._try, self._consistent, self._unlock):
            function.argtypes = (ctypes.c_void_p,)
        self._wait.argtypes = (ctypes.c_void_p, ctypes.POINTER(_TimeSpec))
        self._held = True

    def acquire(self) -> bool:
        code = self._try(self._address)
        return code == 0 or self._contended(code)

    def release(self) -> None:
        if self._held:
            self._unlock(self._address)
        else:
            self._held = True

    def _contended(self, code: int) -> bool:
        if code == errno.EBUSY:
            until = time() + PATIENCE
            code = self._wait(self._address, _TimeSpec(int(until), int(until % 1 * 1e9)))
        if code == errno.EOWNERDEAD:
            self._consistent(self._address)
            return False
        self._held = code == 0
        return True


def _make(libc: ctypes.PyDLL, address: int) -> None:
    attributes = ctypes.create_string_buffer(MUTEX_BYTES)
    libc.pthread_mutexattr_init(attributes)
    libc.pthread_mutexattr_setpshared(attributes, _PROCESS_SHARED)
    libc.pthread_mutexattr_setrobust(attributes, _ROBUST)
    code = libc.pthread_mutex_init(ctypes.c_void_p(address), attributes)
    if code:
        raise OSError(code, os.strerror(code))


class RecordLock:
    """A lock on the file behind the mapping (fcntl(2)). ``fd`` stays open as long as this object is used."""

    def __init__(self, fd: int) -> None:
        import fcntl  # not on Windows, where a gateway has one worker

        self._fd = fd
        self._lockf = fcntl.lockf
        self._exclusive, self._none = fcntl.LOCK_EX, fcntl.LOCK_UN

    def acquire(self) -> bool:
        self._lockf(self._fd, self._exclusive)
        return True

    def release(self) -> None:
        self._lockf(self._fd, self._none)


def shared_lock(memory: mmap, offset: int, fd: int, *, fresh: bool) -> Lock:
    """The best lock that this platform has."""
    if sys.platform == "linux":
        return RobustMutex(memory, offset, fresh=fresh)
    return RecordLock(fd)
