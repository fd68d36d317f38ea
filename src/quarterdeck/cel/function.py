"""How a CEL function is declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.cel import types
from quarterdeck.cel.errors import no_overload
from quarterdeck.cel.syntax import Node
from quarterdeck.cel.types import Type
from quarterdeck.cel.values import type_name


@dataclass(frozen=True, slots=True)
class Function:
    """``params``: per argument (receiver first) the type kinds it takes, separated by ``|``, "" for any; the last
    ``optional`` ones may be left out; ``variadic`` repeats the last one."""

    call: Callable[..., Any]
    params: tuple[str, ...]
    result: Type = types.DYN
    optional: int = 0
    variadic: bool = False

    def accepts(self, kinds: Sequence[Type]) -> bool:
        count = len(kinds)
        if count < len(self.params) - self.optional or (count > len(self.params) and not self.variadic):
            return False
        return all(self._fits(kind, self.params[min(at, len(self.params) - 1)]) for at, kind in enumerate(kinds))

    def _fits(self, kind: Type, param: str) -> bool:
        if not param or kind.kind == "dyn" or kind.kind in param.split("|"):
            return True
        return kind.fields is not None and "map" in param.split("|")


_PYTHON = {"string": str, "int": int, "bytes": bytes, "bool": bool, "double": float}


def checked(name: str, call: Callable[..., Any], params: tuple[str, ...]) -> Callable[..., Any]:
    """``call`` behind a check of the arguments' dynamic types, for parameters of one Python type."""
    expected = [_PYTHON.get(param) for param in params]

    def run(*args: Any) -> Any:
        for value, kind in zip(args, expected, strict=False):
            if kind is not None and type(value) is not kind:
                raise no_overload(f"{name} applied to ({', '.join(type_name(arg) for arg in args)})")
        return call(*args)

    return run


def declare(name: str, call: Callable[..., Any], params: str, result: Type = types.DYN, optional: int = 0) -> Function:
    """A function of fixed parameters, e.g. ``declare("charAt", char_at, "string int", STRING)``; ``*`` is any type."""
    kinds = tuple("" if param == "*" else param for param in params.split())
    return Function(checked(name, call, kinds), kinds, result, optional)


Run = Callable[[list[Any]], Any]
Expand = Callable[[Node, Sequence[Node], int], Node | None]


@dataclass(frozen=True, slots=True)
class Library:
    """What names mean in an expression. ``special`` functions get their arguments unevaluated, as closures over the
    frame; ``macros`` turn ``x.name(arguments)`` into another tree, or give None when the arguments are not theirs."""

    functions: Mapping[str, Function]
    members: Mapping[str, Function]
    special: Mapping[str, Callable[[list[Run]], Run]] = field(default_factory=dict[str, Callable[[list[Run]], Run]])
    macros: Mapping[str, Expand] = field(default_factory=dict[str, Expand])
    namespaces: frozenset[str] = frozenset()
