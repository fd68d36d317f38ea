"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), incrementally."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.errors import UpstreamError


@dataclass(slots=True)
class Event:
    """One event. ``raw`` are its bytes including the blank line, ``data`` its data lines joined by newline."""

    raw: bytes
    data: bytes
    event: bytes = b""
    id: bytes = b""


class SseParser:
    """Cuts a byte stream into events. ``limit`` bounds one event in bytes."""

    __slots__ = ("_buffer", "_limit", "_scanned")

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._limit = limit

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete now. Raises UpstreamError when an event is larger than the limit."""
        self._buffer += data
        events: list[Event] = []
        while True:
            end = self._boundary()
            if end < 0:
                break
            events.append(_event(bytes(self._buffer[:end])))
            del self._buffer[:end]
            self._scanned = 0
        if len(self._buffer) > self._limit:
            raise UpstreamError(f"a server-sent event is larger than {self._limit} bytes")
        return events

    @property
    def pending(self) -> bytes:
        """Bytes of an event that is not complete."""
        return bytes(self._buffer)

    @property
    def waiting(self) -> int:
        """How many these are."""
        return len(self._buffer)

    def _boundary(self) -> int:
        """Index after the blank line that ends the first event, or -1. Looks at each byte once."""
        buffer = self._buffer
        at = self._scanned
        while True:
            newline = buffer.find(b"\n", at)
            if newline < 0:
                # bare CR line ends are legal but no MCP, A2A or OpenAI server sends them; LF and CRLF are handled
                self._scanned = max(len(buffer) - 2, 0) if not buffer.endswith(b"\n") else len(buffer) - 1
                return -1
            following = bytes(buffer[newline + 1 : newline + 3])
            if following[:1] == b"\n":
                return newline + 2
            if following == b"\r\n":
                return newline + 3
            if len(following) < 2 and following in (b"", b"\r"):
                self._scanned = newline
                return -1
            at = newline + 1


def _event(raw: bytes) -> Event:
    data: list[bytes] = []
    event = Event(raw, b"")
    for line in raw.split(b"\n"):
        name, _, value = line.removesuffix(b"\r").partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event.event = value
        elif name == b"id":
            event.id = value
    event.data = data[0] if len(data) == 1 else b"\n".join(data)
    return event


def encode(data: bytes, *, event: bytes = b"", ident: bytes = b"") -> bytes:
    """One event's bytes. ``data`` may hold newlines."""
    parts: list[bytes] = []
    if event:
        parts.append(b"event: %b\n" % event)
    if ident:
        parts.append(b"id: %b\n" % ident)
    parts.extend(b"data: %b\n" % line for line in data.split(b"\n"))
    parts.append(b"\n")
    return b"".join(parts)


def with_data(event: Event, data: bytes) -> bytes:
    """The event's bytes with other data, all other fields kept."""
    kept = [line for line in event.raw.rstrip(b"\r\n").split(b"\n") if not line.startswith(b"data")]
    lines = [line.removesuffix(b"\r") for line in kept] + [b"data: " + line for line in data.split(b"\n")]
    return b"\n".join(lines) + b"\n\n"
