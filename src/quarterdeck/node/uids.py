"""Uids of the machine for Pods, where the node is root: one for each Pod, so that no two can touch each other.

The range of an instance lies in 1,200,000,000 … 1,737,000,000, chosen by its data directory: above what distributions
give to users, services and subordinate ids. Pods that share a namespace's claims share a uid, since a claim's files
must still belong to the Pod that comes next.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

from quarterdeck.errors import StorageError
from quarterdeck.kube.resource import Object

log = logging.getLogger(__name__)
_FIRST, _RANGES, _SIZE = 1_200_000_000, 8192, 65536


def uid_key(pod: Object) -> str:
    """What a Pod's uid is kept under: its own UID, or the namespace whose claims it uses."""
    volumes = pod["spec"].get("volumes") or ()
    claims = any("persistentVolumeClaim" in volume for volume in volumes)
    return f"claims/{pod['metadata']['namespace']}" if claims else str(pod["metadata"]["uid"])


class Uids:
    """Who has which uid; survives restarts in ``directory/uids.json``."""

    def __init__(self, directory: Path) -> None:
        seed = int.from_bytes(hashlib.sha256(str(directory.resolve()).encode()).digest()[4:8], "big")
        self.first = _FIRST + seed % _RANGES * _SIZE
        self._file = directory / "uids.json"
        self._taken: dict[str, int] = {}
        self._next = 1
        try:
            saved = json.loads(self._file.read_bytes())
            self._taken = {str(key): int(number) for key, number in saved["taken"].items()}
            self._next = int(saved["next"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is damaged (%s); Pods get new uids", self._file, error)

    def assign(self, key: str) -> int:
        """The uid kept under ``key``, else one not used recently. Raises StorageError when there is none left."""
        if key in self._taken:
            return self.first + self._taken[key]
        used = set(self._taken.values())
        for step in range(_SIZE - 1):
            number = (self._next + step - 1) % (_SIZE - 1) + 1
            if number not in used:
                self._taken[key] = number
                self._next = number + 1
                self._save()
                return self.first + number
        raise StorageError("all uids for Pods are in use; delete Pods")

    def release(self, key: str) -> None:
        """A Pod is gone. Claims keep their uid: their files do."""
        if not key.startswith("claims/") and self._taken.pop(key, None) is not None:
            self._save()

    def owner(self, uid: int) -> str | None:
        """The key a uid of the machine was given out for; None when it is not one of ours."""
        return next((key for key, number in self._taken.items() if self.first + number == uid), None)

    def _save(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps({"next": self._next, "taken": self._taken}))
        fresh.replace(self._file)


def give(path: Path, uid: int) -> None:
    """Make a folder (and, where its owner changes, all below it) belong to ``uid``; symlinks are not followed."""
    if path.stat(follow_symlinks=False).st_uid == uid:
        return
    for _, folders, files, folder in os.fwalk(path):  # by descriptor: its Pods may be moving things while we walk
        for name in (*folders, *files):
            os.chown(name, uid, uid, dir_fd=folder, follow_symlinks=False)
    os.chown(path, uid, uid, follow_symlinks=False)
