"""Following a configuration file: read again when it changes or on SIGHUP; a bad one is told, and changes nothing."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from quarterdeck.errors import QuarterdeckError
from quarterdeck.snapshot import Snapshot, decode, encode

from ..children import Children
from .standalone import FileOptions, Loaded, Settings
from .validate import validated

_log = logging.getLogger("quarterdeck.gateway.config")
POLL = 1.0
"""Seconds between looks at the file."""

_WRITTEN = {
    "admin": "config.adminAddr", "stats": "config.statsAddr", "ready": "config.readinessAddr",
    "log_level": "config.logging.level", "log_format": "config.logging.format", "audit": "audit or config.tracing",
}  # fmt: skip
"""Where a file says what."""

Stamp = tuple[tuple[str, int, int, int], ...]


class FileSource:
    """Serves one file. ``use`` takes a snapshot into service and raises QuarterdeckError when it cannot."""

    def __init__(self, options: FileOptions, use: Callable[[Snapshot], None], children: Children) -> None:
        self._options = options
        self._use = use
        self._children = children
        self._stamp: Stamp = ()
        self._files: frozenset[Path] = frozenset()
        self.loaded: Loaded | None = None
        self._settings: Settings | None = None
        self.since = ""
        """When :attr:`loaded` came into use, RFC 3339."""
        self.error = ""
        """Why the file, as it is now, is not what is served."""
        self.rejected = 0

    def start(self) -> Loaded:
        """Serve the file for the first time. Raises QuarterdeckError."""
        self._stamp = self._look()
        try:
            loaded = self._serve()
        except QuarterdeckError:
            self._children.keep(())
            raise
        self._stamp = self._look()
        return loaded

    async def run(self) -> None:
        """Until cancelled: look, and load when something has changed."""
        if self._options.path is None:
            return
        while True:
            await asyncio.sleep(POLL)
            if self._look() != self._stamp:
                self.reload()

    def reload(self) -> bool:
        """Read the file again. False: it is refused, and what was served before goes on."""
        before = self.loaded
        self._stamp = self._look()
        try:
            self._serve()
        except QuarterdeckError as error:
            self.rejected += 1
            self.error = str(error)
            self._children.keep(before.snapshot.children if before is not None else ())
            _log.error("the configuration is refused, the one before is served on:\n%s", error)
            return False
        self._stamp = self._look()
        return True

    def _serve(self) -> Loaded:
        loaded = self._noted(validated(self._options))
        snapshot = self._children.place(decode(encode(loaded.snapshot)))
        self._use(snapshot)
        self._children.keep(snapshot.children)
        self.loaded = loaded
        self.since = datetime.now(UTC).isoformat(timespec="seconds")
        self.error = ""
        self._files = loaded.files
        for warning in loaded.warnings:
            _log.warning("%s", warning)
        _log.info("serving %s (%s), version %s", loaded.name, loaded.title, snapshot.version)
        return loaded

    def _noted(self, loaded: Loaded) -> Loaded:
        """With a warning where settings of the process changed: they are those it was started with."""
        if self._settings is None:
            self._settings = loaded.settings
        before, after = asdict(self._settings), asdict(loaded.settings)
        changed = [_WRITTEN[name] for name in before if before[name] != after[name]]
        if not changed:
            return loaded
        told = f"{loaded.name}: changed, and in effect from the next start on: {', '.join(changed)}"
        return replace(loaded, warnings=(*loaded.warnings, told))

    def _look(self) -> Stamp:
        """What tells that a file was written: size, time and place on the disk."""
        paths = ([self._options.path] if self._options.path is not None else []) + sorted(self._files)
        found: list[tuple[str, int, int, int]] = []
        for path in paths:
            try:
                stat = os.stat(path)
                found.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino))
            except OSError:
                found.append((str(path), -1, 0, 0))
        return tuple(found)
