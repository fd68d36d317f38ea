"""The Pod's own token, presented to the gateway and the control plane on every call."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path

from quarterdeck.wire.http import Header

TOKEN_FILE = Path("/var/run/secrets/tokens/quarterdeck-token")

trace_parent: ContextVar[str] = ContextVar("trace_parent", default="")
"""W3C traceparent of the request being worked on; model, tool and agent calls continue its trace."""
TRACE_PARENT = "traceparent"


acting_for: ContextVar[str] = ContextVar("acting_for", default="")
"""What the gateway said of the user who asked: shown with all calls that are made for them."""
ACTING_FOR = "x-quarterdeck-acting-for"

forwarded: ContextVar[Mapping[str, str | None]] = ContextVar("forwarded", default={})  # noqa: B039  # never changed
"""Headers of the user's request that tools may get (``allowedHeaders``), names in lower case; None: it had one, which
was a secret and is not kept for a run that is taken up again."""
FORWARD = "x-quarterdeck-forward-"
_SECRET = re.compile(r"auth|cookie|token|secret|pass|key|credential|session|signature", re.IGNORECASE)

forwarded_key: ContextVar[str] = ContextVar("forwarded_key", default="")
"""The user's own key for the model (``apiKeyPassthrough``): goes to the model's endpoint and nowhere else, and is not
kept: a run taken up again has none."""
FORWARDED_KEY = "x-quarterdeck-forward-authorization"


def kept(headers: Mapping[str, str | None]) -> dict[str, str | None]:
    """Of forwarded headers what the journal may keep: no values of those whose names say that they are secret."""
    return {name: None if _SECRET.search(name) else value for name, value in headers.items()}


class WorkloadToken:
    """Reads the projected token again when the kubelet has put a new file there.

    Told by the file, not by a clock: a machine that wakes up with an expired token uses the new one at once.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or Path(os.environ.get("QUARTERDECK_TOKEN_FILE") or TOKEN_FILE)
        self._token = ""
        self._seen = (0, 0)

    def read(self) -> str:
        """The token; empty when there is none (the gateway then says 401)."""
        try:
            found = self._path.stat()
            if (found.st_ino, found.st_mtime_ns) != self._seen:
                self._token = self._path.read_text().strip()
                self._seen = (found.st_ino, found.st_mtime_ns)
        except OSError:
            self._token, self._seen = "", (0, 0)
        return self._token

    async def headers(self) -> list[Header]:
        """Who we are and which trace the call belongs to."""
        token, parent = self.read(), trace_parent.get()
        headers: list[Header] = []
        if token:
            headers.append((b"authorization", b"Bearer " + token.encode("latin-1", "ignore")))
        if parent:
            headers.append((b"traceparent", parent.encode("latin-1", "ignore")))
        acting = acting_for.get()
        if acting:
            headers.append((ACTING_FOR.encode(), acting.encode("latin-1", "ignore")))
        return headers
