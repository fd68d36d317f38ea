"""How many tokens messages are, as well as one can tell without the model's own tokenizer. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

Message = dict[str, Any]
PER_TOKEN = 3.6
"""Bytes of UTF-8: English has more to a token, JSON and other scripts fewer."""
_MESSAGE = 4
IMAGE = 1200
"""Tokens of an image: providers count 85 to 1600."""


def of_text(text: str) -> int:
    return int(len(text.encode("utf-8", "replace")) / PER_TOKEN) + 1 if text else 0


def of_message(message: Message) -> int:
    """Text, calls and images."""
    content = message.get("content") or ""
    tokens = of_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    calls = message.get("tool_calls")
    if calls:
        tokens += of_text(json.dumps(calls, ensure_ascii=False))
    return _MESSAGE + tokens + IMAGE * len(message.get("media") or ())


def of_all(messages: Iterable[Message]) -> int:
    return sum(of_message(message) for message in messages)
