"""A CRD's ``openAPIV3Schema`` as the shared ``SchemaNode`` tree."""

from __future__ import annotations

from typing import Any

from quarterdeck.apiserver.schema.node import MISSING, SchemaNode

Schema = dict[str, Any]


def build(schema: Schema) -> SchemaNode:
    """The tree of a structural schema; call ``schemas.check`` first, nothing is validated here."""
    additional = schema.get("additionalProperties")
    items = schema.get("items")
    enum = schema.get("enum")
    return SchemaNode(
        type=schema.get("type", ""),
        properties={name: build(sub) for name, sub in (schema.get("properties") or {}).items()},
        additional=build(additional) if isinstance(additional, dict) else additional,
        items=build(items) if isinstance(items, dict) else None,
        required=tuple(schema.get("required") or ()),
        enum=tuple(enum) if enum is not None else None,
        default=schema.get("default", MISSING),
        nullable=bool(schema.get("nullable")),
        description=schema.get("description", ""),
        format=schema.get("format", ""),
        preserve_unknown=bool(schema.get("x-kubernetes-preserve-unknown-fields")),
        int_or_string=bool(schema.get("x-kubernetes-int-or-string")),
        embedded_resource=bool(schema.get("x-kubernetes-embedded-resource")),
        list_type=schema.get("x-kubernetes-list-type") or "atomic",
        list_map_keys=tuple(schema.get("x-kubernetes-list-map-keys") or ()),
        map_type=schema.get("x-kubernetes-map-type") or "granular",
        raw=schema,
    )


def is_open(node: SchemaNode) -> bool:
    """Nothing is known about what stands below: arbitrary JSON is kept."""
    return node.preserve_unknown and not node.properties and node.items is None and node.additional is None
