"""The little protobuf encoding these tests need."""

from __future__ import annotations

from quarterdeck.apiserver.protobuf.decoder import MAGIC


def number(value: int) -> bytes:
    """A varint."""
    out = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        if not value:
            return bytes([*out, low])
        out.append(low | 0x80)


def field(at: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return number(at << 3) + number(value & (2**64 - 1))
    return number(at << 3 | 2) + number(len(value)) + value


def text(at: int, value: str) -> bytes:
    return field(at, value.encode())


def envelope(api_version: str, kind: str, raw: bytes, extra: bytes = b"") -> bytes:
    return MAGIC + field(1, text(1, api_version) + text(2, kind)) + field(2, raw) + extra
