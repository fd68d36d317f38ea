"""The path of a request in the one form that is matched, decided on, and sent on.

A path that this gateway and the service behind it read differently would get round the rules for it. So it is
normalised as RFC 3986 §6.2.2 says (unreserved characters unescaped, dot segments removed), empty segments are merged,
and what was matched is what is sent on. An escaped slash goes on as it came, since to some services it is data, and
matches as a slash, since to others it is one. Refused is what can only be meant to deceive.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

_PLAIN = re.compile(rb"(?:/[\w~!$&'()*+,=:@-][\w.~!$&'()*+,=:@-]*)*/?")
_SAFE = re.compile(rb"[!-\[\]-~]*")
"""Visible ASCII without the backslash."""
_ESCAPE = re.compile(rb"%(..?)?", re.DOTALL)
_HEX = re.compile(rb"[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(rb"[A-Za-z0-9\-._~]")
_SHORT = 256
"""Bytes of a target up to which it is remembered."""
_SEPARATORS = re.compile(r"[/\\]")


class BadPath(ValueError):
    """The path is refused; the text says why."""


class Path:
    """``raw`` is sent on, ``text`` is matched; both begin with a slash. ``query`` is without its question mark."""

    __slots__ = ("query", "raw", "target", "text")

    def __init__(self, raw: bytes, text: str, query: bytes = b"") -> None:
        self.raw = raw
        self.text = text
        self.query = query
        self.target = b"%b?%b" % (raw, query) if query else raw
        """Path and query."""

    def after(self, prefix: int) -> bytes:
        """What of ``raw`` follows the first ``prefix`` characters of ``text``."""
        if b"%" not in self.raw:
            return self.raw[prefix:]
        wanted = self.text[:prefix]
        for end in range(prefix, min(len(self.raw), 12 * prefix) + 1):
            if self.raw[end - 1 : end] != b"%" and _decoded(self.raw[:end]) == wanted:
                return self.raw[end:]
        return b""


def parse(target: bytes) -> Path:
    """The path of a request target in origin form, ``/a/b?c``. Raises BadPath."""
    return _remembered(target) if len(target) <= _SHORT else _parse(target)


def _parse(target: bytes) -> Path:
    raw, _, query = target.partition(b"?")
    if _PLAIN.fullmatch(raw) and raw:
        return Path(raw, raw.decode("ascii"), query)
    if not raw.startswith(b"/"):
        raise BadPath("the path must begin with a slash")
    if not _SAFE.fullmatch(raw):
        raise BadPath("the path has characters that must be escaped")
    raw = _remove_dots(_ESCAPE.sub(_unescape, raw))
    text = _decoded(raw)
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise BadPath("the path has control characters")
    for segment in _SEPARATORS.split(text):
        if segment.partition(";")[0] in (".", ".."):
            raise BadPath("the path has hidden dot segments")
    return Path(raw, text, query)


_remembered = lru_cache(maxsize=1024)(_parse)


def _unescape(found: re.Match[bytes]) -> bytes:
    """Unreserved characters as they are, others escaped in upper case (RFC 3986 §6.2.2.1, §6.2.2.2)."""
    digits = found[1] or b""
    if not _HEX.fullmatch(digits):
        raise BadPath("the path has an escape that is none")
    char = bytes([int(digits, 16)])
    return char if _UNRESERVED.fullmatch(char) else b"%" + digits.upper()


def _remove_dots(raw: bytes) -> bytes:
    """Without ``.``, ``..`` and empty segments (RFC 3986 §5.2.4)."""
    kept: list[bytes] = []
    segments = raw.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if not kept:
                raise BadPath("the path leads above the root")
            kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
    directory = segments[-1] in (b"", b".", b"..") and bool(kept)
    return b"/" + b"/".join(kept) + (b"/" if directory else b"")


def _decoded(raw: bytes) -> str:
    """For matching: unescaped, an escaped slash as a slash, no empty segments."""
    text = unquote(raw.decode("ascii"))
    while "//" in text:
        text = text.replace("//", "/")
    return text
