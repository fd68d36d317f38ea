"""Table and PartialObjectMetadata: the representations kubectl asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from quarterdeck.apiserver.codec import encode
from quarterdeck.apiserver.kinds import Column, Kind
from quarterdeck.kube.resource import Object

SHAPES = frozenset({"Table", "PartialObjectMetadata", "PartialObjectMetadataList"})


def definitions(columns: Iterable[Column]) -> list[Object]:
    return [
        {
            "name": c.name, "type": c.type, "format": c.format or ("name" if c.name == "Name" else ""),
            "description": c.description, "priority": c.priority,
        }
        for c in columns
    ]  # fmt: skip


def partial(obj: Object) -> Object:
    """The object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj.get("metadata") or {}}


def row(kind: Kind, obj: Object, now: float, include: str) -> Object:
    """One table row; ``include`` is includeObject: Metadata (default), Object or None."""
    made: Object = {"cells": [column.value(obj, now) for column in kind.columns]}
    if include == "Object":
        made["object"] = obj
    elif include != "None":
        made["object"] = partial(obj)
    return made


def table(
    kind: Kind, items: Iterable[Object], metadata: Object, now: float, include: str, *, header: bool = True
) -> Object:
    """A meta.k8s.io/v1 Table. ``header`` False leaves the column definitions out (later events of a watch)."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions(kind.columns) if header else None,
        "rows": [row(kind, obj, now, include) for obj in items],
    }


def renderer(kind: Kind, shape: str, now: float, include: str) -> Callable[[Object], Any]:
    """How one object is shown in a response of one object."""
    if shape == "Table":

        def as_table(obj: Object) -> Object:
            version = obj["metadata"].get("resourceVersion", "")
            return table(kind, [obj], {"resourceVersion": version}, now, include)

        return as_table
    if shape in SHAPES:
        return partial
    return lambda obj: obj


def render(kind: Kind, obj: Object, shape: str, now: float, include: str) -> bytes:
    return encode(renderer(kind, shape, now, include)(obj))
