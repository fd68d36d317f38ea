"""Image references as people type them: ``name[:tag]`` or ``registry/name[:tag][@sha256:…]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quarterdeck.errors import UsageError

_NAME = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9-]+)*(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference. ``registry`` is empty for a local name; ``tag`` is ``latest`` when none was given."""

    registry: str
    name: str
    tag: str
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.registry}/{self.name}" if self.registry else self.name

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


def parse(text: str) -> Reference:
    """Raises UsageError saying what a reference looks like."""
    rest, _, digest = text.partition("@")
    registry = ""
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, rest = first, remainder
    name, colon, tag = rest.rpartition(":")
    if not colon:
        name, tag = rest, "latest"
    good = _NAME.fullmatch(name) and _TAG.fullmatch(tag) and (not digest or _DIGEST.fullmatch(digest))
    if not good or (registry and not _HOST.fullmatch(registry)):
        raise UsageError(
            f"{text!r} is not an image reference; write NAME:TAG in lower case, for example datetime-server:latest"
        )
    return Reference(registry, name, tag, digest)
