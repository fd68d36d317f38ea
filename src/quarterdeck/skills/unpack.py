"""Archives and folders of others, copied into a folder of ours: nothing leads out of it, everything is bounded.

Links become copies of the files they lead to, as long as these are in the same archive; so no link is left to follow.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import posixpath
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

from quarterdeck.errors import ConfigError

from .format import MOST_BYTES, MOST_FILES, MOST_SKILLS, inside

STREAM_BYTES = MOST_BYTES * 4
"""Of one source when unpacked: it may hold several skills, and what is not part of any."""
_FILES = MOST_FILES * 4
_CHUNK = 1 << 16
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


class Target:
    """A folder that takes files until there are too many of them. ``where`` says in errors what they are of."""

    def __init__(self, root: Path, where: str) -> None:
        self.root = root
        self.where = where
        self._count = self._total = 0
        root.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path | None:
        """Where a member of that name goes; None for the folder itself. Raises ConfigError."""
        plain = inside(name.lstrip("/"), self.where)
        return None if plain == "." else self.root / plain

    def folder(self, name: str) -> None:
        path = self.path(name)
        if path is not None:
            self._counted()
            self._make(path)

    def file(self, name: str, source: IO[bytes], *, executable: bool = False) -> None:
        """Write one file, in place of what has that name. Raises ConfigError."""
        path = self.path(name)
        if path is None:
            raise ConfigError(f"{self.where}: {name!r} is no name of a file; rename it")
        self._counted()
        self._make(path.parent)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        with path.open("xb") as out:
            while chunk := source.read(_CHUNK):
                self._total += len(chunk)
                if self._total > STREAM_BYTES:
                    raise ConfigError(
                        f"{self.where}: more than {STREAM_BYTES} bytes; name a folder that holds skills only"
                    )
                out.write(chunk)
        path.chmod(0o755 if executable else 0o644)

    def _counted(self) -> None:
        self._count += 1
        if self._count > _FILES:
            raise ConfigError(f"{self.where}: more than {_FILES} files; name a folder that holds skills only")

    def remove(self, name: str) -> None:
        path = self.path(name)
        if path is not None and path.is_dir():
            shutil.rmtree(path)
        elif path is not None:
            path.unlink(missing_ok=True)

    def links(self, links: dict[str, str]) -> None:
        """Put copies in place of links. ``links``: link → path below the root it leads to. Raises ConfigError."""
        for name, target in links.items():
            found = target
            for _ in range(8):
                found = links.get(found, found)
            source = self.root / inside(found, self.where)
            if not source.is_file():
                raise ConfigError(
                    f"{self.where}/{name}: a link to {target}, which is no file of the skill; put a copy there"
                )
            with source.open("rb") as file:
                self.file(name, file, executable=os.access(source, os.X_OK))

    def _make(self, folder: Path) -> None:
        if folder.is_file():
            folder.unlink()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ConfigError(f"{self.where}: {folder.name!r} is a file and a folder at once; rename one") from None


def tar(stream: IO[bytes], target: Target, *, whiteouts: bool = False) -> None:
    """Unpack a seekable tar file, plain or gzip. ``whiteouts``: as an image's layer (image-spec, layer.md).

    Raises ConfigError.
    """
    links: dict[str, str] = {}
    packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    plain = gzip.GzipFile(fileobj=stream) if packed else stream
    try:
        with tarfile.open(fileobj=_Bounded(plain, target.where), mode="r|") as archive:
            for member in archive:
                _member(archive, member, target, links, whiteouts=whiteouts)
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ConfigError(f"{target.where}: not a tar file, or a damaged one: {error}") from error
    target.links(links)


def _member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, target: Target, links: dict[str, str], *, whiteouts: bool
) -> None:
    name = inside(member.name.lstrip("/"), target.where)
    base = PurePosixPath(name).name
    if whiteouts and base.startswith(_WHITEOUT):
        parent = PurePosixPath(name).parent
        if base == _OPAQUE:
            target.remove(str(parent)) if str(parent) != "." else shutil.rmtree(target.root)
            target.root.mkdir(exist_ok=True)
        else:
            target.remove(str(parent / base.removeprefix(_WHITEOUT)))
    elif member.isdir():
        target.folder(name)
    elif member.isfile():
        source = archive.extractfile(member)
        target.file(name, source or io.BytesIO(), executable=bool(member.mode & 0o100))
        links.pop(name, None)
    elif member.issym() or member.islnk():
        links[name] = linked(name, member.linkname, target.where, hard=member.islnk())
    else:
        raise ConfigError(f"{target.where}/{name}: a device or pipe; a skill holds files only")


def linked(name: str, to: str, where: str, *, hard: bool = False) -> str:
    """The path below the root that a link leads to. Raises ConfigError when it leads out."""
    if to.startswith("/") and not hard:
        raise ConfigError(f"{where}/{name}: a link to {to}, out of the skill's folder; put a copy of the file there")
    base = "" if hard else posixpath.dirname(name)
    found = posixpath.normpath(posixpath.join(base, to.lstrip("/")))
    if found == ".." or found.startswith("../"):
        raise ConfigError(f"{where}/{name}: a link to {to}, out of the skill's folder; put a copy of the file there")
    return found


def zip_file(data: IO[bytes], target: Target) -> None:
    """Unpack a zip file. Raises ConfigError."""
    try:
        with zipfile.ZipFile(data) as archive:
            for member in archive.infolist():
                if member.is_dir():
                    target.folder(member.filename)
                    continue
                mode = member.external_attr >> 16
                if mode & 0o170000 not in (0, 0o100000):
                    raise ConfigError(f"{target.where}/{member.filename}: a link or device; put a copy there")
                with archive.open(member) as source:
                    target.file(member.filename, source, executable=bool(mode & 0o100))
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ConfigError(f"{target.where}: not a zip file that can be read: {error}") from error


def tree(source: Path, target: Target) -> None:
    """Copy a folder. Raises ConfigError."""
    links: dict[str, str] = {}
    for root, folders, files in os.walk(source):
        here = os.path.relpath(root, source)
        base = "" if here == "." else f"{here}/"
        linked_folders = [name for name in folders if os.path.islink(os.path.join(root, name))]
        folders[:] = sorted(name for name in folders if name not in linked_folders)
        for name in sorted([*files, *linked_folders]):
            path = Path(root) / name
            if path.is_symlink():
                links[base + name] = linked(base + name, os.readlink(path), target.where)
            elif path.is_file():
                with path.open("rb") as file:
                    target.file(base + name, file, executable=os.access(path, os.X_OK))
            else:
                raise ConfigError(f"{target.where}/{base}{name}: a device or pipe; a skill holds files only")
    target.links(links)


def skill_folders(root: Path, where: str) -> list[Path]:
    """The folder itself where it is a skill, else those of its folders that are. Raises ConfigError."""
    if (root / "SKILL.md").exists():
        return [root]
    found = sorted(path for path in root.iterdir() if path.is_dir() and (path / "SKILL.md").is_file())
    if not found:
        raise ConfigError(f"{where}: no SKILL.md there nor in a folder of it; name the folder that has it")
    if len(found) > MOST_SKILLS:
        raise ConfigError(f"{where}: {len(found)} skills, {MOST_SKILLS} are the most; name one of the folders")
    return found


class _Bounded(io.RawIOBase):
    """A stream that ends in an error when more is read from it than any source may have."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, where: str) -> None:
        self._stream = stream
        self._where = where
        self._left = STREAM_BYTES + (32 << 20)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> Any:
        data = self._stream.read(min(size, _CHUNK * 16) if size >= 0 else _CHUNK * 16)
        self._left -= len(data)
        if self._left < 0:
            raise ConfigError(f"{self._where}: too large; name a folder that holds skills only")
        return data
