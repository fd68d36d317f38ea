"""The messages of the Kubernetes API: ``tables.json``, read when the first protobuf body arrives."""

from __future__ import annotations

import importlib.resources
from functools import cache
from typing import Literal

import msgspec


class Field(msgspec.Struct, array_like=True, frozen=True):
    """One field of a message."""

    number: int
    name: str
    """JSON name; "" for an embedded message whose fields appear in the enclosing object."""
    type: str
    """A protobuf scalar or the name of a message."""
    label: Literal["", "repeated", "map"]
    """Keys of maps are strings; ``type`` is that of the values."""
    keep_zero: bool
    """Whether a zero that was sent is written as JSON: pointers, fields without ``omitempty``, structs."""


class _File(msgspec.Struct, frozen=True):
    source: list[str]
    kinds: dict[str, dict[str, str]]
    messages: dict[str, list[Field] | str]


class Tables(msgspec.Struct, frozen=True):
    """``kinds``: apiVersion → kind → message. ``lists``: message that stands for a JSON list → type of its items."""

    kinds: dict[str, dict[str, str]]
    messages: dict[str, dict[int, Field]]
    lists: dict[str, str]


@cache
def tables() -> Tables:
    raw = importlib.resources.files("quarterdeck.apiserver.protobuf").joinpath("tables.json").read_bytes()
    file = msgspec.json.decode(raw, type=_File, strict=False)
    return Tables(
        kinds=file.kinds,
        messages={
            name: {field.number: field for field in rows}
            for name, rows in file.messages.items()
            if not isinstance(rows, str)
        },
        lists={name: item for name, item in file.messages.items() if isinstance(item, str)},
    )
