"""Cutting a provider's stream into events: server-sent events, JSON lines, or AWS event stream messages."""

from __future__ import annotations

import zlib
from typing import Any, Protocol

import msgspec

from quarterdeck.errors import UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.wire.sse import SseParser

from .formats.base import Framing

Event = tuple[str, Any]
"""Name, where the framing has one, and JSON document."""
_LIMIT = 16 * 1024 * 1024  # bytes of one event
_PRELUDE = 12
_STRING = 7  # type of header values that are strings, the only ones that are used


class Cutter(Protocol):
    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete now. Raises UpstreamError for what is none."""
        ...

    @property
    def waiting(self) -> int:
        """Bytes of an event that is not complete."""
        ...


def cutter(framing: Framing) -> Cutter:
    return {"sse": SseCutter, "ndjson": LineCutter, "eventstream": MessageCutter}[framing]()


class SseCutter:
    def __init__(self) -> None:
        self._parser = SseParser(_LIMIT)

    def feed(self, data: bytes) -> list[Event]:
        events = self._parser.feed(data)
        return [(e.event.decode("latin-1"), _json(e.data)) for e in events if e.data not in (b"", b"[DONE]")]

    @property
    def waiting(self) -> int:
        return self._parser.waiting


class LineCutter:
    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Event]:
        if b"\n" not in data and len(self._rest) + len(data) <= _LIMIT:
            self._rest += data
            return []
        *lines, rest = (bytes(self._rest) + data).split(b"\n")
        if len(rest) > _LIMIT:
            raise UpstreamError(f"sent a line of more than {_LIMIT} bytes")
        self._rest = bytearray(rest)
        return [("", _json(line)) for line in lines if line.strip()]

    @property
    def waiting(self) -> int:
        return len(self._rest)


class MessageCutter:
    """https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html: total length, headers' length, CRC of both,
    headers, payload, CRC of all; numbers are big-endian, 4 bytes each."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Event]:
        self._rest += data
        events: list[Event] = []
        while len(self._rest) >= _PRELUDE:
            total = int.from_bytes(self._rest[:4])
            if not _PRELUDE + 4 <= total <= _LIMIT:
                raise UpstreamError(f"sent an event stream message of {total} bytes")
            if len(self._rest) < total:
                break
            message = bytes(self._rest[:total])
            del self._rest[:total]
            events.append(_message(message))
        return events

    @property
    def waiting(self) -> int:
        return len(self._rest)


def _message(message: bytes) -> Event:
    headers_end = _PRELUDE + int.from_bytes(message[4:8])
    if headers_end > len(message) - 4 or zlib.crc32(message[:-4]) != int.from_bytes(message[-4:]):
        raise UpstreamError("sent a damaged event stream message")
    headers = _headers(message[_PRELUDE:headers_end])
    name = headers.get(":exception-type") or headers.get(":event-type") or headers.get(":error-code") or ""
    if headers.get(":message-type") in ("exception", "error") and not name.endswith("Exception"):
        name += "Exception"
    payload = message[headers_end:-4]
    return name, _json(payload) if payload else {"message": headers.get(":error-message", "")}


def _headers(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        if data[name_end : name_end + 1] != bytes([_STRING]):
            break
        start = name_end + 3
        end = start + int.from_bytes(data[name_end + 1 : start])
        found[data[at + 1 : name_end].decode("utf-8", "replace")] = data[start:end].decode("utf-8", "replace")
        at = end
    return found


def _json(data: bytes) -> Any:
    try:
        document = msgspec.json.decode(data)
    except MALFORMED as error:
        raise UpstreamError(f"sent an event that is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise UpstreamError("sent an event that is no JSON object")
    return document
