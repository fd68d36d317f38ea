"""The local OCI image layout (image-spec v1.1): find an image by ``name:tag``, extract its layers by digest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

from quarterdeck.node.images.spec import ImageNotRunnable, ImageSpec
from quarterdeck.node.process import base_python

_REF = "org.opencontainers.image.ref.name"
_PYTHON_LABEL = "dev.quarterdeck.python"


class Layout:
    """An OCI layout folder and the extracted images beside it."""

    def __init__(self, root: Path, extracted: Path) -> None:
        self.root = root
        self.extracted = extracted

    def find(self, reference: str) -> dict[str, Any] | None:
        """The newest descriptor tagged ``reference`` (``name`` means ``name:latest``)."""
        try:
            index = json.loads((self.root / "index.json").read_text())
        except FileNotFoundError:
            return None
        wanted = with_tag(reference)
        found = [
            m for m in index.get("manifests", ()) if with_tag((m.get("annotations") or {}).get(_REF, "")) == wanted
        ]
        return found[-1] if found else None

    def load(self, descriptor: dict[str, Any]) -> ImageSpec:
        """Extract (once) and describe. Raises ImageNotRunnable naming what is wrong with the image."""
        manifest = json.loads(self._blob(descriptor["digest"]))
        if "manifests" in manifest:
            return self.load(manifest["manifests"][0])
        config = json.loads(self._blob(manifest["config"]["digest"]))
        run = config.get("config") or {}
        env = dict(pair.partition("=")[::2] for pair in run.get("Env") or ())
        root = self._extract(descriptor["digest"], [layer["digest"] for layer in manifest["layers"]])
        wanted = (run.get("Labels") or {}).get(_PYTHON_LABEL, "")
        binds: tuple[str, ...] = ()
        if wanted:
            binds = (str(self._python(wanted)),)
            env["PATH"] = ":".join(filter(None, (env.get("PATH", ""), binds[0], "/usr/local/bin:/usr/bin:/bin")))
        return ImageSpec(
            root=root,
            env=env,
            workdir=run.get("WorkingDir") or "/",
            entrypoint=tuple(run.get("Entrypoint") or ()),
            cmd=tuple(run.get("Cmd") or ()),
            digest=descriptor["digest"],
            binds=binds,
        )

    def _python(self, wanted: str) -> Path:
        have = f"{sys.version_info.major}.{sys.version_info.minor}"
        if wanted != have:
            raise ImageNotRunnable(
                "ImageNotRunnable",
                f"the image was built for Python {wanted} and this node runs {have}: build it again with qd mcp build",
            )
        folder = self.extracted / f"python-{have}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("python", "python3"):
            link = folder / name
            if not link.is_symlink() or os.readlink(link) != base_python():
                link.unlink(missing_ok=True)
                link.symlink_to(base_python())
        return folder

    def _blob(self, digest: str) -> bytes:
        path = self._blob_path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise ImageNotRunnable(
                "ImageNotRunnable", f"blob {digest} is missing from {self.root}: build the image again"
            ) from error
        if hashlib.sha256(data).hexdigest() != path.name:
            raise ImageNotRunnable(
                "ImageNotRunnable", f"blob {digest} in {self.root} is damaged: build the image again"
            )
        return data

    def _blob_path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or not all(c in "0123456789abcdef" for c in value):
            raise ImageNotRunnable("ImageNotRunnable", f"digest {digest!r} is not a sha256 digest")
        return self.root / "blobs" / algorithm / value

    def _extract(self, digest: str, layers: list[str]) -> Path:
        target = self.extracted / digest.replace(":", "-")
        if target.is_dir():
            return target
        fresh = self.extracted / f".new-{uuid.uuid4().hex}"
        fresh.mkdir(parents=True)
        try:
            for layer in layers:
                self._blob(layer)
                apply_layer(self._blob_path(layer), fresh)
            fresh.rename(target)
        except OSError:
            if not target.is_dir():  # else another instance was faster
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return target


def with_tag(reference: str) -> str:
    """``name`` → ``name:latest``; a registry's port is no tag."""
    return reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"


def apply_layer(archive: Path, root: Path) -> None:
    """Unpack one layer over ``root``: whiteouts delete, nothing may land outside. Raises ImageNotRunnable."""
    with tarfile.open(archive) as tar:
        for member in tar:
            pure = PurePosixPath(member.name)
            if pure.is_absolute() or ".." in pure.parts:
                raise ImageNotRunnable(
                    "ImageNotRunnable", f"layer {archive.name[:12]}: path {member.name!r} leads outside"
                )
            if not pure.parts:
                continue
            target = _parent(root, pure) / pure.name
            if pure.name == ".wh..wh..opq":
                for entry in target.parent.iterdir():
                    _remove(entry)
            elif pure.name.startswith(".wh."):
                _remove(target.parent / pure.name[4:])
            else:
                _place(tar, member, target, root)


def _parent(root: Path, pure: PurePosixPath) -> Path:
    """The folder a member goes to; a symlink on the way may not lead outside."""
    parent = root
    for part in pure.parts[:-1]:
        parent = parent / part
        if parent.is_symlink():
            parent = (
                root / PurePosixPath("/", os.readlink(parent)).relative_to("/")
                if os.readlink(parent).startswith("/")
                else parent.resolve()
            )
            if not parent.resolve().is_relative_to(root.resolve()):
                raise ImageNotRunnable(
                    "ImageNotRunnable", f"layer path {str(pure)!r} leads outside through a symbolic link"
                )
        parent.mkdir(exist_ok=True)
    return parent


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _place(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, root: Path) -> None:
    if member.isdir():
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            target.unlink()
        target.mkdir(exist_ok=True)
        target.chmod((member.mode & 0o777) | 0o700)
        return
    _remove(target)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        source = root / PurePosixPath(member.linkname.lstrip("/"))
        if not source.resolve().is_relative_to(root.resolve()):
            raise ImageNotRunnable("ImageNotRunnable", f"hard link {member.name!r} leads outside")
        os.link(source, target, follow_symlinks=False)
    elif member.isfile():
        content = tar.extractfile(member)
        with target.open("wb") as out:
            if content is not None:
                shutil.copyfileobj(content, out)
        target.chmod(member.mode & 0o777)
