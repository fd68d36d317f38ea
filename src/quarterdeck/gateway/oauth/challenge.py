"""What a protected server says with a 401 or 403: ``WWW-Authenticate: Bearer …`` (RFC 6750 §3, RFC 9728 §5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from quarterdeck.wire.http import Header

_LONGEST = 8192
_PART = re.compile(r'[\s,]*([A-Za-z0-9._~+-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?')


class Challenge(Struct, frozen=True):
    """Empty members were not said."""

    status: int = 401
    error: str = ""
    scope: str = ""
    resource_metadata: str = ""

    @property
    def steps_up(self) -> bool:
        """Whether the token is good and grants too little."""
        return self.status == 403 and self.error == "insufficient_scope"


def read(status: int, headers: Iterable[Header]) -> Challenge:
    """The Bearer challenge of a response; without one, nothing but its status."""
    for name, value in headers:
        if name.lower() == b"www-authenticate":
            found = _bearer(value[:_LONGEST].decode("latin-1"))
            if found is not None:
                return Challenge(
                    status, found.get("error", ""), found.get("scope", ""), found.get("resource_metadata", "")
                )
    return Challenge(status)


def _bearer(text: str) -> dict[str, str] | None:
    """The parameters of the scheme Bearer; a word without ``=`` begins the next scheme."""
    found: dict[str, str] | None = None
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or match.end() == at:
            break
        at = match.end()
        name, quoted, plain = match.groups()
        if quoted is None and plain is None:
            if found is not None:
                break
            found = {} if name.lower() == "bearer" else None
        elif found is not None:
            found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain)
    return found
