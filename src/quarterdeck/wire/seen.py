"""Heads that were seen before.

A peer on a kept connection sends the same head again and again, but for the length of its body and the trace or id of
the request. What the parser made of a head holds for the next that has the very same bytes; anything else is parsed.
This saves both sides of a proxy most of what parsing costs.
"""

from __future__ import annotations

from typing import Any

Header = tuple[bytes, bytes]

_LONGEST = 8192
"""Bytes of a head that is remembered."""
_ENTRIES = 2048
_BYTES = 4 * 1024 * 1024
"""Bytes of all heads that are remembered: anybody can send some, and nobody has shown a credential yet."""
_LENGTHS = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
_LENGTH_LINE = 18
_DIGITS = 10
_LINES = tuple(
    (b"\r\n%b: " % spelled, spelled.lower())
    for spelled in (b"traceparent", b"Traceparent", b"x-request-id", b"X-Request-Id", b"X-Request-ID")
)
_VALUE = 64
VARYING = frozenset(name for _, name in _LINES)
"""Headers that tell requests apart and nothing else: what is remembered of a head is so whatever they say."""


NAMES = {
    spelled: name
    for name in (
        b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control", b"connection",
        b"content-length", b"content-type", b"cookie", b"date", b"host", b"last-event-id", b"mcp-method", b"mcp-name",
        b"mcp-protocol-version", b"mcp-session-id", b"origin", b"server", b"traceparent", b"transfer-encoding",
        b"user-agent", b"vary", b"x-accel-buffering", b"x-request-id",
    )
    for spelled in (name, name.title())
}  # fmt: skip
"""Names of headers in their usual spellings, and the one of each that all messages share."""


class Head:
    """The parsed head of requests (``method``, ``target``) or responses (``status``), without what varies."""

    __slots__ = ("headers", "memo", "method", "plain", "status", "target")

    def __init__(self, headers: list[Header], *, method: str = "", target: bytes = b"", status: int = 0) -> None:
        self.method = method
        self.target = target
        self.status = status
        self.headers = [header for header in headers if header[0] not in VARYING and header[0] != b"content-length"]
        varying = [name for name, _ in headers if name in VARYING]
        self.plain = len(varying) == len(set(varying))
        """Whether what varies is there once at most."""
        self.memo: Any = None
        """Free for the handler chain: what it found out about requests with this head."""


class Sized:
    """A head with a length. ``headers`` and ``fields`` (by name, the last value) are shared: not to be changed."""

    __slots__ = ("fields", "head", "headers", "length")

    def __init__(self, head: Head, digits: bytes) -> None:
        self.head = head
        self.length = int(digits) if digits else 0
        self.headers = [*head.headers, (b"content-length", digits)] if digits else head.headers
        self.fields: dict[bytes, bytes] = dict(self.headers)


class Seen:
    """The heads that one listener or pool remembers; it begins anew when there are too many."""

    __slots__ = ("_bytes", "_exact", "_heads")

    def __init__(self) -> None:
        self._bytes = 0
        self._heads: dict[bytes, Head] = {}
        self._exact: dict[bytes, Sized] = {}
        """By all of their bytes, where nothing in them varies."""

    def find(self, data: bytes, at: int) -> tuple[Sized, list[Header] | None] | None:
        """The head that ``data`` begins with, if it is known, and those of its headers that vary (None: no such).

        ``at``: where the blank line after it begins.
        """
        sized = self._exact.get(data[:at])
        return (sized, None) if sized is not None else self._find(data, at)

    def keep(self, data: bytes, body: int, head: Head) -> None:
        """Remember the head of ``data``, a whole message just parsed whose body has that many bytes."""
        at = data.find(b"\r\n\r\n")
        cut = _cut(data, at)
        if cut is None or not head.plain:
            return
        key, digits, _ = cut
        if len(data) - at - 4 != body or int(digits or b"0") != body:
            return
        self._put(self._heads, key, head)

    def _find(self, data: bytes, at: int) -> tuple[Sized, list[Header] | None] | None:
        cut = _cut(data, at)
        if cut is None:
            return None
        key, digits, varying = cut
        head = self._heads.get(key)
        if head is None:
            return None
        sized = Sized(head, digits)
        if varying is None:
            self._put(self._exact, data[:at], sized)
        return sized, varying

    def _put(self, known: dict[bytes, Any], key: bytes, value: object) -> None:
        self._bytes += len(key)
        if len(known) >= _ENTRIES or self._bytes > _BYTES:
            self._heads.clear()
            self._exact.clear()
            self._bytes = len(key)
        known[key] = value


def _cut(data: bytes, at: int) -> tuple[bytes, bytes, list[Header] | None] | None:
    """A head without what varies, the digits of its length, and the headers that were cut out.

    None when it is not complete, or what varies is not as it should be.
    """
    if not 0 < at <= _LONGEST:
        return None
    digits = b""
    begin = data.find(_LENGTHS[0], 0, at)
    if begin < 0:
        begin = data.find(_LENGTHS[1], 0, at)
    if begin < 0:
        key = data[:at]
    else:
        begin += _LENGTH_LINE
        end = data.find(b"\r\n", begin, at + 2)
        digits = data[begin:end]
        if not digits.isdigit() or len(digits) > _DIGITS:
            return None
        key = data[:begin] + data[end:at]
    varying: list[Header] | None = None
    for line, name in _LINES:
        begin = key.find(line)
        if begin < 0:
            continue
        end = key.find(b"\r\n", begin + 2)
        value = key[begin + len(line) : end if end >= 0 else None]
        if len(value) > _VALUE or not value.replace(b"-", b"").isalnum():
            return None
        if varying is None:
            varying = []
        elif any(name == other for other, _ in varying):
            return None
        varying.append((name, value))
        key = key[:begin] + key[end:] if end >= 0 else key[:begin]
    return key, digits, varying
