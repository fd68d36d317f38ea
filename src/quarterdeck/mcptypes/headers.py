"""Values of the ``Mcp-*`` request headers of 2026-07-28."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode


def encode_value(text: str) -> bytes:
    """A header value; what HTTP cannot carry plainly goes as ``=?base64?…?=``."""
    if text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?"):
        return text.encode()
    return b"=?base64?%b?=" % b64encode(text.encode())


def decode_value(value: bytes) -> str | None:
    """The text a header value stands for; None when the encoding is broken."""
    if value.startswith(b"=?base64?") and value.endswith(b"?="):
        try:
            return b64decode(value[9:-2], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        return None
