"""Ends a test plane when its pytest has ended, however that ended: ``python guard.py FOLDER``, until end of input.

Whatever has the folder's path in its command line, environment or mounts is killed; ranges made local for the plane,
control groups of its nodes and the folder itself are removed. A plane that was closed in order leaves nothing to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from quarterdeck.node.addresses import drop_local
from quarterdeck.node.cgroups import Cgroups, group_of

_SECONDS = 10.0


def processes_of(folder: Path) -> list[int]:
    """Every process but this one that belongs to a folder."""
    needle = str(folder).encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(needle in (entry / name).read_bytes() for name in ("cmdline", "environ", "mountinfo")):
                found.append(int(entry.name))
    return found


def sweep(folder: Path) -> None:
    """Remove a plane. Processes first: nothing may come back."""
    deadline = time.monotonic() + _SECONDS
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for book in folder.glob("**/addresses.json"):
        with contextlib.suppress(ValueError, KeyError, OSError):
            drop_local(json.loads(book.read_text())["cidr"])
    for node in folder.glob("nodes/*/node"):
        Cgroups(group_of(node)).remove_tree()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()
    sweep(Path(sys.argv[1]))
