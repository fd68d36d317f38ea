"""What bounds a listener, and how its two sides hold each other back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one listener. Sizes in bytes, times in seconds; ``0`` switches a time off."""

    header_bytes: int = 64 * 1024
    body_bytes: int = 4 * 1024 * 1024
    bodies_bytes: int = 0
    """Of all requests that are read or worked on at one time; more are answered 503. 0: no such bound."""
    unsent_bytes: int = 0
    """Of all responses that clients are too slow to take; who is too slow then is cut off. 0: no such bound."""
    header_timeout: float = 15.0
    body_timeout: float = 60.0
    idle_timeout: float = 75.0
    write_timeout: float = 0.0
    """Without a byte taken by a client that has something to take. Not where people follow streams and may pause."""
    connections: int = 10_000


class Disconnected(ConnectionError):
    """The client went away before the response was complete."""


class Flow(Protocol):
    """A source of bytes that can be held back, such as an upstream connection."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
