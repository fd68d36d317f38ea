"""Counters that the workers of one gateway share: fixed tables in one mapping, of 8-byte words.

A gateway with one worker has the same tables in memory of its own, without a lock. The file is made anew by the first
worker to come: its times are of the monotonic clock, which begins again with the machine, and nothing in it is worth
keeping over a restart.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from quarterdeck import processes
from quarterdeck.errors import ConfigError

if TYPE_CHECKING:
    from .mutex import Lock

WAYS = 8
"""Places where one key may be: a table is full when these are, whatever is free elsewhere."""
WORKERS = 64

_MAGIC = 0x5144_4C49_4D49_5402
_WORD = 8
_AT_KEY, _AT_MUTEX, _AT_PIDS, _AT_TABLES = 2, 8, 16, 512

WORKERS_SEEN = 4
"""Word: one more than the highest number that a worker has had."""
ACTIVE = 1
"""Word: circuit breakers that hold anything back or count failures. While it is 0, nobody has to look for one."""


class Table:
    """``slots`` records of ``width`` words from word ``start`` on; the first word is the key, 0 where it is free."""

    __slots__ = ("_places", "_sets", "_words", "slots", "start", "width")

    def __init__(self, words: memoryview, start: int, slots: int, width: int) -> None:
        self._words = words
        self.start = start
        self.slots = slots
        self.width = width
        self._sets = slots // WAYS
        self._places: dict[int, int] = {}

    def find(self, key: int) -> int:
        """The word where the record of ``key`` begins; -1 when there is none."""
        at = self._places.get(key)
        if at is not None and self._words[at] == key:
            return at
        for at in self.places(key):
            if self._words[at] == key:
                if len(self._places) >= 2 * self.slots:
                    self._places.clear()
                self._places[key] = at
                return at
        return -1

    def places(self, key: int) -> range:
        """Where the record may be."""
        first = self.start + key % self._sets * WAYS * self.width
        return range(first, first + WAYS * self.width, self.width)

    def records(self) -> list[int]:
        """Where the records in use begin."""
        every = range(self.start, self.start + self.slots * self.width, self.width)
        return [at for at in every if self._words[at]]


class Memory:
    """The tables, the lock around them (None: nobody to share with), and which of the workers this is."""

    def __init__(self, mapping: mmap, lock: Lock | None, worker: int = 0) -> None:
        self.lock = lock
        self.worker = worker
        whole = memoryview(mapping)
        self.words = whole.cast("Q")
        self.reals = whole.cast("d")
        self.text = whole
        self._secret = bytes(whole[_AT_KEY * _WORD : (_AT_KEY + 2) * _WORD])
        start = _AT_TABLES
        self.buckets = Table(self.words, start, BUCKETS, BUCKET_WORDS)
        start += BUCKETS * BUCKET_WORDS
        self.rooms = Table(self.words, start, ROOMS, ROOM_WORDS)
        start += ROOMS * ROOM_WORDS
        self.breakers = Table(self.words, start, BREAKERS, BREAKER_WORDS)

    def key(self, text: str) -> int:
        """The key of a record. It depends on a secret of this mapping: nobody can choose names that share a place."""
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_WORD, key=self._secret).digest()
        return int.from_bytes(digest, "little") | 1

    def enter(self) -> None:
        """Take the lock; what a dead holder left half done is put right."""
        lock = self.lock
        if lock is not None and not lock.acquire():
            self.repair()

    def leave(self) -> None:
        if self.lock is not None:
            self.lock.release()

    def repair(self) -> None:
        """Count again what is counted twice: in a record and over all."""
        self.words[ACTIVE] = len(self.breakers.records())

    def pid(self, worker: int) -> int:
        """Process id of a worker; 0 when there is no such worker."""
        return self.words[_AT_PIDS + worker]

    def forget(self, worker: int) -> None:
        """Give up what a dead worker holds in the rooms."""
        for at in self.rooms.records():
            self.words[at + 1 + worker] = 0
        self.words[_AT_PIDS + worker] = 0


BUCKETS, BUCKET_WORDS = 16_384, 4
ROOMS, ROOM_WORDS = 512, 1 + WORKERS
BREAKERS, BREAKER_WORDS = 1_024, 32
SIZE = _WORD * (_AT_TABLES + BUCKETS * BUCKET_WORDS + ROOMS * ROOM_WORDS + BREAKERS * BREAKER_WORDS)
"""Bytes: 1.1 MB, of which only what is used is ever there."""


def private() -> Memory:
    """Tables of this process alone."""
    mapping = mmap(-1, SIZE)
    _begin(mapping)
    return Memory(mapping, None)


def shared(path: Path, alive: Callable[[int], bool] | None = None) -> Memory:
    """The tables in ``path``, for all who open it. Raises ConfigError when the file cannot be used.

    ``alive`` tells whether a process runs.
    """
    try:
        import fcntl

        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)  # only while we come in
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"limits file {path}: {error}; the workers of a gateway need one they may all write"
        ) from error
    try:
        memory = _open(fd, path, alive or processes.alive)
    except BaseException:
        os.close(fd)
        raise
    fcntl.flock(fd, fcntl.LOCK_UN)
    return memory


def _open(fd: int, path: Path, alive: Callable[[int], bool]) -> Memory:
    from .mutex import MUTEX_BYTES, shared_lock  # loads ctypes, which a gateway with one worker does without

    assert MUTEX_BYTES <= (_AT_PIDS - _AT_MUTEX) * _WORD
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        raise ConfigError(f"limits file {path} belongs to another user; give another --limits-file")
    header = memoryview(os.pread(fd, _AT_TABLES * _WORD, 0))
    fresh = status.st_size != SIZE or not _in_use(header.cast("Q"), alive)
    if fresh:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, SIZE)
    mapping = mmap(fd, SIZE)
    if fresh:
        _begin(mapping)
    lock = shared_lock(mapping, _AT_MUTEX * _WORD, fd, fresh=fresh)
    return _come_in(mapping, lock, path, alive)


def _in_use(header: memoryview, alive: Callable[[int], bool]) -> bool:
    return header[0] == _MAGIC and any(alive(pid) for pid in header[_AT_PIDS : _AT_PIDS + WORKERS] if pid)


def _begin(mapping: mmap) -> None:
    """Give tables that are all zero a secret of their own."""
    mapping[_AT_KEY * _WORD : (_AT_KEY + 2) * _WORD] = os.urandom(2 * _WORD)
    words = memoryview(mapping).cast("Q")
    words[WORKERS_SEEN] = 1
    words[0] = _MAGIC


def _come_in(mapping: mmap, lock: Lock, path: Path, alive: Callable[[int], bool]) -> Memory:
    memory = Memory(mapping, lock)
    for worker in range(WORKERS):
        pid = memory.pid(worker)
        if pid == 0 or pid == os.getpid() or not alive(pid):
            memory.enter()
            memory.forget(worker)
            memory.words[_AT_PIDS + worker] = os.getpid()
            memory.words[WORKERS_SEEN] = max(memory.words[WORKERS_SEEN], worker + 1)
            memory.leave()
            memory.worker = worker
            return memory
    raise ConfigError(f"limits file {path}: {WORKERS} workers use it already; give this gateway a file of its own")
