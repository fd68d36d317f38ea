"""Images of this node: our own, packages run by uvx and npx, and the local OCI layout."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from quarterdeck.node.images.engine import Engines, ensure
from quarterdeck.node.images.oci import LocalImages
from quarterdeck.node.images.packages import PackageCache, parse
from quarterdeck.node.images.spec import ImageNotRunnable, ImageSpec
from quarterdeck.resources.images import OWN_REPOSITORY, own_image

_PACKAGE_IMAGES = ("", "ghcr.io/astral-sh/uv", "node", "docker.io/library/node", "ghcr.io/astral-sh/uv-python")


def repository(image: str) -> str:
    """An image reference without tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


class ImageStore:
    """``root`` holds the OCI layout; extracted images and packages lie beside it. Without ``engines``: no engine."""

    def __init__(self, root: Path, packages: Path | None = None, engines: Engines | None = None) -> None:
        self.local = LocalImages(root, root.parent / "extracted")
        self.packages = PackageCache(packages or root.parent / "packages")
        self.engines = engines or Engines(())

    async def resolve(self, image: str, command: Sequence[str], policy: str = "") -> tuple[ImageSpec, list[str]]:
        """(image, command line); the command is the container's command and args, both already expanded.
        ``policy``: imagePullPolicy, for images of a container engine.

        Raises ImageNotRunnable with the waiting reason and the remedy.
        """
        if repository(image) == OWN_REPOSITORY:
            argv = _own_command(command)
            return self._own(image, ours=argv[1:2] == ["-m"] and argv[2:3] != [] and _ours(argv[2])), argv
        found = self.local.find(image) if image else None
        if found is not None:
            return await asyncio.to_thread(self.local.load, found), list(command)
        wrapped = list(command)
        at = wrapped.index("--") + 1 if "--" in wrapped and not parse(wrapped) else 0
        package = parse(wrapped[at:])
        if package is not None and repository(image) in _PACKAGE_IMAGES:
            folder, argv = await self.packages.resolve(package)
            env = {"PATH": f"{Path(argv[0]).parent}:/usr/local/bin:/usr/bin:/bin"}
            return ImageSpec(env=env, digest=f"{package.tool}:{package.key}", binds=(str(folder),)), wrapped[:at] + argv
        bridged = (
            bool(command) and Path(command[0]).name == "quarterdeck-bridge" and repository(image) in _PACKAGE_IMAGES
        )
        if bridged or (not image and command):
            # A bridge in a uvx or npx image: the package its configuration names is resolved by prepare_command.
            return ImageSpec(digest="machine"), list(command)
        engine = await self.engines.find() if image else None
        if engine is not None:
            return await ensure(engine, image, policy), list(command)
        raise ImageNotRunnable(
            "ImageNotRunnable",
            f"image {image!r} cannot run on this node: no image of that name in its store and no container engine; "
            "build it with qd mcp build -t NAME:TAG, use a uvx or npx command, or install podman or docker",
        )

    async def prepare_command(self, command: str, args: Sequence[str]) -> tuple[list[str], str] | None:
        """For a bridge configuration: the offline command line of a uvx/npx command and the folder to bind."""
        package = parse([command, *args])
        if package is None:
            return None
        folder, argv = await self.packages.resolve(package)
        return argv, str(folder)

    def _own(self, image: str, *, ours: bool) -> ImageSpec:
        """Our image; only with our own programs it is trusted to bind the Pod's address in the shared network."""
        if image != own_image():
            raise ImageNotRunnable(
                "ImageVersionMismatch",
                f"image {image!r} is not this node's version {own_image()!r}: use that tag or upgrade the node",
            )
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        return ImageSpec(own=ours, digest=image, env={"PATH": path}, user="65532")


def _own_command(command: Sequence[str]) -> list[str]:
    argv = list(command) or ["python", "-m", "quarterdeck"]
    return [sys.executable, *argv[1:]] if argv[0] in ("python", "python3") else argv


_OUTWARD = ("quarterdeck.skills",)
"""Programs of ours that fetch from the Internet: they get a network of their own and its egress rules, as others do."""


def _ours(module: str) -> bool:
    if module in _OUTWARD:
        return False
    return module == "quarterdeck" or module.startswith("quarterdeck.")
