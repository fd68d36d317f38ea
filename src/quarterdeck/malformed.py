"""What msgspec's decoders raise for bytes that are not what they should be: beside its own error, Python's."""

from __future__ import annotations

from msgspec import DecodeError

MALFORMED = (DecodeError, UnicodeDecodeError, RecursionError)
"""No JSON or of another shape, text that is no UTF-8, and nested too deeply."""
