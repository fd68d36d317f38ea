"""The audit record: one JSON line per decision, chained by SHA-256 so that a removed or edited line shows.

``hash`` is SHA-256 over the line up to the ``hash`` field, and that part holds ``prev``, the hash of the line before.
The hot path only appends a record to a list; a flush encodes, chains and writes what has gathered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from quarterdeck.errors import StorageError

GENESIS = "0" * 64


class Record(Struct, rename="camel", gc=False):
    """One decision and what came of it. ``ts`` is seconds since the epoch; ``latency_ms`` is milliseconds."""

    ts: float
    id: str
    principal: str
    on_behalf_of: str
    agent: str
    kind: Literal["mcp", "llm", "a2a"]
    server: str
    tool: str
    method: str
    arguments_hash: str
    decision: Literal["allow", "deny"]
    rule: str
    outcome: Literal["ok", "error", "tool_error", "denied"]
    status: int
    latency_ms: float
    trace_id: str
    detail: str = ""
    """Why it was denied, or what went wrong."""


class Sink(Protocol):
    """Where lines go. ``write`` gets whole lines; raises OSError when it cannot keep them."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class FileSink:
    """Appends to a file of mode 0600. Every write is one ``write(2)``."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"cannot open the audit file {path}: {error.strerror}; choose another --audit-file"
            ) from error
        self._path = path

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        os.close(self._fd)


class StreamSink:
    """Standard output."""

    def write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        sys.stdout.buffer.flush()


_ENCODER = msgspec.json.Encoder()


def chain(record: Record, prev: str) -> tuple[bytes, str]:
    """The record's line (with newline) after the line whose hash is ``prev``, and its own hash."""
    head = b'%b,"prev":"%b"' % (_ENCODER.encode(record)[:-1], prev.encode())
    digest = hashlib.sha256(head).hexdigest()
    return b'%b,"hash":"%b"}\n' % (head, digest.encode()), digest


class AuditLog:
    """Collects records and writes them in batches, at the latest ``interval`` seconds after they came.

    A sink that fails keeps its records in memory (up to ``backlog``) and is tried again; what exceeds that is dropped
    and counted in :attr:`lost`, and reported by ``on_error``.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        prev: str = GENESIS,
        interval: float = 0.05,
        backlog: int = 100_000,
        on_error: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._sink = sink
        self._prev = prev
        self._interval = interval
        self._backlog = backlog
        self._on_error = on_error
        self._pending: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None
        self.written = 0
        self.lost = 0
        self.errors = 0

    def append(self, record: Record) -> None:
        """Take a record; never blocks."""
        self._pending.append(record)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self.flush)
        elif len(self._pending) >= 4096:
            self.flush()

    def flush(self) -> None:
        """Write what is pending now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        prev = self._prev
        lines: list[bytes] = []
        for record in self._pending:
            line, prev = chain(record, prev)
            lines.append(line)
        try:
            self._sink.write(b"".join(lines))
        except OSError as error:
            self._failed(error)
            return
        self._prev = prev
        self.written += len(lines)
        self._pending = []

    def close(self) -> None:
        """Write everything and close the sink."""
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sink.close()

    def _failed(self, error: OSError) -> None:
        self.errors += 1
        excess = len(self._pending) - self._backlog
        if excess > 0:
            del self._pending[:excess]
            self.lost += excess
        self._on_error(f"audit records cannot be written: {error.strerror or error}; {len(self._pending)} are waiting")
        with contextlib.suppress(RuntimeError):  # no loop: flushed by hand, the next append starts the timer again
            self._timer = asyncio.get_running_loop().call_later(1.0, self.flush)


class _Chained(Struct):
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of :func:`verify`. ``line`` is 1-based, 0 when all is well."""

    ok: bool
    records: int
    line: int = 0
    problem: str = ""


def verify(path: Path) -> Verification:
    """Check the chain of an audit file. Raises StorageError when it cannot be read."""
    prev: str | None = None
    count = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                problem, prev = _check(line, prev)
                if problem:
                    return Verification(False, count, number, problem)
                count += 1
    except OSError as error:
        raise StorageError(f"cannot read the audit file {path}: {error.strerror}") from error
    return Verification(True, count)


def _check(line: bytes, prev: str | None) -> tuple[str, str]:
    if not line.endswith(b"\n"):
        return "the line is incomplete", ""
    try:
        record = msgspec.json.decode(line, type=_Chained)
    except msgspec.DecodeError as error:
        return f"not an audit record: {error}", ""
    head, mark, _ = line.rpartition(b',"hash":"')
    if not mark or hashlib.sha256(head).hexdigest() != record.hash:
        return "the record was changed: its hash does not match", ""
    if record.prev != (GENESIS if prev is None else prev):
        return "the chain is broken: records before this one were removed or reordered", ""
    return "", record.hash


def last_hash(path: Path) -> str:
    """Where the chain of an existing file goes on. An incomplete last line (a crash in mid-write) is cut off."""
    try:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - 256 * 1024)
            file.seek(start)
            tail = file.read()
            complete = tail[: tail.rfind(b"\n") + 1]
            if len(complete) < len(tail):
                file.truncate(start + len(complete))
    except FileNotFoundError:
        return GENESIS
    except OSError as error:
        raise StorageError(f"cannot read the audit file {path}: {error.strerror}") from error
    if not complete:
        return GENESIS
    line = complete[complete.rfind(b"\n", 0, -1) + 1 :]
    try:
        return msgspec.json.decode(line, type=_Chained).hash
    except msgspec.DecodeError as error:
        raise StorageError(
            f"the last line of {path} is no audit record ({error}); move the file away so that a new chain can start"
        ) from error


def open_log(path: Path | None, **options: Any) -> AuditLog:
    """An :class:`AuditLog` on a file (its chain goes on) or, without a path, on standard output."""
    if path is None:
        return AuditLog(StreamSink(), **options)
    prev = last_hash(path)
    return AuditLog(FileSink(path), prev=prev, **options)
