"""Layers: a directory tree as a tar.gz that comes out the same byte for byte each time."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path


def pack(tree: Path, prefix: str, target: Path, keep: Callable[[str], bool] = lambda path: True) -> str:
    """Write the files below ``tree`` as ``prefix/…`` into the layer ``target``; returns the diff id.

    ``keep`` decides by the path relative to ``tree``; a refused directory is not entered. Owners, times and the order
    of entries are fixed; links are kept as links, sockets and devices are left out.
    """
    digest = hashlib.sha256()

    class Tee:
        """Hashes the uncompressed stream, which is what a diff id is."""

        def __init__(self, file: gzip.GzipFile) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            digest.update(data)
            return self.file.write(data)

    with (
        target.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=2) as packed,
        tarfile.open(fileobj=Tee(packed), mode="w|", format=tarfile.PAX_FORMAT) as tar,  # type: ignore[arg-type]
    ):
        for parent in _parents(prefix):
            tar.addfile(_directory(parent))
        for relative in _walk(tree, keep):
            _add(tar, tree / relative, f"{prefix}/{relative}")
    return f"sha256:{digest.hexdigest()}"


def _walk(tree: Path, keep: Callable[[str], bool]) -> list[str]:
    found: list[str] = []
    for root, directories, files in os.walk(tree):
        here = os.path.relpath(root, tree)
        base = "" if here == "." else f"{here}/"
        directories[:] = sorted(d for d in directories if keep(base + d))
        found.extend(base + d for d in directories)
        found.extend(base + f for f in files if keep(base + f))
    return sorted(found)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
        tar.addfile(info)
    elif stat.S_ISDIR(mode):
        tar.addfile(_directory(name))
    elif stat.S_ISREG(mode):
        info = tarfile.TarInfo(name)
        info.size, info.mode = path.stat().st_size, 0o755 if mode & stat.S_IXUSR else 0o644
        with path.open("rb") as file:
            tar.addfile(info, file)


def _directory(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def _parents(prefix: str) -> list[str]:
    parts = prefix.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]
