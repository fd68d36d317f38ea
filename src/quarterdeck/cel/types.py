"""Static types, known as far as declarations and literals tell; everything else is ``DYN``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Type:
    """``kind`` as CEL prints it; ``element`` of a list, map value or optional; ``fields`` of an object;
    ``names`` gives the key in the data for a field that CEL has to spell differently (``__dash__``)."""

    kind: str
    element: Type | None = None
    fields: Mapping[str, Type] | None = None
    names: Mapping[str, str] | None = None

    def __str__(self) -> str:
        if self.kind == "list":
            return f"list({self.element})"
        if self.kind == "map":
            return f"map(string, {self.element})"
        return self.kind


DYN = Type("dyn")
BOOL = Type("bool")
INT = Type("int")
UINT = Type("uint")
DOUBLE = Type("double")
STRING = Type("string")
BYTES = Type("bytes")
NULL = Type("null")
TIMESTAMP = Type("timestamp")
DURATION = Type("duration")
TYPE = Type("type")
OPTIONAL = Type("optional", DYN)
LIST = Type("list", DYN)
MAP = Type("map", DYN)


def list_of(element: Type) -> Type:
    return Type("list", element)


def map_of(value: Type) -> Type:
    return Type("map", value)


def object_of(fields: Mapping[str, Type], names: Mapping[str, str] | None = None) -> Type:
    return Type("object", fields=fields, names=names)


def literal_type(value: object) -> Type:
    by_python: dict[type, Type] = {bool: BOOL, int: INT, float: DOUBLE, str: STRING, bytes: BYTES, type(None): NULL}
    return by_python.get(type(value), UINT)


def join(left: Type, right: Type) -> Type:
    """The type of a value that is one or the other."""
    return left if left is right or (left.kind == right.kind and left.fields is right.fields) else DYN
