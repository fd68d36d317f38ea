"""Audit records: one JSON line per decision, in chains of SHA-256, with signed checkpoints kept elsewhere.

``record`` → ``log`` (batches) → ``sinks`` (file, standard output); ``checkpoint`` and ``verify`` tell what was changed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint as Checkpoint
from .log import AuditLog as AuditLog
from .log import Export as Export
from .log import OnFailure as OnFailure
from .record import GENESIS as GENESIS
from .record import Position as Position
from .record import Record as Record
from .sinks import FileSink as FileSink
from .sinks import NullSink, StreamSink, last_hash
from .sinks import Sink as Sink
from .verify import Verification as Verification
from .verify import verify as verify


def open_log(path: Path | None, *, rotate: int = 0, keep: int = 10, **options: Any) -> AuditLog:
    """An :class:`AuditLog` on a file or, without a path, on standard output; ``/dev/null`` keeps nothing.

    The first record follows what the file ends with. Above ``rotate`` bytes (0: never) it is rotated. Raises
    StorageError.
    """
    if path is None:
        return AuditLog(StreamSink(), **options)
    if str(path) == os.devnull:
        return AuditLog(NullSink(), **options)
    prev = GENESIS if path.exists() and not path.is_file() else last_hash(path)  # a pipe has no past
    return AuditLog(FileSink(path, rotate=rotate, keep=keep), prev=prev, **options)
