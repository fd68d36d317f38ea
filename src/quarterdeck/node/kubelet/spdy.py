"""SPDY/3.1 framing as kubectl and kube-apiserver use it for exec, attach and port-forward: streams, data, ping; its
flow-control windows are unused there.

Header blocks are zlib streams with the protocol's dictionary, one compressor per direction and connection.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

_WORDS = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
]
_TAIL = (
    b"\0\0\0\x06200 OK\0\0\0\x07version\0\0\0\x08HTTP/1.1\0\0\0\x03url\0\0\0\x06public\0\0\0\nset-cookie"
    b"\0\0\0\nkeep-alive"
    b"\0\0\0\x06origin"
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    b"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    b"403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    b"Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    b"chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    b"text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(w)) + w.encode() for w in _WORDS) + _TAIL

DATA = 0
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """``headers`` are those of SYN_STREAM, SYN_REPLY and HEADERS."""

    kind: int
    stream: int
    flags: int
    data: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Framer:
    """Both directions of one connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> list[Frame]:
        """Whole frames in ``data`` and what was left before. Raises ValueError for what is not SPDY/3."""
        self._buffer += data
        frames: list[Frame] = []
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from(">II", self._buffer)
            length = second & 0xFFFFFF
            if len(self._buffer) < 8 + length:
                break
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            frames.append(self._parse(first, second >> 24, body))
        return frames

    def _parse(self, first: int, flags: int, body: bytes) -> Frame:
        if not first & 0x80000000:
            return Frame(0, first, flags, body)
        if (first >> 16) & 0x7FFF != 3:
            raise ValueError(f"not a SPDY/3 frame: version {(first >> 16) & 0x7FFF}")
        kind = first & 0xFFFF
        stream = struct.unpack_from(">I", body)[0] & 0x7FFFFFFF if len(body) >= 4 else 0
        if kind in (SYN_STREAM, SYN_REPLY, HEADERS):
            return Frame(kind, stream, flags, headers=self._headers(body[10 if kind == SYN_STREAM else 4 :]))
        return Frame(kind, stream, flags, body)

    def _headers(self, block: bytes) -> tuple[tuple[str, str], ...]:
        try:
            data = self._inflate.decompress(block, 1 << 20)
            (count,) = struct.unpack_from(">I", data)
            position, texts = 4, list[str]()
            for _ in range(count * 2):
                (size,) = struct.unpack_from(">I", data, position)
                texts.append(data[position + 4 : position + 4 + size].decode())
                position += 4 + size
        except (zlib.error, struct.error) as error:
            raise ValueError(f"SPDY header block: {error}") from error
        return tuple(zip(texts[::2], texts[1::2], strict=True))

    def reply(self, stream: int, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
        raw = struct.pack(">I", len(headers)) + b"".join(
            struct.pack(">I", len(text)) + text.encode() for pair in headers for text in pair
        )
        block = self._deflate.compress(raw) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(SYN_REPLY, 0, struct.pack(">I", stream) + block)


def data_frame(stream: int, data: bytes, *, fin: bool = False) -> bytes:
    return struct.pack(">II", stream, (FIN if fin else 0) << 24 | len(data)) + data


def reset_frame(stream: int, status: int) -> bytes:
    return _control(RST_STREAM, 0, struct.pack(">II", stream, status))


def ping_frame(body: bytes) -> bytes:
    return _control(PING, 0, body)


def _control(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack(">II", 0x80030000 | kind, flags << 24 | len(body)) + body
