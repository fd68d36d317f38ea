"""The end of an audit file."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from quarterdeck.errors import StorageError
from quarterdeck.malformed import MALFORMED

_TAIL = 1024 * 1024
"""Bytes from the end in which the last line is looked for: arguments may be recorded."""


class Link(Struct):
    """What binds a line to the others. Lines of before 0.3 have no ``chain`` and ``seq``."""

    prev: str
    hash: str
    chain: str = ""
    seq: int = -1


def last_line(path: Path, *, cut: bool = False) -> Link | None:
    """The last complete line; None when there is none. ``cut`` removes an incomplete one after it.

    Raises OSError, and StorageError when the line is no audit record.
    """
    try:
        with path.open("r+b" if cut else "rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - _TAIL)
            file.seek(start)
            data = file.read()
            complete = data[: data.rfind(b"\n") + 1]
            if cut and len(complete) < len(data):
                file.truncate(start + len(complete))
    except FileNotFoundError:
        return None
    if not complete:
        return None
    line = complete[complete.rfind(b"\n", 0, -1) + 1 :]
    try:
        return msgspec.json.decode(line, type=Link)
    except MALFORMED as error:
        raise StorageError(
            f"the last line of {path} is no audit record ({error}); move the file away so that a new chain can start"
        ) from error
