"""Images of the local OCI layout made runnable: layers extracted by digest, once, and never outside their folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import uuid
from pathlib import Path, PurePosixPath

from quarterdeck.errors import ConfigError, UsageError
from quarterdeck.node.images.spec import ImageNotRunnable, ImageSpec
from quarterdeck.node.process import base_python
from quarterdeck.oci.layout import Image, Layout
from quarterdeck.oci.reference import parse

_PYTHON_LABEL = "dev.quarterdeck.python"


class LocalImages:
    """The images of a layout folder, and what was extracted of them beside it."""

    def __init__(self, root: Path, extracted: Path) -> None:
        self._layout = Layout(root)
        self.extracted = extracted

    def find(self, reference: str) -> Image | None:
        """The image tagged ``reference`` (``name`` means ``name:latest``). Raises ImageNotRunnable when damaged."""
        try:
            return self._layout.find(parse(reference))
        except UsageError:  # no name the store could hold
            return None
        except ConfigError as error:
            raise ImageNotRunnable("ImageNotRunnable", str(error)) from error

    def load(self, image: Image) -> ImageSpec:
        """Extract (once) and describe. Raises ImageNotRunnable naming what is wrong with the image."""
        run = image.config.get("config") or {}
        env = dict(pair.partition("=")[::2] for pair in run.get("Env") or ())
        root = self._extract(image.digest, [layer["digest"] for layer in image.layers])
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
            digest=image.digest,
            binds=binds,
            user=str(run.get("User") or ""),
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

    def _layer(self, digest: str) -> Path:
        """The file of a layer, its content checked against the digest."""
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or not all(c in "0123456789abcdef" for c in value):
            raise ImageNotRunnable("ImageNotRunnable", f"digest {digest!r} is not a sha256 digest")
        path = self._layout.blob_path(digest)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            found = ""
        if found != value:
            what = "damaged" if found else "missing"
            raise ImageNotRunnable(
                "ImageNotRunnable", f"layer {digest} is {what} in {self._layout.root}: build the image again"
            )
        return path

    def _extract(self, digest: str, layers: list[str]) -> Path:
        target = self.extracted / digest.replace(":", "-")
        if target.is_dir():
            return target
        fresh = self.extracted / f".new-{uuid.uuid4().hex}"
        fresh.mkdir(parents=True)
        try:
            for layer in layers:
                apply_layer(self._layer(layer), fresh)
            fresh.rename(target)
        except OSError:
            if not target.is_dir():  # else another instance was faster
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return target


def apply_layer(archive: Path, root: Path) -> None:
    """Unpack one layer over ``root``: whiteouts delete, nothing may land outside. Raises ImageNotRunnable."""
    # Folders already walked, by their path in the layer: nearly all members lie in one of them. Whatever could turn a
    # folder into something else (links, whiteouts) makes us walk anew.
    walked: dict[tuple[str, ...], Path] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            pure = PurePosixPath(member.name)
            if pure.is_absolute() or ".." in pure.parts:
                raise ImageNotRunnable(
                    "ImageNotRunnable", f"layer {archive.name[:12]}: path {member.name!r} leads outside"
                )
            if not pure.parts:
                continue
            above = pure.parts[:-1]
            parent = walked.get(above)
            if parent is None:
                parent = walked[above] = _parent(root, pure)
            target = parent / pure.name
            if not (member.isreg() or member.isdir()) or pure.name.startswith(".wh.") or target.is_symlink():
                walked.clear()
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
    if os.path.lexists(target):
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
        with open(target, "xb") as out:
            if content is not None:
                shutil.copyfileobj(content, out)
            os.fchmod(out.fileno(), member.mode & 0o777)
