"""Syntax tree to Python closures.

A closure takes the frame of one evaluation: ``[variables, steps left, local slots …]``. Attribute chains, constants and
``path == constant`` are resolved when compiling, so that a policy such as ``mcp.tool.name == "x" && jwt.sub == "y"``
costs little more than the dictionary look-ups it needs. Work without a loop is bounded by the size of the expression;
each turn of a comprehension and each grown string or list takes steps from the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quarterdeck.cel import types
from quarterdeck.cel.comprehensions import macro
from quarterdeck.cel.errors import BudgetExceeded, CompileError, EvalError, no_overload
from quarterdeck.cel.function import Library
from quarterdeck.cel.functions import STANDARD, Function
from quarterdeck.cel.operators import (
    ARITHMETIC,
    COMPARISON,
    Closure,
    has_field,
    index,
    index_optional,
    negate,
    select,
    select_optional,
)
from quarterdeck.cel.parser import parse
from quarterdeck.cel.paths import chain, selections
from quarterdeck.cel.regex import compile_match
from quarterdeck.cel.syntax import Call, Ident, Index, ListLiteral, Literal, Macro, MapLiteral, Node, Select
from quarterdeck.cel.types import Type
from quarterdeck.cel.values import Optional, TypeValue, contains, equals, to_key, type_name

_TYPE_NAMES = {
    name: TypeValue(name) for name in ("int", "uint", "double", "bool", "string", "bytes", "list", "map", "type")
} | {"null_type": TypeValue("null_type"), "optional_type": TypeValue("optional_type")}
_NUMERIC = ("int", "uint", "double")
_CALL_DEPTH = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """``length`` characters and ``nodes`` at compile time; ``steps`` per evaluation."""

    length: int = 32_768
    nodes: int = 4_096
    depth: int = 50
    steps: int = 1_000_000


DEFAULT_LIMITS = Limits()


class Program:
    """A compiled expression. ``references`` are the paths read from variables, ``result`` the static type."""

    __slots__ = ("_blank", "_run", "references", "result", "source")

    def __init__(
        self, source: str, run: Closure, slots: int, steps: int, references: frozenset[tuple[str, ...]], result: Type
    ) -> None:
        self.source = source
        self.references = references
        self.result = result
        self._run = run
        self._blank: list[Any] = [None, steps, *[None] * slots]

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """The value for these variables. Raises EvalError."""
        frame = self._blank.copy()
        frame[0] = variables
        return self._run(frame)


def compile(
    source: str,
    variables: Mapping[str, Type] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    library: Library = STANDARD,
    rewrite: Callable[[Node], Node] | None = None,
) -> Program:
    """Compile ``source``; ``variables`` None lets any name through, ``rewrite`` changes the tree before that.

    Raises CompileError.
    """
    if len(source) > limits.length:
        raise CompileError(f"expression is longer than {limits.length} characters")
    tree, _ = parse(source, limits.nodes, limits.depth, library.macros)
    compiler = Compiler(variables, library)
    if rewrite is not None:
        tree = rewrite(tree)
    run, result = compiler.compile(tree)
    return Program(source, run, compiler.slots, limits.steps, frozenset(compiler.references), result)


class Compiler:
    """Compiles one expression; ``scope`` maps bound names to frame slots."""

    def __init__(self, variables: Mapping[str, Type] | None, library: Library = STANDARD) -> None:
        self._variables = variables
        self._library = library
        self.scope: dict[str, tuple[int, Type]] = {}
        self.slots = 0
        self.references: set[tuple[str, ...]] = set()
        self._depth = 0
        self._visit: dict[type, Callable[[Any], tuple[Closure, Type]]] = {
            Literal: self._literal, Ident: self._ident, Select: self._select, Index: self._index,
            Call: self._call, ListLiteral: self._list, MapLiteral: self._map, Macro: self._macro,
        }  # fmt: skip

    def compile(self, node: Node) -> tuple[Closure, Type]:
        self._depth += 1
        if self._depth > _CALL_DEPTH:
            raise CompileError("expression recursion limit exceeded", node.pos)
        compiled = self._visit[type(node)](node)
        self._depth -= 1
        return compiled

    def bind(self, name: str, kind: Type) -> int:
        """A new frame slot for a bound name; the caller restores ``scope``."""
        slot = 2 + self.slots
        self.slots += 1
        self.scope[name] = (slot, kind)
        return slot

    def _literal(self, node: Literal) -> tuple[Closure, Type]:
        value = node.value
        return lambda frame: value, types.literal_type(value)

    def _ident(self, node: Ident) -> tuple[Closure, Type]:
        bound = self.scope.get(node.name)
        if bound is not None:
            slot = bound[0]
            return lambda frame: frame[slot], bound[1]
        return self._path(node.name, (), node.pos)

    def _path(self, root: str, fields: tuple[str, ...], pos: int) -> tuple[Closure, Type]:
        """A chain of plain selections from a variable, resolved in one closure."""
        kind = self._root_type(root, pos)
        if kind is types.TYPE:
            value = _TYPE_NAMES[root]
            return selections(lambda frame: value, fields), types.TYPE
        keys: list[str] = []
        for field in fields:
            keys.append(_key(kind, field))
            kind = self._field_type(kind, field, pos)
        self.references.add((root, *keys))
        return chain(root, tuple(keys)), kind

    def _root_type(self, root: str, pos: int) -> Type:
        if self._variables is not None and root in self._variables:
            return self._variables[root]
        if root in _TYPE_NAMES:
            return types.TYPE
        if self._variables is None:
            return types.DYN
        raise CompileError(f"undeclared reference to '{root}' (in container '')", pos)

    def _field_type(self, kind: Type, field: str, pos: int) -> Type:
        if kind.fields is not None:
            if field not in kind.fields:
                raise CompileError(f"undefined field '{field}'", pos)
            return kind.fields[field]
        if kind.kind in ("dyn", "optional"):
            return types.DYN
        if kind.kind == "map":
            return kind.element or types.DYN
        raise CompileError(f"type '{kind}' does not support field selection", pos)

    def _select(self, node: Select) -> tuple[Closure, Type]:
        if not node.test and not node.optional:
            fields: list[str] = []
            base: Node = node
            while isinstance(base, Select) and not base.test and not base.optional:
                fields.append(base.field)
                base = base.operand
            if isinstance(base, Ident) and base.name not in self.scope:
                return self._path(base.name, tuple(reversed(fields)), node.pos)
        run, kind = self.compile(node.operand)
        result = self._field_type(kind, node.field, node.pos)
        field = _key(kind, node.field)
        if node.test:
            if isinstance(node.operand, Ident | Select):
                self._extend_references(node)
            return lambda frame: has_field(run(frame), field), types.BOOL
        if node.optional or kind.kind == "optional":
            return lambda frame: select_optional(run(frame), field), types.OPTIONAL
        return lambda frame: select(run(frame), field), result

    def _extend_references(self, node: Select) -> None:
        path: list[str] = []
        base: Node = node
        while isinstance(base, Select):
            path.append(base.field)
            base = base.operand
        if isinstance(base, Ident) and base.name not in self.scope:
            self.references.add((base.name, *reversed(path)))

    def _index(self, node: Index) -> tuple[Closure, Type]:
        run, kind = self.compile(node.operand)
        key, key_type = self.compile(node.index)
        if kind.kind not in ("dyn", "list", "map", "optional") and kind.fields is None:
            raise self._no_match("_[_]", [kind, key_type], node.pos)
        if kind.kind == "list" and key_type.kind not in ("dyn", "int", "uint", "double"):
            raise self._no_match("_[_]", [kind, key_type], node.pos)
        if not _is_key(key_type, kind):
            raise self._no_match("_[_]", [kind, key_type], node.pos)
        if node.optional or kind.kind == "optional":
            return lambda frame: index_optional(run(frame), key(frame)), types.OPTIONAL
        if isinstance(node.index, Literal) and type(node.index.value) is str:
            name = node.index.value
            return lambda frame: index(run(frame), name), kind.element or types.DYN
        return lambda frame: index(run(frame), key(frame)), kind.element or types.DYN

    def _no_match(self, name: str, kinds: list[Type], pos: int) -> CompileError:
        listed = ", ".join(str(kind) for kind in kinds)
        return CompileError(f"found no matching overload for '{name}' applied to '({listed})'", pos)

    def _same(self, first: Type, other: Type, pos: int) -> None:
        """Declared variables mean a checked expression: alternatives and elements are of one type, as far as known."""
        if self._variables is not None and not _comparable(first, other):
            raise CompileError(f"expected type '{first}' but found '{other}'", pos)

    def _list(self, node: ListLiteral) -> tuple[Closure, Type]:
        compiled = [self.compile(element) for element in node.elements]
        kind = compiled[0][1] if compiled and not node.optional else types.DYN
        for element, (_, other) in zip(node.elements, compiled, strict=True):
            self._same(kind, other, element.pos)
            kind = types.join(kind, other)
        runs = [run for run, _ in compiled]
        optional = node.optional
        if not optional:
            if all(isinstance(element, Literal) for element in node.elements):
                constant = [run([]) for run in runs]
                return lambda frame: constant, types.list_of(kind)
            return lambda frame: [run(frame) for run in runs], types.list_of(kind)

        def build(frame: list[Any]) -> list[Any]:
            values: list[Any] = []
            for at, run in enumerate(runs):
                value = run(frame)
                if at not in optional:
                    values.append(value)
                elif type(value) is not Optional:
                    raise no_overload("optional element is not an optional")
                elif value.present:
                    values.append(value.value)
            return values

        return build, types.list_of(kind)

    def _map(self, node: MapLiteral) -> tuple[Closure, Type]:
        compiled = [(self.compile(key), self.compile(value)) for key, value in node.entries]
        for (key, value), (key_node, value_node) in zip(compiled, node.entries, strict=True):
            self._same(compiled[0][0][1], key[1], key_node.pos)
            self._same(compiled[0][1][1], value[1], value_node.pos)
        runs = [(key[0], value[0]) for key, value in compiled]
        optional = node.optional

        def build(frame: list[Any]) -> dict[Any, Any]:
            values: dict[Any, Any] = {}
            for at, (key, value) in enumerate(runs):
                name = to_key(key(frame))
                if name in values:
                    raise EvalError(f"duplicate key in map literal: {name}")
                item = value(frame)
                if at not in optional:
                    values[name] = item
                elif type(item) is not Optional:
                    raise no_overload("optional entry is not an optional")
                elif item.present:
                    values[name] = item.value
            return values

        return build, types.MAP

    def _macro(self, node: Macro) -> tuple[Closure, Type]:
        return macro(self, node)

    def _call(self, node: Call) -> tuple[Closure, Type]:
        name = node.name
        if node.target is None and name in ("_&&_", "_||_"):
            return self._logical(node)
        if node.target is None and name in _OPERATORS:
            return self._operator(node)
        library = self._library
        if node.target is None:
            special = library.special.get(name)
            if special is not None:
                return self._special(special, name, list(node.args))
            return self._function(library.functions.get(name), name, list(node.args), node.pos)
        namespace = _dotted(node.target)
        root = namespace.split(".")[0] if namespace else ""
        declared = root in self.scope or (self._variables is not None and root in self._variables)
        if namespace and not declared and namespace in library.namespaces:
            qualified = f"{namespace}.{name}"
            return self._function(library.functions.get(qualified), qualified, list(node.args), node.pos)
        return self._function(library.members.get(name), name, [node.target, *node.args], node.pos)

    def _special(self, build: Callable[[list[Closure]], Closure], name: str, args: list[Node]) -> tuple[Closure, Type]:
        if not args:
            self.references.add(())  # it may read anything
        return build([self.compile(arg)[0] for arg in args]), types.DYN

    def _function(self, function: Function | None, name: str, args: list[Node], pos: int) -> tuple[Closure, Type]:
        if function is None:
            raise CompileError(f"undeclared reference to '{name}' (in container '')", pos)
        compiled = [self.compile(arg) for arg in args]
        kinds = [kind for _, kind in compiled]
        if not function.accepts(kinds) or not _elements_fit(name, kinds):
            raise self._no_match(name, kinds, pos)
        runs = [run for run, _ in compiled]
        if name == "matches" and isinstance(args[1], Literal):
            return _matches(runs[0], str(args[1].value), pos), types.BOOL
        return _invoke(function, name, runs), function.result

    def _logical(self, node: Call) -> tuple[Closure, Type]:
        compiled = [self.compile(arg) for arg in node.args]
        kinds = [kind for _, kind in compiled]
        if any(kind.kind not in ("dyn", "bool") for kind in kinds):
            raise self._no_match(node.name, kinds, node.pos)
        return _absorbing(tuple(run for run, _ in compiled), node.name == "_||_"), types.BOOL

    def _operator(self, node: Call) -> tuple[Closure, Type]:
        name = node.name
        compiled = [self.compile(arg) for arg in node.args]
        kinds = [kind for _, kind in compiled]
        result = _operator_type(name, kinds)
        if name == "_?_:_":
            self._same(kinds[1], kinds[2], node.pos)
        if result is None:
            raise self._no_match(name, kinds, node.pos)
        runs = [run for run, _ in compiled]
        if name in ("_==_", "_!=_"):
            return _equality(runs[0], runs[1], node.args[1], name == "_!=_"), types.BOOL
        if name == "_?_:_":
            return _ternary(runs[0], runs[1], runs[2]), result
        if name == "!_":
            return _not(runs[0]), types.BOOL
        left = runs[0]
        if name == "-_":
            return lambda frame: negate(left(frame)), result
        right = runs[1]
        if name == "_in_":
            return lambda frame: contains(right(frame), left(frame)), types.BOOL
        if name == "_+_":
            return _addition(left, right), result
        apply = ARITHMETIC.get(name) or COMPARISON[name]
        return lambda frame: apply(left(frame), right(frame)), result


_OPERATORS = frozenset([*ARITHMETIC, *COMPARISON, "_==_", "_!=_", "_?_:_", "!_", "-_", "_in_"])


def _key(kind: Type, field: str) -> str:
    return kind.names.get(field, field) if kind.names is not None else field


def _dotted(node: Node) -> str:
    if isinstance(node, Ident):
        return node.name
    if isinstance(node, Select) and not node.test and not node.optional:
        base = _dotted(node.operand)
        return f"{base}.{node.field}" if base else ""
    return ""


def _operator_type(name: str, kinds: list[Type]) -> Type | None:
    """The result type, None when the operand types cannot fit."""
    names = [kind.kind for kind in kinds]
    if name == "!_":
        return types.BOOL if names[0] in ("dyn", "bool") else None
    if name == "-_":
        return kinds[0] if names[0] in ("dyn", "int", "double") else None
    if name == "_?_:_":
        return types.join(kinds[1], kinds[2]) if names[0] in ("dyn", "bool") else None
    if name == "_in_":
        if names[1] == "list":
            return types.BOOL if _comparable(kinds[0], kinds[1].element or types.DYN) else None
        return types.BOOL if names[1] == "dyn" or kinds[1].fields is not None or _is_map(*kinds) else None
    if "dyn" in names:
        return types.BOOL if name in COMPARISON or name in ("_==_", "_!=_") else types.DYN
    if name in ("_==_", "_!=_"):
        return types.BOOL if _comparable(kinds[0], kinds[1]) else None
    if name in COMPARISON:
        ordered = names[0] == names[1] and names[0] in ("string", "bytes", "bool", "timestamp", "duration")
        return types.BOOL if ordered or (names[0] in _NUMERIC and names[1] in _NUMERIC) else None
    return _arithmetic_type(name, kinds, names)


def _comparable(left: Type, right: Type) -> bool:
    """Whether ``==`` can be applied: one type on both sides, as far as known; null goes with everything."""
    if "dyn" in (left.kind, right.kind) or "null" in (left.kind, right.kind):
        return True
    if left.kind in ("object", "map") and right.kind in ("object", "map"):
        return True
    if left.kind != right.kind:
        return False
    return left.element is None or right.element is None or _comparable(left.element, right.element)


def _is_map(key: Type, kind: Type) -> bool:
    return kind.kind == "map" and _is_key(key, kind)


def _is_key(key: Type, kind: Type) -> bool:
    """Whether a value of that type can be a key; declared maps have strings, literals what is written in them."""
    return kind.kind != "map" or kind is types.MAP or key.kind in ("dyn", "string")


def _elements_fit(name: str, kinds: list[Type]) -> bool:
    """What list functions ask of the elements of a list."""
    element = kinds[0].element if kinds and kinds[0].kind == "list" else None
    if element is None:
        return True
    if name == "sum":
        return element.kind in ("dyn", "duration", *_NUMERIC)
    return name not in ("indexOf", "lastIndexOf") or _comparable(element, kinds[1])


def _arithmetic_type(name: str, kinds: list[Type], names: list[str]) -> Type | None:
    pair = (names[0], names[1])
    if pair == ("timestamp", "timestamp") and name == "_-_":
        return types.DURATION
    if (pair == ("timestamp", "duration") and name in ("_+_", "_-_")) or pair == ("duration", "timestamp"):
        return types.TIMESTAMP if name != "_-_" or pair[0] == "timestamp" else None
    if names[0] != names[1]:
        return None
    allowed = {"_+_": ("string", "bytes", "list", "duration"), "_-_": ("duration",), "_%_": ("int", "uint")}
    if names[0] == "list" and not _comparable(kinds[0], kinds[1]):
        return None
    if names[0] in allowed.get(name, ()) or (names[0] in _NUMERIC and name != "_%_"):
        return types.join(kinds[0], kinds[1])
    return None


def _equality(left: Closure, right: Closure, right_node: Node, negated: bool) -> Closure:
    if isinstance(right_node, Literal) and type(right_node.value) is str:
        constant = right_node.value
        # Only a string can equal a string, and Python's == says so for every value type.
        if negated:
            return lambda frame: left(frame) != constant
        return lambda frame: left(frame) == constant
    if negated:
        return lambda frame: not equals(left(frame), right(frame))
    return lambda frame: equals(left(frame), right(frame))


def _ternary(condition: Closure, then: Closure, other: Closure) -> Closure:
    def run(frame: list[Any]) -> Any:
        value = condition(frame)
        if value is True:
            return then(frame)
        if value is False:
            return other(frame)
        raise no_overload(f"_?_:_ applied to {type_name(value)}")

    return run


def _not(operand: Closure) -> Closure:
    def run(frame: list[Any]) -> bool:
        value = operand(frame)
        if value is True:
            return False
        if value is False:
            return True
        raise no_overload(f"!_ applied to {type_name(value)}")

    return run


def _absorbing(runs: tuple[Closure, ...], decisive: bool) -> Closure:
    """``&&`` (decisive False) and ``||``: one decisive operand wins over errors on either side."""

    def run(frame: list[Any]) -> bool:
        failure: EvalError | None = None
        for operand in runs:
            try:
                value = operand(frame)
            except BudgetExceeded:
                raise
            except EvalError as error:
                failure = failure or error
                continue
            if value is decisive:
                return decisive
            if type(value) is not bool:
                failure = failure or no_overload(f"logical operator applied to {type_name(value)}")
        if failure is not None:
            raise failure
        return not decisive

    return run


def _addition(left: Closure, right: Closure) -> Closure:
    add = ARITHMETIC["_+_"]

    def run(frame: list[Any]) -> Any:
        value = add(left(frame), right(frame))
        if type(value) in (str, list, bytes):
            charge(frame, len(value))
        return value

    return run


def _matches(text: Closure, pattern: str, pos: int) -> Closure:
    try:
        predicate = compile_match(pattern)
    except EvalError as error:
        raise CompileError(str(error), pos) from None

    def run(frame: list[Any]) -> bool:
        value = text(frame)
        if type(value) is not str:
            raise no_overload(f"matches applied to {type_name(value)}")
        return predicate(value)

    return run


def charge(frame: list[Any], size: int) -> None:
    """Take steps for a value of ``size`` that was built; raises BudgetExceeded."""
    frame[1] -= 1 + size // 16
    if frame[1] < 0:
        raise BudgetExceeded


def _invoke(function: Function, name: str, runs: list[Closure]) -> Closure:
    call = function.call

    def run(frame: list[Any]) -> Any:
        arguments = [argument(frame) for argument in runs]
        try:
            value = call(*arguments)
        except (TypeError, AttributeError, ValueError, OverflowError):
            # An operand of a type the function does not take, seen only at run time because it was dyn.
            raise no_overload(f"{name} applied to ({', '.join(map(type_name, arguments))})") from None
        if type(value) in (str, list, bytes):
            charge(frame, len(value))
        return value

    def lazy(frame: list[Any]) -> Any:
        value = runs[0](frame)
        if type(value) is not Optional:
            raise no_overload(f"{name} applied to {type_name(value)}")
        if name == "orValue":
            return value.value if value.present else runs[1](frame)
        return value if value.present else runs[1](frame)

    return lazy if name in ("orValue", "or") else run
