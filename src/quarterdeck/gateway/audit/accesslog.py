"""One line a call in agentgateway's form: ``info request gateway=… http.status=200 duration=3ms``.

Not the audit log: it is written every 50 ms, and a sink that is down costs lines, never calls.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from time import time

from quarterdeck.telemetry import names
from quarterdeck.telemetry.audit import Sink

from .otlp import Value

_INTERVAL = 0.05
_BACKLOG = 10_000
_PLAIN = re.compile(r"[\w./:@%+,;~*-]+")


class AccessLog:
    """Collects lines and writes them in batches."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self.lost = 0

    def write(self, attributes: list[tuple[str, Value]], elapsed: float) -> None:
        """``elapsed``: seconds."""
        if len(self._lines) >= _BACKLOG:
            self.lost += 1
            return
        self._lines.append(line(time(), attributes, elapsed))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self.flush)

    def flush(self) -> None:
        self._timer = None
        lines, self._lines = self._lines, []
        try:
            self._sink.write("".join(lines).encode())
        except OSError:
            self.lost += len(lines)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        self._sink.close()


def line(now: float, attributes: list[tuple[str, Value]], elapsed: float) -> str:
    """``now``: seconds since the epoch."""
    stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    pairs = " ".join(f"{name}={_quoted(value)}" for name, value in attributes)
    return f"{stamp} info request {pairs} {names.DURATION}={elapsed * 1000:.0f}ms\n"


def _quoted(value: Value) -> str:
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
