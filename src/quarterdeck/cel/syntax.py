"""The syntax tree of a CEL expression. ``pos`` is the character offset in the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Literal:
    value: Any
    pos: int


@dataclass(slots=True)
class Ident:
    name: str
    pos: int


@dataclass(slots=True)
class Select:
    """``operand.field``; ``test`` for has(), ``optional`` for ``operand.?field``."""

    operand: Node
    field: str
    pos: int
    optional: bool = False
    test: bool = False


@dataclass(slots=True)
class Index:
    operand: Node
    index: Node
    pos: int
    optional: bool = False


@dataclass(slots=True)
class Call:
    """A function (target None), a member function, or an operator (``_+_``, ``!_``, ``_?_:_`` …)."""

    name: str
    target: Node | None
    args: Sequence[Node]
    pos: int


@dataclass(slots=True)
class ListLiteral:
    elements: list[Node]
    optional: set[int]
    pos: int


@dataclass(slots=True)
class MapLiteral:
    entries: list[tuple[Node, Node]]
    optional: set[int]
    pos: int


@dataclass(slots=True)
class Macro:
    """A comprehension over ``target``, or a binding (``cel.bind``, ``optMap``): ``names`` are bound in ``bodies``."""

    kind: str
    target: Node
    names: tuple[str, ...]
    bodies: list[Node]
    pos: int


Node = Literal | Ident | Select | Index | Call | ListLiteral | MapLiteral | Macro
