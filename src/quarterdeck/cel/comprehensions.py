"""Macros: comprehensions with one or two variables, bindings, and optional maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from quarterdeck.cel import types
from quarterdeck.cel.errors import BudgetExceeded, CompileError, EvalError, no_overload
from quarterdeck.cel.operators import Closure, iterate, iterate_pairs
from quarterdeck.cel.syntax import Macro
from quarterdeck.cel.types import Type
from quarterdeck.cel.values import Optional, from_key, to_key, type_name

if TYPE_CHECKING:
    from quarterdeck.cel.compiler import Compiler

Bind = Callable[[list[Any]], list[Any]]
_PREDICATES = frozenset(("all", "exists", "exists_one", "existsOne", "filter"))


def macro(compiler: Compiler, node: Macro) -> tuple[Closure, Type]:
    """Compile one macro; its names are in scope of its bodies only."""
    target, kind = compiler.compile(node.target)
    if node.kind not in ("bind", "optMap", "optFlatMap") and not _iterable(kind):
        raise CompileError(f"expression of type '{kind}' cannot be range of a comprehension", node.pos)
    outer = compiler.scope
    compiler.scope = dict(outer)
    slots = [compiler.bind(name, bound) for name, bound in zip(node.names, _bound_types(node, kind), strict=True)]
    bodies = [compiler.compile(body) for body in node.bodies]
    compiler.scope = outer
    runs = [run for run, _ in bodies]
    if (node.kind in _PREDICATES or len(bodies) == 2) and bodies[0][1].kind not in ("dyn", "bool"):
        raise CompileError(f"the predicate of {node.kind} is of type '{bodies[0][1]}', not bool", node.pos)
    if node.kind in ("bind", "optMap", "optFlatMap"):
        return _binding(node.kind, target, slots[0], runs[0]), bodies[0][1] if node.kind == "bind" else types.OPTIONAL
    loop = _loop(target, slots, len(runs) + 1)
    return _BUILDERS[node.kind](loop, runs, slots), _result_type(node.kind, bodies[-1][1], kind)


def _iterable(kind: Type) -> bool:
    return kind.kind in ("dyn", "list", "map") or kind.fields is not None


def _bound_types(node: Macro, kind: Type) -> list[Type]:
    element = (kind.element or types.DYN) if kind.kind in ("list", "map") else types.DYN
    if node.kind == "bind":
        return [kind]
    if node.kind in ("optMap", "optFlatMap"):
        return [types.DYN]
    if kind.kind == "list":
        return [element] if len(node.names) == 1 else [types.INT, element]
    if kind.kind == "map":
        return [types.STRING if kind is not types.MAP else types.DYN, element][: len(node.names)]
    return [types.DYN] * len(node.names)


def _result_type(kind: str, body: Type, target: Type) -> Type:
    if kind in ("map", "transformList"):
        return types.list_of(body)
    if kind == "filter":
        return types.list_of(target.element or types.DYN) if target.kind == "list" else types.LIST
    return types.MAP if kind.startswith("transformMap") else types.BOOL


def _loop(target: Closure, slots: list[int], cost: int) -> Bind:
    """An iterator that puts each element into its slots and takes steps from the budget."""
    first = slots[0]
    if len(slots) == 1:

        def single(frame: list[Any]) -> Any:
            for item in iterate(target(frame)):
                frame[1] -= cost
                if frame[1] < 0:
                    raise BudgetExceeded
                frame[first] = item
                yield item

        return single
    second = slots[1]

    def pairs(frame: list[Any]) -> Any:
        for key, item in iterate_pairs(target(frame)):
            frame[1] -= cost
            if frame[1] < 0:
                raise BudgetExceeded
            frame[first], frame[second] = key, item
            yield key

    return pairs


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise no_overload(f"predicate is {type_name(value)}, not bool")
    return value


def _quantifier(decisive: bool) -> Callable[[Bind, list[Closure], list[int]], Closure]:
    def build(loop: Bind, runs: list[Closure], slots: list[int]) -> Closure:
        predicate = runs[0]

        def run(frame: list[Any]) -> bool:
            failure: EvalError | None = None
            for _ in loop(frame):
                try:
                    if _truth(predicate(frame)) is decisive:
                        return decisive
                except BudgetExceeded:
                    raise
                except EvalError as error:
                    failure = failure or error
            if failure is not None:
                raise failure
            return not decisive

        return run

    return build


def _exists_one(loop: Bind, runs: list[Closure], slots: list[int]) -> Closure:
    predicate = runs[0]
    return lambda frame: sum(1 for _ in loop(frame) if _truth(predicate(frame))) == 1


def _filter(loop: Bind, runs: list[Closure], slots: list[int]) -> Closure:
    predicate = runs[0]
    return lambda frame: [item for item in loop(frame) if _truth(predicate(frame))]


def _map(loop: Bind, runs: list[Closure], slots: list[int]) -> Closure:
    transform = runs[-1]
    if len(runs) == 1:
        return lambda frame: [transform(frame) for _ in loop(frame)]
    predicate = runs[0]
    return lambda frame: [transform(frame) for _ in loop(frame) if _truth(predicate(frame))]


def _transform_map(loop: Bind, runs: list[Closure], slots: list[int]) -> Closure:
    transform = runs[-1]
    predicate = runs[0] if len(runs) == 2 else None

    def run(frame: list[Any]) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key in loop(frame):
            if predicate is None or _truth(predicate(frame)):
                result[to_key(key)] = transform(frame)
        return result

    return run


def _transform_entry(loop: Bind, runs: list[Closure], slots: list[int]) -> Closure:
    transform = runs[-1]
    predicate = runs[0] if len(runs) == 2 else None

    def run(frame: list[Any]) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for _ in loop(frame):
            if predicate is not None and not _truth(predicate(frame)):
                continue
            entries = transform(frame)
            if not isinstance(entries, dict):
                raise no_overload("transformMapEntry needs a map")
            for key, value in entries.items():
                if key in result:
                    raise EvalError(f"insert failed: key {from_key(key)!r} already exists")
                result[key] = value
        return result

    return run


_BUILDERS: dict[str, Callable[[Bind, list[Closure], list[int]], Closure]] = {
    "all": _quantifier(False), "exists": _quantifier(True), "exists_one": _exists_one, "existsOne": _exists_one,
    "filter": _filter, "map": _map, "transformList": _map, "transformMap": _transform_map,
    "transformMapEntry": _transform_entry,
}  # fmt: skip


def _binding(kind: str, target: Closure, slot: int, body: Closure) -> Closure:
    def bind(frame: list[Any]) -> Any:
        frame[slot] = target(frame)
        return body(frame)

    def optional(frame: list[Any]) -> Any:
        value = target(frame)
        if type(value) is not Optional:
            raise no_overload(f"{kind} applied to {type_name(value)}")
        if not value.present:
            return value
        frame[slot] = value.value
        result = body(frame)
        return Optional(True, result) if kind == "optMap" else result

    return bind if kind == "bind" else optional
