"""Heads that were seen before.

A peer on a kept connection sends the same head again and again, but for the length of its body and the trace it belongs
to. What the parser made of a head holds for the next that has the very same bytes; anything else is parsed. This
saves both sides of a proxy most of what parsing costs.
"""

from __future__ import annotations

from typing import Any

Header = tuple[bytes, bytes]

_LONGEST = 8192
"""Bytes of a head that is remembered."""
_ENTRIES = 512
_LENGTHS = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
_LENGTH_LINE = 18
_DIGITS = 10
_TRACE = b"\r\ntraceparent: "
_TRACE_LINE, _TRACE_BYTES = 15, 55
_VARYING = frozenset({b"content-length", b"traceparent"})
_ENDS = (b"\r\n", b"")


class Head:
    """The parsed head of requests (``method``, ``target``) or responses (``status``), without what varies."""

    __slots__ = ("headers", "memo", "method", "plain", "status", "target")

    def __init__(self, headers: list[Header], *, method: str = "", target: bytes = b"", status: int = 0) -> None:
        self.method = method
        self.target = target
        self.status = status
        self.headers = [header for header in headers if header[0] not in _VARYING]
        self.plain = len(headers) - len(self.headers) == len({name for name, _ in headers} & _VARYING)
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
    """The heads that one listener or pool remembers; the oldest goes when there are too many."""

    __slots__ = ("_exact", "_heads")

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self._exact: dict[bytes, Sized] = {}
        """By all of their bytes, where they have no trace."""

    def find(self, data: bytes, at: int) -> tuple[Sized, bytes] | None:
        """The head that ``data`` begins with, if it is known, and its ``traceparent`` (empty: it has none).

        ``at``: where the blank line after it begins.
        """
        sized = self._exact.get(data[:at])
        return (sized, b"") if sized is not None else self._find(data, at)

    def keep(self, data: bytes, body: int, head: Head) -> None:
        """Remember the head of ``data``, a whole message just parsed whose body has that many bytes."""
        at = data.find(b"\r\n\r\n")
        cut = _cut(data, at)
        if cut is None or not head.plain:
            return
        key, digits, _ = cut
        if len(data) - at - 4 != body or int(digits or b"0") != body:
            return
        _put(self._heads, key, head)

    def _find(self, data: bytes, at: int) -> tuple[Sized, bytes] | None:
        cut = _cut(data, at)
        if cut is None:
            return None
        key, digits, trace = cut
        head = self._heads.get(key)
        if head is None:
            return None
        sized = Sized(head, digits)
        if not trace:
            _put(self._exact, data[:at], sized)
        return sized, trace


def _put(known: dict[bytes, Any], key: bytes, value: object) -> None:
    if len(known) >= _ENTRIES:
        del known[next(iter(known))]
    known[key] = value


def _cut(data: bytes, at: int) -> tuple[bytes, bytes, bytes] | None:
    """A head without what varies, the digits of its length, and its trace.

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
    trace = b""
    begin = key.find(_TRACE)
    if begin >= 0:
        end = begin + _TRACE_LINE + _TRACE_BYTES
        trace = key[begin + _TRACE_LINE : end]
        if len(trace) != _TRACE_BYTES or not trace.replace(b"-", b"").isalnum() or key[end : end + 2] not in _ENDS:
            return None
        key = key[:begin] + key[end:]
    return key, digits, trace
