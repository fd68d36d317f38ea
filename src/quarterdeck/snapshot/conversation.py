"""Ids of conversations and tasks that say on which track they began, so that every gateway agrees without state.

Pods of a canary know their track's tag (``QUARTERDECK_TRACK_TAG``) and put it into the ids they make; all other Pods
put 0. The id is a UUID of version 8 (RFC 9562 §5.8): random but for 16 bits of tag and 12 bits of the agent that made
it. An agent that calls another with its own conversation's id says nothing about the other's tracks.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from uuid import UUID, uuid4
from zlib import crc32

VARIABLE = "QUARTERDECK_TRACK_TAG"
_LENGTH = 36
"""Characters of a UUID in its usual form."""


def new_id(agent: str, tag: int = 0) -> str:
    """A fresh id of a conversation or task that begins at ``agent`` (``namespace/name``), on the track of that tag."""
    return known_id(agent, tag, uuid4().bytes)


def known_id(agent: str, tag: int, digest: bytes) -> str:
    """The id that 16 given bytes make: the same bytes, the same id."""
    value = int.from_bytes(digest, "big")
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant of RFC 9562
    value &= ~(0xFFFF << 80) & ~(0xFFFF << 64)
    return str(UUID(int=value | (tag & 0xFFFF) << 80 | 0x8 << 76 | _mark(agent) << 64))


def tag_of(text: str, agent: str) -> int | None:
    """The tag in an id that ``agent`` made; None for any other id."""
    if len(text) != _LENGTH or text[14] != "8" or text[15:18] != f"{_mark(agent):03x}":
        return None
    try:
        return int(text[9:13], 16)
    except ValueError:
        return None


def track_tag(revision: str, started: str) -> int:
    """The tag of a canary (1 to 65535): of its revision and when it began, so that the next trial has another."""
    return crc32(f"{revision}/{started}".encode()) % 0xFFFF + 1


def point(text: str) -> float:
    """Where a conversation lies between 0 and 1: the same everywhere, evenly spread."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


@lru_cache(maxsize=1024)
def _mark(agent: str) -> int:
    return crc32(agent.encode()) & 0xFFF
