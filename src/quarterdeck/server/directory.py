"""Who may enter the data directory: its owner. Nothing inside has to trust the modes of single files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from quarterdeck.errors import StorageError

PRIVATE = ("run", "pki", "node")
_OURS = {*PRIVATE, "state.db", "kubeconfig", "lock", "gateway"}


def close_to_others(home: Path) -> None:
    """Make the data directory, or close an existing one and what it holds to other users of the machine.

    A directory that is not only ours (``QUARTERDECK_HOME=/tmp``) keeps its mode; the parts inside are closed all the
    same. Raises StorageError with the remedy when the directory cannot be used.
    """
    try:
        fresh = not home.exists()
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if fresh or _is_ours(home):
            _close(home)
        (home / "run").mkdir(exist_ok=True, mode=0o700)
        for part in PRIVATE:
            if (home / part).is_dir():
                _close(home / part)
    except OSError as error:
        why = "it is a file" if home.is_file() else error.strerror
        raise StorageError(
            f"data directory {home}: {why}; make it a directory that you can write, "
            "or set QUARTERDECK_HOME to another one"
        ) from error


def _is_ours(home: Path) -> bool:
    found = home.stat()
    names = set(os.listdir(home))
    return found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX and (not names or bool(names & _OURS))


def _close(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
