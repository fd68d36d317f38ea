"""Arguments as they may be recorded: without what the rules, or their names, say is secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Any

import msgspec
from msgspec import Raw

from quarterdeck.malformed import MALFORMED

SECRET_KEYS = (
    "*password*", "*passwd*", "*secret*", "*token*", "*api?key*", "*apikey*", "*credential*", "*private?key*",
    "authorization", "cookie", "set-cookie",
)  # fmt: skip
"""Never recorded, whatever the rules say."""
REDACTED = "<redacted>"
_LIMIT = 16 * 1024
"""Bytes of recorded arguments; longer ones are left out, their hash tells them apart."""
_DEPTH = 64


class Redaction:
    """Rules: JSON pointers (RFC 6901; ``*`` stands for any one member or item) and patterns of keys (``*pin*``)."""

    def __init__(self, rules: Iterable[str] = ()) -> None:
        given = list(rules)
        keys = [rule for rule in given if not rule.startswith("/")]
        self._keys = re.compile("|".join(translate(key) for key in (*SECRET_KEYS, *keys)), re.IGNORECASE)
        self._pointers = [
            tuple(part.replace("~1", "/").replace("~0", "~") for part in rule[1:].split("/"))
            for rule in given
            if rule.startswith("/")
        ]

    def recorded(self, arguments: bytes | Raw) -> Raw:
        """What the record holds of a call's arguments (JSON)."""
        try:
            clean = self.clean(msgspec.json.decode(arguments))
        except MALFORMED:
            return Raw(b'"<no JSON>"')
        encoded = msgspec.json.encode(clean)
        return Raw(encoded if len(encoded) <= _LIMIT else b'"<%d bytes>"' % len(encoded))

    def clean(self, value: Any) -> Any:
        """JSON data of any size without what may not be recorded."""
        return self._clean(value, (), self._pointers)

    def _clean(self, value: Any, path: tuple[str, ...], pointers: list[tuple[str, ...]]) -> Any:
        if len(path) > _DEPTH:
            return REDACTED
        if isinstance(value, dict):
            members: dict[str, Any] = value
            return {key: self._member(key, item, path, pointers) for key, item in members.items()}
        if isinstance(value, list):
            items: list[Any] = value
            return [self._below(str(at), item, path, pointers) for at, item in enumerate(items)]
        return value

    def _member(self, key: str, value: Any, path: tuple[str, ...], pointers: list[tuple[str, ...]]) -> Any:
        return REDACTED if self._keys.match(key) else self._below(key, value, path, pointers)

    def _below(self, key: str, value: Any, path: tuple[str, ...], pointers: list[tuple[str, ...]]) -> Any:
        at = len(path)
        left = [pointer for pointer in pointers if pointer[at] in ("*", key)]
        if any(len(pointer) == at + 1 for pointer in left):
            return REDACTED
        return self._clean(value, (*path, key), [pointer for pointer in left if len(pointer) > at + 1])
