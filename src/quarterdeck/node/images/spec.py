"""What an image turns into on this node."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.errors import QuarterdeckError


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine that works: ``podman`` or ``docker``, and where its client is."""

    kind: str
    program: str


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """A runnable image. ``root`` holds extracted layers (None: the machine's own system); ``own`` is our image;
    ``engine`` runs it when nothing else can, and knows it as ``reference``; ``user`` is the image configuration's
    ``User`` ("": root), None where the node knows no configuration."""

    root: Path | None = None
    env: dict[str, str] = field(default_factory=dict[str, str])
    workdir: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    digest: str = ""
    own: bool = False
    binds: tuple[str, ...] = ()
    engine: Engine | None = None
    reference: str = ""
    user: str | None = None


class ImageNotRunnable(QuarterdeckError):
    """The image cannot run here; ``waiting`` is the container's waiting reason."""

    reason = "ImageNotRunnable"

    def __init__(self, waiting: str, message: str) -> None:
        super().__init__(message)
        self.waiting = waiting
