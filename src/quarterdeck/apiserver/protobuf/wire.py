"""Protobuf's wire format: a message as numbered fields (https://protobuf.dev/programming-guides/encoding/)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

MAX_FIELDS = 100_000
"""Fields in one body, all levels together: hundreds in usual objects, tens of thousands in the largest definitions.
Bounds how long one request can hold the event loop, to some 0.4 s."""

_NAMES = {VARINT: "varint", FIXED64: "64-bit", LENGTH: "length-delimited", FIXED32: "32-bit"}


class Malformed(ValueError):
    """The body is no valid protobuf of its kind. ``path`` is the field the decoder had reached."""

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(f"{path}: {text}" if path else text)
        self.text = text
        self.path = path

    def under(self, name: str) -> Malformed:
        """The same fault, seen from the message that holds it in field ``name``; "" is an inlined one."""
        return Malformed(self.text, ".".join(part for part in (name, self.path) if part))


class RawField(NamedTuple):
    """One field as sent. Varints are in ``integer`` (unsigned, 64 bits), everything else in ``data``."""

    number: int
    wire: int
    integer: int
    data: memoryview

    def unsigned(self) -> int:
        self._expect(VARINT)
        return self.integer

    def signed(self, bits: int = 64) -> int:
        """Two's complement of the low ``bits``; negative int32 values are sent as 64 bits."""
        value = self.unsigned() & ((1 << bits) - 1)
        return value - (1 << bits) if value >> (bits - 1) else value

    def span(self) -> memoryview:
        """The content of a string, bytes or message field."""
        self._expect(LENGTH)
        return self.data

    def fixed64(self) -> memoryview:
        self._expect(FIXED64)
        return self.data

    def text(self) -> str:
        try:
            return str(self.span(), "utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("the text is not valid UTF-8") from error

    def _expect(self, wire: int) -> None:
        if self.wire != wire:
            raise Malformed(f"field {self.number} is {_NAMES[self.wire]}, not {_NAMES[wire]}")


_NOTHING = memoryview(b"")


class Reader:
    """Reads the fields of the messages of one body, counting them."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def fields(self, data: memoryview) -> Iterator[RawField]:
        """The fields in the order sent. Raises Malformed."""
        at, end = 0, len(data)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise Malformed(f"the body has more than {MAX_FIELDS} fields")
            key, at = varint(data, at)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise Malformed(f"{number} is not a field number")
            if wire == VARINT:
                value, at = varint(data, at)
                yield RawField(number, wire, value, _NOTHING)
                continue
            if wire == LENGTH:
                size, at = varint(data, at)
            elif wire in (FIXED64, FIXED32):
                size = 8 if wire == FIXED64 else 4
            else:
                raise Malformed(f"field {number} has wire type {wire}, which Kubernetes does not use")
            if size > end - at:
                raise Malformed(f"field {number} ends after the body does")
            yield RawField(number, wire, 0, data[at : at + size])
            at += size


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The unsigned 64-bit integer at ``at`` and where it ends. Raises Malformed."""
    value = shift = 0
    while shift < 64:
        if at >= len(data):
            raise Malformed("the body ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise Malformed("a number is longer than ten bytes")
