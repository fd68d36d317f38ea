"""W3C Trace Context (https://www.w3.org/TR/trace-context/): parse, create, continue."""

from __future__ import annotations

import re
from os import urandom

_LENGTH = 55
"""Of version 00."""
_TRACEPARENT = re.compile(rb"^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$")


def parse(value: bytes | None) -> tuple[str, str, int] | None:
    """(trace id, parent span id, flags) of a ``traceparent`` value; None when it is absent or invalid."""
    if value is None:
        return None
    found = _TRACEPARENT.match(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest) or trace_id == b"0" * 32 or span_id == b"0" * 16:
        return None
    return trace_id.decode(), span_id.decode(), int(flags, 16)


class Ids:
    """Random ids drawn from a block of kernel randomness: one system call for many ids."""

    __slots__ = ("_at", "_block")

    def __init__(self) -> None:
        self._block = ""
        self._at = 0

    def hex(self, size: int) -> str:
        """``size`` random bytes, in lower-case hex."""
        at = self._at
        end = at + 2 * size
        if end > len(self._block):
            self._block = urandom(4096).hex()
            at, end = 0, 2 * size
        self._at = end
        return self._block[at:end]

    def continue_trace(self, incoming: bytes | None, *, span: bool = True) -> tuple[str, bytes]:
        """The trace id to record and the ``traceparent`` to send on: the caller's trace, or a new sampled-out one.

        ``span``: whether we tell of a span of ours; else the caller's goes on, so that nothing is missing in between.
        """
        known = parse(incoming) if incoming is not None else None
        if known is None:
            ids = self.hex(24)
            return ids[:32], f"00-{ids[:32]}-{ids[32:]}-00".encode()
        if not span and len(incoming or b"") == _LENGTH:
            return known[0], incoming or b""
        return known[0], f"00-{known[0]}-{self.hex(8)}-{known[2]:02x}".encode()
