"""List results: ``tools/list``, ``prompts/list``, ``resources/list``. Items stay raw but for the member we look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw, Struct

LIST_KEYS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}


class Named(Struct, gc=False):
    """A tool or prompt reduced to its name."""

    name: str = ""


_named = msgspec.json.Decoder(Named)
_members = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(list[Raw])


def _check_text(body: bytes) -> None:
    """What stays undecoded here goes to a client: it must be text as a whole."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"not UTF-8: {error.reason}") from None


def members(raw: bytes | Raw) -> dict[str, Raw]:
    """The members of a JSON object, undecoded. Raises msgspec.DecodeError."""
    try:
        return _members.decode(raw)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"not UTF-8: {error.reason}") from None


def items(raw: bytes | Raw) -> list[Raw]:
    """The items of a JSON array, undecoded. Raises msgspec.DecodeError."""
    return _items.decode(raw)


def name_of(item: bytes | Raw) -> str:
    """The ``name`` member. Raises msgspec.DecodeError."""
    try:
        return _named.decode(item).name
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"not UTF-8: {error.reason}") from None


def filter_message(body: bytes, key: str, keep: Callable[[Raw], bool], *, private: bool) -> bytes:
    """A list response with only the items that are kept; anything that is no list response comes back unchanged.

    ``private``: mark the answer as one caller's (2026-07-28, SEP-2549), since others would see another list.
    Raises msgspec.DecodeError when the bytes are no JSON object.
    """
    if not body.isascii():
        _check_text(body)
    top = members(body)
    result = top.get("result")
    if result is None:
        return body
    fields = members(result)
    if key not in fields:
        return body
    fields[key] = Raw(msgspec.json.encode([item for item in items(fields[key]) if keep(item)]))
    if private:
        fields["cacheScope"] = Raw(b'"private"')
    top["result"] = Raw(msgspec.json.encode(fields))
    return msgspec.json.encode(top)


def renamed(item: bytes | Raw, name: str) -> Raw:
    """The item with another name, all else untouched."""
    fields: dict[str, Any] = dict(members(item))
    fields["name"] = name
    return Raw(msgspec.json.encode(fields))
