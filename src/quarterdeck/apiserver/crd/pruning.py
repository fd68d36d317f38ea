"""Pruning and defaulting of custom objects along their structural schema."""

from __future__ import annotations

from typing import Any

from quarterdeck.apiserver.schema.node import MISSING, SchemaNode

_META = ("apiVersion", "kind", "metadata")


def prune(value: Any, node: SchemaNode, *, resource: bool = False) -> None:
    """Drop unknown fields in place. ``resource``: apiVersion, kind and metadata are known here."""
    if isinstance(value, dict):
        resource = resource or node.embedded_resource
        for key in list(value):
            if resource and key in _META:
                continue
            below = node.properties.get(key)
            if below is None and isinstance(node.additional, SchemaNode):
                below = node.additional
            if below is not None:
                if isinstance(value[key], (dict, list)):
                    prune(value[key], below)
            elif not node.preserve_unknown and node.additional is not True:
                del value[key]
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            if isinstance(item, (dict, list)):
                prune(item, node.items)


def unknown_fields(value: Any, node: SchemaNode, path: str = "", *, resource: bool = False) -> list[str]:
    """The paths ``prune`` would drop."""
    found: list[str] = []
    if isinstance(value, dict):
        resource = resource or node.embedded_resource
        for key, item in value.items():
            if resource and key in _META:
                continue
            place = f"{path}.{key}" if path else key
            below = node.properties.get(key)
            if below is None and isinstance(node.additional, SchemaNode):
                below = node.additional
            if below is not None:
                found += unknown_fields(item, below, place)
            elif not node.preserve_unknown and node.additional is not True:
                found.append(place)
    elif isinstance(value, list) and node.items is not None:
        for at, item in enumerate(value):
            found += unknown_fields(item, node.items, f"{path}[{at}]")
    return found


class Defaulter:
    """Fills in defaults; knows which subtrees hold none. Null in a field that may not be null counts as absent."""

    __slots__ = ("_children", "_defaults", "_items", "_node", "_rest")

    def __init__(self, node: SchemaNode) -> None:
        self._node = node
        self._defaults = [
            (name, below.default, below.nullable)
            for name, below in node.properties.items()
            if below.default is not MISSING
        ]
        self._children: dict[str, Defaulter] | None = None
        self._items: Defaulter | None = None
        self._rest: Defaulter | None = None

    def apply(self, value: Any) -> None:
        """Fill ``value`` in place."""
        if isinstance(value, dict):
            self._apply_object(value)
        elif isinstance(value, list) and self._node.items is not None:
            below = self._items = self._items or Defaulter(self._node.items)
            for item in value:
                below.apply(item)

    def _apply_object(self, value: dict[str, Any]) -> None:
        children = self._children
        if children is None:
            children = self._children = {}
        if None in value.values():
            for key in [key for key, item in value.items() if item is None]:
                below = self._node.child(key)
                if below is not None and not below.nullable and not (below.preserve_unknown and not below.type):
                    del value[key]
        for name, default, _ in self._defaults:
            if name not in value:
                value[name] = copy(default)
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                below = children.get(key) or self._descend(key)
                if below is not None:
                    below.apply(item)

    def _descend(self, key: str) -> Defaulter | None:
        node = self._node.properties.get(key)
        if node is not None and self._children is not None:
            found = self._children[key] = Defaulter(node)
            return found
        if isinstance(self._node.additional, SchemaNode):
            self._rest = self._rest or Defaulter(self._node.additional)
        return self._rest


def copy(value: Any) -> Any:
    """A deep copy of JSON data (several times faster than copy.deepcopy)."""
    if isinstance(value, dict):
        return {key: copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy(item) for item in value]
    return value
