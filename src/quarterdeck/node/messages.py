"""What a container says at its end: its termination message file, else the end of its log, as a kubelet takes them."""

from __future__ import annotations

import os
from pathlib import Path

from quarterdeck.kube.resource import Object
from quarterdeck.node.logs import LogFile, LogOptions, read_lines
from quarterdeck.node.runtime import PodFiles
from quarterdeck.node.sandbox.isolation import Mount

_FILE_BYTES = 4096
_LOG_BYTES, _LOG_LINES = 2048, 80


def message_mount(files: PodFiles, container: Object, owner: int | None) -> list[Mount]:
    """An empty file at ``terminationMessagePath``, ``owner``'s (None: the node's); none for a container without."""
    path = container.get("terminationMessagePath") or ""
    if not path.startswith("/"):
        return []
    file = _file(files, container["name"])
    file.unlink(missing_ok=True)
    file.touch()
    file.chmod(0o666)
    if owner is not None:
        os.chown(file, owner, owner)
    return [Mount(str(file), path)]


def last_words(files: PodFiles, container: Object, attempt: int, code: int, now: float) -> str:
    """The message of a run that ended with ``code``; empty when it said none."""
    try:
        with _file(files, container["name"]).open("rb") as file:
            text = file.read(_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    if text or code == 0 or container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
        return text
    lines = read_lines(LogFile(files.log(container["name"], attempt)), LogOptions(tail=_LOG_LINES), now)
    return b"".join(lines)[-_LOG_BYTES:].decode("utf-8", "replace")


def _file(files: PodFiles, name: str) -> Path:
    return files.container(name) / "message"
