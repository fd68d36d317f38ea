"""Schemas of served kinds: one node tree for built-in kinds and for custom resources."""

from .definitions import kind_node
from .node import MISSING, KindSchema, Missing, SchemaNode

__all__ = ["MISSING", "KindSchema", "Missing", "SchemaNode", "kind_node"]
