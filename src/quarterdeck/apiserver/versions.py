"""Between the served version of a kind and the one it is stored in.

A conversion webhook cannot answer while somebody reads synchronously: :func:`ready` asks it once for all objects of a
request and keeps its answers with the entries; after that reading is synchronous for every kind.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import cast

import msgspec

from quarterdeck.apiserver.codec import encode
from quarterdeck.apiserver.kinds import Kind
from quarterdeck.apiserver.store import Entry
from quarterdeck.errors import InternalError
from quarterdeck.kube.resource import Object


def is_stored_as_served(kind: Kind, entry: Entry) -> bool:
    """Whether the stored bytes can be sent as they are."""
    return _is_stored_as(kind.resource.api_version, entry)


def is_stored_as_wanted(kind: Kind, entry: Entry) -> bool:
    """Whether the object is in the version that is stored now; a write that changes nothing migrates it if not."""
    return _is_stored_as(kind.stored_api_version, entry)


def _is_stored_as(api_version: str, entry: Entry) -> bool:
    """The store writes apiVersion first."""
    return entry.raw.startswith(b'{"apiVersion":"%b",' % api_version.encode())


async def ready(kind: Kind, entries: Iterable[Entry]) -> None:
    """Have the webhook convert what has to be. Call before the synchronous functions. Raises InternalError."""
    if kind.webhook is None:
        return
    wanted = kind.resource.api_version
    pending = [
        entry for entry in dict.fromkeys(entries)
        if not is_stored_as_served(kind, entry) and wanted not in (entry.converted or ())
    ]  # fmt: skip
    if not pending:
        return
    converted = await kind.webhook.convert([entry.load() for entry in pending], wanted)
    for entry, obj in zip(pending, converted, strict=True):
        entry.converted = {**(entry.converted or {}), wanted: encode(_as_read(kind, obj))}


def to_served(kind: Kind, entry: Entry) -> Object:
    """A fresh copy of an object, in the version of ``kind``."""
    if kind.webhook is not None and not is_stored_as_served(kind, entry):
        return cast(Object, msgspec.json.decode(_converted(kind, entry)))
    obj, wanted = entry.load(), kind.resource.api_version
    if obj.get("apiVersion") == wanted:
        return obj
    if kind.convert is None:
        obj["apiVersion"] = wanted
        return obj
    return _as_read(kind, kind.convert(obj, wanted))


async def to_stored(kind: Kind, obj: Object) -> Object:
    """A served object in the version that is stored."""
    wanted = kind.stored_api_version
    if obj.get("apiVersion") == wanted:
        return obj
    if kind.webhook is not None:
        return (await kind.webhook.convert([obj], wanted))[0]
    if kind.convert is not None:
        return kind.convert(obj, wanted)
    return {**obj, "apiVersion": wanted}


async def as_answered(kind: Kind, stored: Object) -> Object:
    """What a writer is shown: the stored object in the version it wrote, with what storing it has added."""
    wanted = kind.resource.api_version
    if stored.get("apiVersion") == wanted:
        return stored
    obj = copy.deepcopy(stored)
    if kind.webhook is not None:
        return _as_read(kind, (await kind.webhook.convert([obj], wanted))[0])
    return _as_read(kind, kind.convert(obj, wanted) if kind.convert is not None else {**obj, "apiVersion": wanted})


def served_bytes(kind: Kind, entry: Entry) -> bytes:
    """The JSON of an object in the version of ``kind``; no parsing when it is stored that way."""
    if is_stored_as_served(kind, entry):
        return entry.raw
    if kind.webhook is not None:
        return _converted(kind, entry)
    return encode(to_served(kind, entry))


def _converted(kind: Kind, entry: Entry) -> bytes:
    found = (entry.converted or {}).get(kind.resource.api_version)
    if found is None:
        raise InternalError(f"{kind.group_resource} {entry.name} was read before its conversion webhook was asked")
    return found


def _as_read(kind: Kind, obj: Object) -> Object:
    if kind.custom:
        kind.schema.prune(obj)
    return obj
