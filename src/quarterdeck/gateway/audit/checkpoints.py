"""Once a second: sign how far the chain has come, and have it kept where the file's owner cannot reach it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import time

import msgspec

from quarterdeck.errors import QuarterdeckError, StorageError
from quarterdeck.telemetry.audit import AuditLog, Position
from quarterdeck.telemetry.audit.checkpoint import Signer

INTERVAL = 1.0

Anchor = Callable[[bytes], Awaitable[None]]
"""Keeps one checkpoint (JSON). Raises QuarterdeckError when it does not."""


class FileAnchor:
    """Appends one line a checkpoint, synced. Best on a disk, or with an attribute, that only lets files grow."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self, checkpoint: bytes) -> None:
        await asyncio.to_thread(self._append, checkpoint + b"\n")

    def _append(self, line: bytes) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageError(f"--audit-anchor {self._path}: {error.strerror}") from error


class Checkpoints:
    """Signs for one log and tells its anchors; each is told what it missed with the next one."""

    def __init__(
        self,
        log: AuditLog,
        signer: Signer,
        anchors: list[Anchor],
        on_error: Callable[[str], None],
        clock: Callable[[], float] = time,
    ) -> None:
        self._log = log
        self._signer = signer
        self._anchors = anchors
        self._on_error = on_error
        self._clock = clock
        self._told: dict[int, Position] = {}
        self._pruned: tuple[Position, ...] = ()
        self._failures: dict[int, int] = {}
        self.errors = 0

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Until cancelled."""
        while True:
            await sleep(INTERVAL)
            self._log.refresh()
            await self.step()

    async def step(self, *, final: bool = False) -> None:
        """Tell every anchor that does not know the newest line yet. Never raises for an anchor that fails."""
        position = self._log.position()
        self._pruned += tuple(self._log.pruned())
        if position is None:
            return
        stale = [at for at in range(len(self._anchors)) if final or self._told.get(at) != position]
        if not stale:
            return
        checkpoint = self._signer.sign(position, self._clock(), pruned=self._pruned, final=final)
        body = msgspec.json.encode(checkpoint)
        await asyncio.gather(*(self._tell(at, body, position) for at in stale))
        if all(self._told.get(at) == position for at in range(len(self._anchors))):
            self._pruned = ()

    async def _tell(self, at: int, body: bytes, position: Position) -> None:
        try:
            await self._anchors[at](body)
        except (QuarterdeckError, TimeoutError) as error:
            self.errors += 1
            failures = self._failures[at] = self._failures.get(at, 0) + 1
            if failures in (5, 300):  # a control plane that restarts is nothing to speak of
                self._on_error(f"checkpoints of the audit chain are not kept: {error}")
        else:
            self._told[at] = position
            self._failures[at] = 0
