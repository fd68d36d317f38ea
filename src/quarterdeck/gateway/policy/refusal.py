"""An answer that the gateway gives instead of the backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from quarterdeck.wire.http import Header

_JSON: Header = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered, and how it is recorded. ``body`` given: it is sent as it is; else ``message`` as JSON."""

    status: int
    message: str
    headers: tuple[Header, ...] = ()
    rule: str = ""
    """What decided, as audit records name it."""
    body: bytes | None = None
    outcome: Literal["denied", "error", "ok"] = "denied"

    def content(self) -> tuple[list[Header], bytes]:
        """Headers and body of the response."""
        if self.body is not None:
            return list(self.headers), self.body
        return [_JSON, *self.headers], msgspec.json.encode({"error": {"message": self.message, "code": self.status}})
