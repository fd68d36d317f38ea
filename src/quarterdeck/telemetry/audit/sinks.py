"""Where audit lines go on this machine: a file that is rotated by size, or standard output."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from quarterdeck.errors import StorageError

from .record import GENESIS, Position
from .tail import last_line

_STDOUT = 1
_MODE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class Sink(Protocol):
    """Takes whole lines.

    ``write`` raises OSError when nothing of ``data`` was taken. What was taken in part is completed by later calls,
    also with empty ``data``; :attr:`behind` is True until then.
    """

    @property
    def behind(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class DescriptorSink:
    """Writing to a descriptor that may take less than it is given."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._rest = b""

    @property
    def behind(self) -> bool:
        """Whether a line is on its way in part."""
        return bool(self._rest)

    def write(self, data: bytes) -> None:
        """Append. Raises OSError when nothing of ``data`` could be written."""
        if self._rest:
            self._rest = self._rest[os.write(self._fd, self._rest) :]
            if self._rest:
                raise BlockingIOError(11, "the audit sink takes no more for now")
        if data:
            self._rest = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Closing again does nothing: the number may be another file's by then."""
        descriptor, self._fd = self._fd, -1
        if descriptor < 0:
            return
        if self._rest:
            with contextlib.suppress(OSError):
                os.write(descriptor, self._rest)
        os.close(descriptor)


class FileSink(DescriptorSink):
    """Appends to a file of mode 0600; every batch is one ``write(2)``.

    Above ``rotate`` bytes (0: never) the file becomes ``PATH.1``, that one ``PATH.2`` and so on up to ``keep``. Several
    processes may write to one file. A file that somebody moved away is made anew at the next :meth:`refresh`.
    """

    def __init__(self, path: Path, *, rotate: int = 0, keep: int = 10) -> None:
        """Raises StorageError when the file cannot be opened."""
        self._path = path
        self._rotate = rotate
        self._keep = max(keep, 1)
        self.pruned: list[Position] = []
        """Ends of the files that rotation removed, until somebody takes them for a checkpoint."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(os.open(path, _MODE, 0o600))
        except OSError as error:
            raise StorageError(
                f"cannot open the audit file {path}: {error.strerror}; choose another --audit-file"
            ) from error
        self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        if self._rotate and self._size and self._size + len(data) > self._rotate and not self.behind:
            self._turn()
        super().write(data)
        self._size += len(data)

    def refresh(self) -> None:
        """Follow the name: another process may have rotated, or a person moved, the file. Raises OSError."""
        if self.behind:
            return
        mine = os.fstat(self._fd)
        if _inode(self._path) != mine.st_ino:
            self._reopen()
        else:
            self._size = mine.st_size  # others write to it, too

    def _turn(self) -> None:
        with locked(self._path):
            # the size of before may be an estimate, or another process was faster
            if _inode(self._path) == os.fstat(self._fd).st_ino and os.fstat(self._fd).st_size > self._rotate // 2:
                self._shift()
            self._reopen()

    def _shift(self) -> None:
        oldest = numbered(self._path, self._keep)
        if oldest.exists():
            end = last_line(oldest)
            if end is not None and end.chain:
                self.pruned.append(Position(end.chain, end.seq, end.hash))
            oldest.unlink()
        for number in range(self._keep - 1, 0, -1):
            if numbered(self._path, number).exists():
                numbered(self._path, number).rename(numbered(self._path, number + 1))
        self._path.rename(numbered(self._path, 1))

    def _reopen(self) -> None:
        fresh = os.open(self._path, _MODE, 0o600)
        os.close(self._fd)
        self._fd = fresh
        self._size = os.fstat(fresh).st_size


class StreamSink(DescriptorSink):
    """Standard output; a reader that is too slow counts as a sink that is down and never stalls the gateway."""

    def __init__(self) -> None:
        """Raises StorageError when there is none."""
        try:
            try:  # an own description: O_NONBLOCK on descriptor 1 would be there for whoever shares it
                descriptor = os.open(f"/proc/self/fd/{_STDOUT}", _MODE | os.O_NONBLOCK)
            except OSError:  # sockets cannot be opened again, other systems have no /proc
                descriptor = os.dup(_STDOUT)
        except OSError as error:
            raise StorageError(f"standard output cannot take audit records: {error.strerror}; give a file") from error
        super().__init__(descriptor)


class NullSink:
    """Keeps nothing: the exports are the log."""

    behind = False

    def write(self, data: bytes) -> None:
        """Nowhere."""

    def close(self) -> None:
        """Nothing is open."""


def numbered(path: Path, number: int) -> Path:
    """The name of a rotated file; 1 is the newest."""
    return path.with_name(f"{path.name}.{number}")


def files(path: Path) -> list[Path]:
    """The file and what was rotated out of it, oldest first."""
    found: list[Path] = []
    while (older := numbered(path, len(found) + 1)).exists():
        found.append(older)
    return [*reversed(found), path]


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Alone with a file among the processes that write to it. Raises OSError."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def last_hash(path: Path) -> str:
    """What the next chain in a file follows. An incomplete last line (a crash in mid-write) is cut off.

    Raises StorageError when the file cannot be read or ends with something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            for candidate in (path, numbered(path, 1)):
                end = last_line(candidate, cut=True)
                if end is not None:
                    return end.hash
    except OSError as error:
        raise StorageError(f"cannot read the audit file {path}: {error.strerror}") from error
    return GENESIS


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
