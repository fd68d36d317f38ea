"""Where users' grants are kept, with the flows that are under way and the clients that were registered.

A control plane keeps them, sealed, for all its gateways (:mod:`.plane`). A gateway of its own keeps them in one sealed
file that its workers share.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Protocol

import msgspec
from msgspec import Struct

from quarterdeck.errors import StorageError
from quarterdeck.snapshot.sign_in import Kind, Shown

_MOST: dict[str, int] = {"grant": 100_000, "pending": 5_000, "flow": 5_000, "client": 1_000}
_BINDING = b"user tokens v1"


class Stored(Struct, frozen=True):
    """``version`` grows with every write of the entry."""

    value: bytes
    version: int


class Store(Protocol):
    """Entries by kind, user and name. All methods raise StorageError, UpstreamError or TimedOut when it fails."""

    async def get(self, kind: Kind, user: str, name: str) -> Stored | None: ...

    async def put(
        self,
        kind: Kind,
        user: str,
        name: str,
        value: bytes,
        *,
        after: int | None = None,
        until: float = 0.0,
        shown: Shown | None = None,
    ) -> bool:
        """Write, if ``after`` is the version there (0: nothing is; None: whatever is); whether it was written.

        ``until``: when it is forgotten; 0: not by itself.
        """
        ...

    async def take(self, kind: Kind, user: str, name: str) -> Stored | None:
        """Read and remove in one: of several that try, one gets it."""
        ...

    async def lease(self, kind: Kind, user: str, name: str, version: int, seconds: float) -> bool:
        """Whether the entry is still of that version, and the caller the only one to work on it for so long."""
        ...

    def forget(self, user: str, name: str) -> None:
        """Nothing that was read of this grant before may be answered from memory."""
        ...


class _Row(Struct, array_like=True):
    kind: str
    value: bytes
    version: int
    until: float = 0.0
    leased: float = 0.0
    shown: Shown | None = None


_Rows = dict[str, _Row]


class Seals(Protocol):
    """Authenticated encryption under the gateway's keys."""

    def seal_bytes(self, data: bytes, binding: bytes) -> bytes: ...
    def open_bytes(self, token: bytes, binding: bytes) -> bytes | None: ...


class FileStore:
    """One sealed file; several processes may use it at a time."""

    def __init__(self, path: Path, sealer: Seals, clock: Callable[[], float] = time) -> None:
        self._path = path
        self._sealer = sealer
        self._clock = clock
        self._rows: _Rows = {}
        self._seen: tuple[int, int, int] = (0, 0, 0)

    async def get(self, kind: Kind, user: str, name: str) -> Stored | None:
        row = self._current().get(_key(kind, user, name))
        if row is None or 0.0 < row.until <= self._clock():
            return None
        return Stored(row.value, row.version)

    async def put(
        self,
        kind: Kind,
        user: str,
        name: str,
        value: bytes,
        *,
        after: int | None = None,
        until: float = 0.0,
        shown: Shown | None = None,
    ) -> bool:
        key = _key(kind, user, name)
        with self._changing() as rows:
            before = rows.get(key)
            version = before.version if before is not None else 0
            if after is not None and after != version:
                return False
            if before is None and sum(row.kind == kind for row in rows.values()) >= _MOST[kind]:
                raise StorageError(f"{self._path} holds {_MOST[kind]} entries of kind {kind} already")
            rows[key] = _Row(kind, value, version + 1, until, 0.0, shown)
        return True

    async def take(self, kind: Kind, user: str, name: str) -> Stored | None:
        with self._changing() as rows:
            row = rows.pop(_key(kind, user, name), None)
        if row is None or 0.0 < row.until <= self._clock():
            return None
        return Stored(row.value, row.version)

    async def lease(self, kind: Kind, user: str, name: str, version: int, seconds: float) -> bool:
        now = self._clock()
        with self._changing() as rows:
            row = rows.get(_key(kind, user, name))
            if row is None or row.version != version or row.leased > now:
                return False
            row.leased = now + seconds
        return True

    def forget(self, user: str, name: str) -> None:
        del user, name  # every read looks whether the file is still the same

    def shown(self) -> list[Shown]:
        """All grants, by user and server."""
        found = [row.shown for row in self._current().values() if row.shown is not None]
        return sorted(found, key=lambda s: (s.user, s.server))

    def remove(self, user: str, server: str) -> bool:
        """Forget a user's grant at a server; whether there was one."""
        with self._changing() as rows:
            pending = rows.pop(_key("pending", user, server), None)
            return rows.pop(_key("grant", user, server), None) is not None or pending is not None

    # -- the file
    def _current(self) -> _Rows:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._seen, self._rows = (0, 0, 0), {}
            return self._rows
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen != self._seen:
            self._rows, self._seen = self._read(), seen
        return self._rows

    def _read(self) -> _Rows:
        try:
            data = self._sealer.open_bytes(self._path.read_bytes(), _BINDING)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(f"cannot read the users' tokens in {self._path}: {error.strerror}") from error
        if data is None:
            raise StorageError(
                f"{self._path} was not sealed with this gateway's key, or was altered; put the key file back, "
                "or remove the file: users then sign in anew"
            )
        return msgspec.msgpack.decode(data, type=_Rows)

    @contextmanager
    def _changing(self) -> Generator[_Rows]:
        """The rows while nobody else changes them; what was changed is written at the end."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"cannot keep users' tokens in {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rows = self._read()
            before = msgspec.msgpack.encode(rows)
            yield rows
            now = self._clock()
            for key in [key for key, row in rows.items() if 0.0 < row.until <= now]:
                del rows[key]
            after = msgspec.msgpack.encode(rows)
            if after != before:
                self._write(self._sealer.seal_bytes(after, _BINDING))
        finally:
            os.close(lock)

    def _write(self, data: bytes) -> None:
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            raise StorageError(f"cannot keep users' tokens in {self._path}: {error.strerror}") from error


def _key(kind: str, user: str, name: str) -> str:
    """Short, and the same for no two entries."""
    return sha256(msgspec.json.encode([kind, user, name])).hexdigest()
