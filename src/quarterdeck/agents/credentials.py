"""The Pod's own token, presented to the gateway and the control plane on every call."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from time import monotonic

from quarterdeck.wire.http import Header

TOKEN_FILE = Path("/var/run/secrets/tokens/quarterdeck-token")
_AGE = 60.0

trace_parent: ContextVar[str] = ContextVar("trace_parent", default="")
"""W3C traceparent of the request being worked on; model, tool and agent calls continue its trace."""


class WorkloadToken:
    """Reads the projected token again when the copy is older than a minute; the kubelet rotates the file."""

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = monotonic) -> None:
        self._path = path or Path(os.environ.get("QUARTERDECK_TOKEN_FILE") or TOKEN_FILE)
        self._clock = clock
        self._token = ""
        self._read_at = float("-inf")

    def read(self) -> str:
        """The token; empty when there is none (the gateway then says 401)."""
        if self._clock() - self._read_at > _AGE:
            try:
                self._token = self._path.read_text().strip()
            except OSError:
                self._token = ""
            self._read_at = self._clock()
        return self._token

    async def headers(self) -> list[Header]:
        """Who we are and which trace the call belongs to."""
        token, parent = self.read(), trace_parent.get()
        headers: list[Header] = []
        if token:
            headers.append((b"authorization", b"Bearer " + token.encode("latin-1", "ignore")))
        if parent:
            headers.append((b"traceparent", parent.encode("latin-1", "ignore")))
        return headers
