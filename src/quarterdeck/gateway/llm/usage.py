"""Reading the token counts out of a model's answer without parsing the answer."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from quarterdeck.malformed import MALFORMED

TAIL = 8 * 1024
"""Bytes kept of the end of an answer: the usage of OpenAI's format comes last."""


class Usage(Struct):
    """OpenAI's ``usage``, chat and embeddings."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


_usage = msgspec.json.Decoder(Usage)


def find_usage(tail: bytes) -> Usage | None:
    """The last ``usage`` object in the last bytes of an answer (JSON or SSE); None when there is none."""
    at = len(tail)
    while (at := tail.rfind(b'"usage"', 0, at)) >= 0:
        start = tail.find(b"{", at)
        if start < 0 or tail[at + 7 : start].strip(b" \t\r\n") != b":":
            continue
        end = _object_end(tail, start)
        if end < 0:
            continue
        try:
            return _usage.decode(tail[start:end])
        except MALFORMED:
            continue
    return None


def find_model(head: bytes) -> str:
    """The ``model`` that answered, out of the first bytes; empty when it is not there."""
    at = head.find(b'"model"')
    if at < 0:
        return ""
    start = head.find(b'"', at + 7)
    end = head.find(b'"', start + 1)
    return head[start + 1 : end].decode("utf-8", "replace")[:200] if 0 < start < end else ""


def _object_end(text: bytes, start: int) -> int:
    """Index after the brace that closes the one at ``start``; a usage object holds no strings with braces."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] == 0x7B:
            depth += 1
        elif text[at] == 0x7D:
            depth -= 1
            if depth == 0:
                return at + 1
    return -1
