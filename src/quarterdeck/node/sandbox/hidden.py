"""Files of the machine's system folders that only root may read: a node that runs as root hides them from Pods."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from functools import cache


def hidden(base: str) -> tuple[str, ...]:
    """Paths below ``base`` that are not readable by everybody, outermost only. Looked for once; what has gone since is
    left out, for nothing could be put in its place."""
    return tuple(path for path in _known(base) if os.path.lexists(path))


@cache
def _known(base: str) -> tuple[str, ...]:
    return tuple(_hidden(base))


def _hidden(folder: str) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink():
            continue
        mode = entry.stat(follow_symlinks=False).st_mode
        directory = stat.S_ISDIR(mode)
        needed = 0o005 if directory else 0o004
        if mode & needed != needed:
            yield entry.path
        elif directory:
            yield from _hidden(entry.path)


def visible(base: str, without: Iterable[str]) -> list[str]:
    """``base``, or the largest trees below it that contain none of ``without``: for rules that can only allow."""
    inside = [path for path in without if path == base or path.startswith(base.rstrip("/") + "/")]
    if not inside:
        return [base]
    if base in inside:
        return []
    return [path for entry in sorted(os.listdir(base)) for path in visible(os.path.join(base, entry), inside)]
