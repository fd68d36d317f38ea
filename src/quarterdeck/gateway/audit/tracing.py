"""A span for each call that is sampled: by its caller (traceparent), else by chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import time

import msgspec

from quarterdeck.telemetry.trace import parse

from .delivery import Exporter
from .otlp import Value, attributes

_SERVER = 2
_OK, _ERROR = 1, 2


class Tracer:
    """``share`` of the calls that nobody has decided on are sampled."""

    def __init__(self, exporter: Exporter, share: float, chance: Callable[[], float] = random.random) -> None:
        self._exporter = exporter
        self._share = share
        self._chance = chance

    def sampled(self, incoming: bytes | None, outgoing: bytes) -> bytes:
        """The ``traceparent`` to send on, with the flag of what was decided."""
        if parse(incoming) is not None or self._chance() >= self._share:
            return outgoing
        return outgoing[:-2] + b"01"

    def ended(
        self, incoming: bytes | None, outgoing: bytes, name: str, pairs: list[tuple[str, Value]], elapsed: float,
        error: str,
    ) -> None:  # fmt: skip
        """Export the span of a call that took ``elapsed`` seconds, if it is sampled."""
        if not int(outgoing[-2:], 16) & 1 or self._exporter.full:
            return
        end = time()
        parent = parse(incoming)
        span = {
            "traceId": outgoing[3:35].decode(),
            "spanId": outgoing[36:52].decode(),
            **({"parentSpanId": parent[1]} if parent is not None else {}),
            "name": name,
            "kind": _SERVER,
            "startTimeUnixNano": str(int((end - elapsed) * 1e9)),
            "endTimeUnixNano": str(int(end * 1e9)),
            "attributes": attributes(pairs),
            "status": {"code": _ERROR, "message": error} if error else {"code": _OK},
        }
        self._exporter.offer([msgspec.json.encode(span)])
