"""Landlock by system call (Linux ≥ 5.13): file-system and TCP rules for this process and all it starts.

Standard library only: the launcher loads this file without site-packages. Kernel documentation: userspace-api/landlock.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
_FS_EXECUTE, _FS_WRITE_FILE, _FS_READ_FILE, _FS_READ_DIR = 1, 2, 4, 8
_READ = _FS_EXECUTE | _FS_READ_FILE | _FS_READ_DIR
_FILE_ONLY = _FS_EXECUTE | _FS_WRITE_FILE | _FS_READ_FILE | (1 << 14) | (1 << 15)
_NET_BIND_TCP, _NET_CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2


def _syscall(number: int, *args: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *args))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result


def abi() -> int:
    """The kernel's Landlock ABI version; 0 when there is none."""
    try:
        return _syscall(_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def handled_fs(version: int) -> int:
    """All file-system rights an ABI version knows."""
    bits = 13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16
    return (1 << bits) - 1


def restrict(
    read: Iterable[str] | None, write: Iterable[str], connect: Iterable[int] | None, *, version: int | None = None
) -> None:
    """Confine the calling process for good. ``read``/``write`` are path trees (None: no file rules), ``connect`` the
    TCP ports that may be dialled (None: any). What the kernel does not know is left out; the caller states the level.
    """
    known = abi() if version is None else version
    if known == 0:
        return
    handled = handled_fs(known) if read is not None else 0
    net = _NET_CONNECT_TCP if connect is not None and known >= 4 else 0
    if not handled and not net:
        return
    attr = struct.pack("Q", handled)
    if known >= 4:
        attr += struct.pack("Q", net)
    if known >= 6:  # no signals to, and no abstract unix sockets of, processes outside
        attr += struct.pack("Q", _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL)
    ruleset = _syscall(_CREATE_RULESET, attr, ctypes.c_size_t(len(attr)), 0)
    for path in read or ():
        _allow_path(ruleset, path, _READ & handled)
    if read is not None:
        for path in write:
            _allow_path(ruleset, path, handled)
    for port in connect if net and connect is not None else ():
        _syscall(_ADD_RULE, ruleset, 2, struct.pack("QQ", _NET_CONNECT_TCP, port), 0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _FILE_ONLY
        _syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)
