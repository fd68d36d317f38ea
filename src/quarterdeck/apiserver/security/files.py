"""Private files: 0600 in 0700 directories, replaced atomically, so a crash leaves the old file or the new one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from quarterdeck.errors import StorageError


def private_dir(path: Path) -> Path:
    """Make ``path`` a directory that only its owner can enter. Raises StorageError."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.stat().st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise StorageError(
            f"cannot use directory {path}: {error.strerror or error}; check its owner and mode"
        ) from error
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write ``path`` with mode 0600, durably and atomically. Raises StorageError naming the file."""
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; check free space and permissions"
        ) from error


def read_private(path: Path) -> bytes | None:
    """The file's bytes; None when it does not exist. Closes a mode that lets others read it."""
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}; check its owner and mode") from error
