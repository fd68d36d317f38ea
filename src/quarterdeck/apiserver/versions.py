"""Between the served version of a kind and the one it is stored in."""

from __future__ import annotations

from quarterdeck.apiserver.codec import encode
from quarterdeck.apiserver.kinds import Kind
from quarterdeck.apiserver.store import Entry
from quarterdeck.kube.resource import Object


def is_stored_as_served(kind: Kind, entry: Entry) -> bool:
    """Whether the stored bytes can be sent as they are; the store writes apiVersion first."""
    return entry.raw.startswith(b'{"apiVersion":"%b",' % kind.resource.api_version.encode())


def to_served(kind: Kind, obj: Object) -> Object:
    """An object as loaded from the store, in the version of ``kind``."""
    wanted = kind.resource.api_version
    if obj.get("apiVersion") == wanted:
        return obj
    if kind.convert is None:
        obj["apiVersion"] = wanted
        return obj
    made = kind.convert(obj, wanted)
    if kind.custom:
        kind.schema.prune(made)
        kind.schema.default(made)
    return made


def to_stored(kind: Kind, obj: Object) -> Object:
    """A served object in the version that is stored."""
    wanted = kind.stored_api_version
    if obj.get("apiVersion") == wanted:
        return obj
    if kind.convert is not None:
        return kind.convert(obj, wanted)
    return {**obj, "apiVersion": wanted}


def served_bytes(kind: Kind, entry: Entry) -> bytes:
    """The JSON of an object in the version of ``kind``; no parsing when it is stored that way."""
    if is_stored_as_served(kind, entry):
        return entry.raw
    return encode(to_served(kind, entry.load()))
