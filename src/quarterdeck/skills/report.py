"""What the init container says at its end, as its Pod's status carries it to the controllers."""

from __future__ import annotations

import msgspec


class Loaded(msgspec.Struct, frozen=True):
    """A skill that is there. ``revision``: commit, digest or ETag; ``scripts``: how many it has."""

    name: str
    source: str
    revision: str = ""
    scripts: int = 0


class Report(msgspec.Struct, frozen=True):
    """``sandbox``: why scripts cannot run here; empty when they can."""

    skills: tuple[Loaded, ...] = ()
    sandbox: str = ""
