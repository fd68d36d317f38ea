"""The durable half of the store: SQLite in WAL mode, one writer thread, group commit.

Writes are queued in resourceVersion order; the thread takes everything that waits, commits it with one fsync
(``synchronous=FULL``) and reports back. A failed commit leaves nothing behind, in the file or in memory.
"""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from quarterdeck.errors import StorageError

SCHEMA_VERSION = 1
"""Version of the file's layout; a file with a higher one was written by a newer Quarterdeck."""

_MAX_BATCH = 512
_LAYOUT = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE objects (
  kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, rv INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (kind, namespace, name)) WITHOUT ROWID;
CREATE TABLE changes (
  rv INTEGER PRIMARY KEY, type INTEGER NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  at REAL NOT NULL, data BLOB NOT NULL, old BLOB);
"""


class Cipher(Protocol):
    """Encrypts what must not be readable in the data directory; ``aad`` ties a value to its object."""

    def encrypt(self, data: bytes, aad: bytes) -> bytes: ...

    def decrypt(self, data: bytes, aad: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Change:
    """One write. ``data`` is the object after it (for a delete: the last state); ``old`` the state before it."""

    rv: int
    type: int
    kind: str
    namespace: str
    name: str
    at: float
    data: bytes
    old: bytes | None


ADDED, MODIFIED, DELETED = 0, 1, 2
Committed = Callable[[StorageError | None], None]


class DirectoryLock:
    """An exclusive lock on a data directory, held by the process; the file holds its pid."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lock"
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"data directory {directory} cannot be written: {error.strerror}; "
                "set QUARTERDECK_HOME to a directory you own"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise StorageError(
                f"data directory {directory} is in use by process {holder}; "
                "stop it with `qd down`, or set QUARTERDECK_HOME to another directory"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Safe to repeat: a start that fails gives the lock back, the stop after it finds nothing to do."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


class Database:
    """The file ``state.db``. Only the writer thread touches the connection once :meth:`start` was called."""

    def __init__(self, path: Path, *, cipher: Cipher | None = None, encrypted: frozenset[str] = frozenset()) -> None:
        self.path = path
        self._cipher = cipher
        self._encrypted = encrypted
        self._queue: queue.SimpleQueue[tuple[Change, Committed] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._compact_to = 0
        try:
            # made before SQLite does: it gives its journals the mode of the database
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            os.chmod(path, 0o600)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._open()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        except OSError as error:
            raise StorageError(f"cannot open {path}: {error.strerror}; make it writable for you") from error

    def _open(self) -> None:
        db = self._db
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            db.close()
            raise StorageError(
                f"{self.path} was written by a newer Quarterdeck (layout {version}, this one knows {SCHEMA_VERSION}); "
                "upgrade, or set QUARTERDECK_HOME to another directory"
            )
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        if version == 0:
            db.executescript(f"BEGIN;{_LAYOUT}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")

    # -- reading, before start
    def last_version(self) -> int:
        """The highest resourceVersion ever acknowledged."""
        newest = 0
        for table in ("objects", "changes"):
            newest = max(newest, self._db.execute(f"SELECT max(rv) FROM {table}").fetchone()[0] or 0)  # noqa: S608
        return max(newest, self.compacted_version())

    def compacted_version(self) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE key = 'compacted'").fetchone()
        return int(row[0]) if row else 0

    def objects(self) -> Iterator[tuple[str, str, str, int, bytes]]:
        """All objects as (kind, namespace, name, resourceVersion, data)."""
        for kind, namespace, name, rv, data in self._db.execute("SELECT kind, namespace, name, rv, data FROM objects"):
            yield kind, namespace, name, rv, self._read(kind, namespace, name, data)

    def changes(self) -> Iterator[Change]:
        """The kept change log, oldest first."""
        for rv, type_, kind, namespace, name, at, data, old in self._db.execute(
            "SELECT rv, type, kind, namespace, name, at, data, old FROM changes ORDER BY rv"
        ):
            before = None if old is None else self._read(kind, namespace, name, old)
            yield Change(rv, type_, kind, namespace, name, at, self._read(kind, namespace, name, data), before)

    # -- writing
    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)
        self._thread.start()

    def submit(self, change: Change, done: Committed) -> None:
        """Queue one write; ``done(error or None)`` is called in the writer thread after the commit."""
        self._queue.put((change, done))

    def compact(self, version: int) -> None:
        """Forget changes up to ``version`` with the next commit."""
        self._compact_to = max(self._compact_to, version)

    def close(self) -> None:
        """Commit what is queued and close the file."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        self._db.close()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            batch = [item]
            stop = False
            while len(batch) < _MAX_BATCH:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    stop = True
                    break
                batch.append(item)
            error = self._commit([change for change, _ in batch])
            for _, done in batch:
                done(error)
            if stop:
                return

    def _commit(self, changes: list[Change]) -> StorageError | None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for change in changes:
                self._write(change)
            if self._compact_to:
                self._db.execute("DELETE FROM changes WHERE rv <= ?", (self._compact_to,))
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (self._compact_to,))
            self._db.execute("COMMIT")
            self._compact_to = 0
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            return self._failure(error)
        return None

    def _write(self, change: Change) -> None:
        key = (change.kind, change.namespace, change.name)
        data = self._seal(*key, change.data)
        old = None if change.old is None else self._seal(*key, change.old)
        if change.type == DELETED:
            self._db.execute("DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", key)
        else:
            self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (*key, change.rv, data))
        self._db.execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (change.rv, change.type, *key, change.at, data, old)
        )

    def _seal(self, kind: str, namespace: str, name: str, data: bytes) -> bytes:
        if self._cipher is None or kind not in self._encrypted:
            return data
        return self._cipher.encrypt(data, f"{kind}/{namespace}/{name}".encode())

    def _read(self, kind: str, namespace: str, name: str, data: bytes) -> bytes:
        if self._cipher is None or kind not in self._encrypted:
            return data
        return self._cipher.decrypt(data, f"{kind}/{namespace}/{name}".encode())

    def _failure(self, error: sqlite3.Error) -> StorageError:
        text = str(error)
        if "full" in text:
            remedy = "free some space on the disk; writes work again as soon as there is room"
        elif "readonly" in text or "unable to open" in text:
            remedy = "make the directory writable, or set QUARTERDECK_HOME to another one"
        else:
            remedy = "check the disk; a damaged file can be moved away to start empty"
        return StorageError(f"{self.path} cannot be used: {text}; {remedy}")
