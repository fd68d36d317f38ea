"""Text in headers."""

from __future__ import annotations


def of_header(value: bytes) -> str:
    """What a header's value says: in UTF-8, as our processes send names to each other, else in Latin-1.

    RFC 9110 §5.5 leaves bytes beyond ASCII without a meaning.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
