"""Container logs: append-only files the containers write themselves, and an index that says when bytes arrived.

Containers write straight to the file, so logs go on while the node is away. The node notes ``(size, time)`` pairs in a
side index; lines that came while it was away carry the time of its return. Files are cut at 10 MiB by copying to
``.1`` (writers hold the file open in append mode): a few lines written between copy and cut can be lost.
"""

from __future__ import annotations

import os
import shutil
import struct
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
_ENTRY = struct.Struct("<Qd")
_CHUNK = 64 * 1024


class LogFile:
    """The log of one run of one container."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = path.with_suffix(".idx")

    def open(self) -> int:
        """A descriptor for the container to write to."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def note(self, now: float, known: int) -> int:
        """Record that the file has grown since ``known`` bytes; rotates when large. Returns the size now."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return 0
        if size > known:
            with self.index.open("ab") as index:
                index.write(_ENTRY.pack(size, now))
        if size > MAX_BYTES:
            self._rotate()
            return 0
        return size

    def _rotate(self) -> None:
        shutil.copyfile(self.path, self.path.with_suffix(".1"))
        os.truncate(self.path, 0)
        if self.index.exists():
            self.index.replace(self.path.with_suffix(".1.idx"))

    def remove(self) -> None:
        for path in (self.path, self.index, self.path.with_suffix(".1"), self.path.with_suffix(".1.idx")):
            path.unlink(missing_ok=True)

    def parts(self) -> list[tuple[Path, Path]]:
        """(file, index) oldest first."""
        old = (self.path.with_suffix(".1"), self.path.with_suffix(".1.idx"))
        return [p for p in (old, (self.path, self.index)) if p[0].exists()]


class Times:
    """When the byte at an offset arrived."""

    def __init__(self, index: Path, fallback: float) -> None:
        data = index.read_bytes() if index.exists() else b""
        data = data[: len(data) // _ENTRY.size * _ENTRY.size]
        entries = list(_ENTRY.iter_unpack(data))
        self._sizes = [int(e[0]) for e in entries]
        self._times = [float(e[1]) for e in entries]
        self._fallback = fallback

    def at(self, offset: int) -> float:
        position = bisect_left(self._sizes, offset + 1)
        return self._times[position] if position < len(self._times) else self._fallback


@dataclass(frozen=True, slots=True)
class LogOptions:
    """As v1.PodLogOptions; ``since`` in seconds since the epoch, -1 for "not given"."""

    follow: bool = False
    tail: int = -1
    since: float = -1.0
    timestamps: bool = False
    limit_bytes: int = -1


def rfc3339_nano(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def read_lines(log: LogFile, options: LogOptions, now: float, *, size: int | None = None) -> list[bytes]:
    """What the file holds (of the newest part the first ``size`` bytes), with tail, since and timestamps applied."""
    lines: list[bytes] = []
    for path, index in log.parts():
        times = Times(index, now)
        offset = 0
        for line in path.read_bytes()[: size if path == log.path else None].splitlines(keepends=True):
            at = times.at(offset)
            offset += len(line)
            if at >= options.since:
                lines.append(rfc3339_nano(at).encode() + b" " + line if options.timestamps else line)
    return lines if options.tail < 0 else lines[len(lines) - min(options.tail, len(lines)) :]


async def stream(
    log: LogFile,
    options: LogOptions,
    clock: Callable[[], float],
    grown: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """The log in pieces; with follow until ``grown`` (wait for more) says that the container has ended."""
    left = options.limit_bytes if options.limit_bytes >= 0 else None
    position = log.path.stat().st_size if log.path.exists() else 0
    for piece in _chunks(read_lines(log, options, clock(), size=position)):
        piece, left = _limit(piece, left)
        if piece:
            yield piece
        if left == 0:
            return
    if not options.follow:
        return
    fresh = True
    more = True
    while more:
        more = await grown()
        data, position = _read_from(log.path, position)
        if not data:
            continue
        if options.timestamps:
            data, fresh = _stamp(data, rfc3339_nano(clock()).encode(), fresh)
        data, left = _limit(data, left)
        if data:
            yield data
        if left == 0:
            return


def _stamp(data: bytes, at: bytes, fresh: bool) -> tuple[bytes, bool]:
    out = bytearray()
    for line in data.splitlines(keepends=True):
        out += at + b" " + line if fresh else line
        fresh = line.endswith(b"\n")
    return bytes(out), fresh


def _chunks(lines: list[bytes]) -> list[bytes]:
    data = b"".join(lines)
    return [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]


def _limit(data: bytes, left: int | None) -> tuple[bytes, int | None]:
    if left is None:
        return data, None
    return data[:left], max(0, left - len(data))


def _read_from(path: Path, position: int) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < position:
                position = 0  # rotated
            file.seek(position)
            data = file.read()
            return data, position + len(data)
    except FileNotFoundError:
        return b"", position
