"""Status lines, and the answers a listener gives by itself."""

from __future__ import annotations

from http import HTTPStatus

_REASONS = {s.value: s.phrase.encode() for s in HTTPStatus}
_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in _REASONS.items()}


def status_line(status: int) -> bytes:
    """With its end of line."""
    return _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def plain_text(status: int, message: str) -> tuple[bytes, bytes]:
    """Media type and body of a refusal."""
    del status
    return b"text/plain; charset=utf-8", message.encode() + b"\n"


def refusal(status: int, media: bytes, body: bytes) -> bytes:
    """A whole response after which the connection ends."""
    head = b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b""))
    head += b"content-type: %b\r\nconnection: close\r\n" % media
    return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)
