"""Bytes that are not what they should be.

What msgspec's decoders raise for them: beside its own error, Python's. And JSON that holds halves of characters.
"""

from __future__ import annotations

import json
import re
from typing import Any

from msgspec import DecodeError

MALFORMED = (DecodeError, UnicodeDecodeError, RecursionError)
"""No JSON or of another shape, text that is no UTF-8, and nested too deeply."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
"""A pair, a half (the group), or any other escape: what follows an escaped backslash is none."""
_HALF_TEXT = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def loads(data: bytes | str) -> Any:
    """JSON of somebody else, as ``json.loads``. Halves of surrogate pairs, which JSON allows and no encoder takes (so
    that what holds one can be neither kept nor sent on), become U+FFFD. Raises ValueError, RecursionError."""
    value = json.loads(data)
    suspect = _HALF.search(data) if isinstance(data, bytes) else _HALF_TEXT.search(data)
    return _whole(value) if suspect else value


def mended(data: bytes) -> bytes:
    """JSON with U+FFFD in place of each escaped half of a surrogate pair; the same object when there is none."""
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], data) if _HALF.search(data) else data


def whole(text: str) -> str:
    """Text without halves of surrogate pairs; two that belong together are one character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {whole(key): _whole(item) for key, item in value.items()}
    return value
