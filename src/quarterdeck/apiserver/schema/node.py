"""The schema tree that patch, apply, defaulting, pruning and field validation share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Protocol

from quarterdeck.errors import Cause
from quarterdeck.kube.resource import Object


class Missing(Enum):
    """The type of ``MISSING``: no default was declared (a declared default may be null)."""

    MISSING = "missing"


MISSING = Missing.MISSING

ListType = Literal["atomic", "set", "map"]
MapType = Literal["granular", "atomic"]


@dataclass(slots=True, eq=False)
class SchemaNode:
    """One place in an object: what may stand there and how two values of it merge.

    ``type`` is "object", "array", "string", "integer", "number", "boolean", or "" for anything (int-or-string,
    preserved JSON). Built-in kinds come from ``schema.builtin``, custom resources from ``crd``. Nodes are shared and
    may be recursive; treat them as immutable.
    """

    type: str = ""
    properties: Mapping[str, SchemaNode] = field(default_factory=dict[str, "SchemaNode"])
    additional: SchemaNode | bool | None = None
    items: SchemaNode | None = None
    required: tuple[str, ...] = ()
    enum: tuple[Any, ...] | None = None
    default: Any = MISSING
    nullable: bool = False
    description: str = ""
    format: str = ""
    preserve_unknown: bool = False
    int_or_string: bool = False
    embedded_resource: bool = False
    list_type: ListType = "atomic"
    list_map_keys: tuple[str, ...] = ()
    map_type: MapType = "granular"
    merge_key: str = ""
    patch_strategy: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def child(self, key: str) -> SchemaNode | None:
        """The node of the value under ``key``, None when the schema says nothing about it."""
        found = self.properties.get(key)
        if found is not None:
            return found
        additional = self.additional
        return additional if isinstance(additional, SchemaNode) else None


class KindSchema(Protocol):
    """What one served group/version/kind knows about its objects.

    A write calls, in this order: ``unknown_fields`` (only for fieldValidation Strict and Warn), ``prune``, ``default``,
    ``prepare_create`` or ``prepare_update``, ``validate``.
    """

    @property
    def root(self) -> SchemaNode: ...

    def unknown_fields(self, obj: Object) -> list[str]:
        """Messages such as ``unknown field "spec.foo"``, in the order of kube-apiserver."""
        ...

    def prune(self, obj: Object) -> None:
        """Drop what the schema does not know, in place. Built-ins raise BadRequest for a value of a wrong type."""
        ...

    def default(self, obj: Object) -> None:
        """Fill in defaults, in place."""
        ...

    def validate(self, obj: Object, old: Object | None, subresource: str) -> list[Cause]:
        """What is wrong with ``obj``; ``old`` is None on create, ``subresource`` is "" or e.g. "status"."""
        ...

    def prepare_create(self, obj: Object) -> None:
        """Reset what a client may not set on create (status) and set the generation, in place."""
        ...

    def prepare_update(self, obj: Object, old: Object, subresource: str = "") -> None:
        """Keep of ``old`` what this request may not change and count the generation, in place."""
        ...
