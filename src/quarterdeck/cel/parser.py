"""Tokens to syntax tree: precedence climbing, macros recognised while parsing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from quarterdeck.cel.errors import CompileError
from quarterdeck.cel.function import Expand
from quarterdeck.cel.lexer import RESERVED, Token, tokenize
from quarterdeck.cel.syntax import Call, Ident, Index, ListLiteral, Literal, Macro, MapLiteral, Node, Select
from quarterdeck.cel.values import INT64_MAX

_T = TypeVar("_T")
_BINARY = {
    "||": 1, "&&": 2, "<": 3, "<=": 3, ">": 3, ">=": 3, "==": 3, "!=": 3, "in": 3,
    "+": 4, "-": 4, "*": 5, "/": 5, "%": 5,
}  # fmt: skip
# macro → (names bound, numbers of arguments it takes)
_MACROS: dict[str, list[tuple[int, int]]] = {
    "all": [(1, 2), (2, 3)], "exists": [(1, 2), (2, 3)], "exists_one": [(1, 2), (2, 3)], "existsOne": [(1, 2), (2, 3)],
    "map": [(1, 2), (1, 3)], "filter": [(1, 2)], "transformList": [(2, 3), (2, 4)],
    "transformMap": [(2, 3), (2, 4)], "transformMapEntry": [(2, 3), (2, 4)], "optMap": [(1, 2)], "optFlatMap": [(1, 2)],
}  # fmt: skip


def parse(source: str, max_nodes: int, max_depth: int, macros: Mapping[str, Expand] | None = None) -> tuple[Node, int]:
    """The tree and its number of nodes; ``macros`` besides CEL's own. Raises CompileError."""
    parser = _Parser(tokenize(source), max_nodes, max_depth, macros or {})
    node = parser.expression()
    parser.expect_end()
    return node, parser.nodes


class _Parser:
    def __init__(self, tokens: list[Token], max_nodes: int, max_depth: int, macros: Mapping[str, Expand]) -> None:
        self._tokens = tokens
        self._macros = macros
        self._at = 0
        self._depth = 0
        self._max_nodes = max_nodes
        self._max_depth = max_depth
        self.nodes = 0

    def expression(self) -> Node:
        self._depth += 1
        if self._depth > self._max_depth:
            raise CompileError("expression recursion limit exceeded", self._peek.pos)
        node = self._binary(1)
        if self._peek.value == "?" and self._peek.kind == "op":
            pos = self._next().pos
            then = self._binary(1)
            self._expect(":")
            node = self._count(Call("_?_:_", None, [node, then, self.expression()], pos))
        self._depth -= 1
        return node

    def expect_end(self) -> None:
        if self._peek.kind != "end":
            raise self._unexpected()

    @property
    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _accept(self, value: str) -> bool:
        token = self._peek
        if token.kind == "op" and token.value == value:
            self._at += 1
            return True
        return False

    def _expect(self, value: str) -> None:
        if not self._accept(value):
            raise self._unexpected(f"expecting '{value}'")

    def _unexpected(self, hint: str = "") -> CompileError:
        token = self._peek
        return CompileError(f"Syntax error: unexpected '{token.value}'{' ' + hint if hint else ''}", token.pos)

    def _count(self, node: _T) -> _T:
        self.nodes += 1
        if self.nodes > self._max_nodes:
            raise CompileError(f"expression has more than {self._max_nodes} nodes", self._peek.pos)
        return node

    def _binary(self, minimum: int) -> Node:
        left = self._unary()
        while self._peek.kind == "op":
            operator = str(self._peek.value)
            precedence = _BINARY.get(operator, 0)
            if precedence < minimum:
                break
            pos = self._next().pos
            right = self._binary(precedence + 1)
            name = f"_{operator}_"
            if operator in ("&&", "||") and isinstance(left, Call) and left.name == name:
                left.args = [*left.args, right]
                continue
            left = self._count(Call(name, None, [left, right], pos))
        return left

    def _unary(self) -> Node:
        token = self._peek
        if token.kind != "op" or token.value not in ("!", "-"):
            return self._member()
        operators: list[Token] = []
        while self._peek.kind == "op" and self._peek.value == token.value:
            operators.append(self._next())
        operand = self._peek
        if token.value == "-" and operand.kind == "literal" and type(operand.value) in (int, float):
            # A sign directly before a number belongs to the literal, so that the smallest int can be written.
            operand.value = -operand.value
            operators.pop()
        node = self._member()
        if len(operators) > self._max_depth:
            raise CompileError("expression recursion limit exceeded", token.pos)
        for operator in reversed(operators):
            node = self._count(Call(f"{operator.value}_", None, [node], operator.pos))
        return node

    def _member(self) -> Node:
        node = self._primary()
        while self._peek.kind == "op":
            token = self._peek
            if token.value in (".", ".?"):
                self._next()
                node = self._count(self._dotted(node, token.value == ".?", token.pos))
            elif token.value in ("[", "[?"):
                self._next()
                index = self.expression()
                self._expect("]")
                node = self._count(Index(node, index, token.pos, token.value == "[?"))
            else:
                break
        return node

    def _dotted(self, operand: Node, optional: bool, pos: int) -> Node:
        token = self._next()
        # After a dot the grammar also lets keywords through that cannot start an expression ("in" is an operator).
        if token.kind not in ("ident", "quoted"):
            self._at -= 1
            raise self._unexpected("expecting a field name")
        if token.kind == "ident" and not optional and self._accept("("):
            return self._call(str(token.value), operand, self._arguments(")"), token.pos)
        return Select(operand, str(token.value), pos, optional)

    def _arguments(self, closing: str) -> list[Node]:
        arguments: list[Node] = []
        while not self._accept(closing):
            arguments.append(self.expression())
            if not self._accept(","):
                self._expect(closing)
                break
        return arguments

    def _call(self, name: str, target: Node | None, args: list[Node], pos: int) -> Node:
        if target is None and name == "has":
            if len(args) != 1 or not isinstance(args[0], Select) or args[0].test:
                raise CompileError("invalid argument to has() macro", pos)
            args[0].test = True
            return args[0]
        if isinstance(target, Ident) and target.name == "cel" and name == "bind" and len(args) == 3:
            return Macro("bind", args[1], (self._name(args[0]),), [args[2]], pos)
        if target is not None:
            for bound, arity in _MACROS.get(name, ()):
                if len(args) == arity:
                    names = tuple(self._name(arg) for arg in args[:bound])
                    if len(set(names)) != len(names):
                        raise CompileError("overlapping declaration of iteration variables", pos)
                    return Macro(name, target, names, args[bound:], pos)
            expanded = self._macros[name](target, args, pos) if name in self._macros else None
            if expanded is not None:
                return expanded
        return Call(name, target, args, pos)

    def _name(self, node: Node) -> str:
        if not isinstance(node, Ident) or node.name.startswith("."):
            raise CompileError("argument must be a simple name", node.pos)
        return node.name

    def _primary(self) -> Node:
        token = self._next()
        if token.kind == "literal":
            if type(token.value) is int and token.value > INT64_MAX:
                raise CompileError("invalid int literal", token.pos)
            return self._count(Literal(token.value, token.pos))
        if token.kind == "ident":
            return self._identifier(str(token.value), token.pos)
        if token.kind == "op":
            if token.value == "(":
                node = self.expression()
                self._expect(")")
                return node
            if token.value in ("[", "[?"):
                self._at -= token.value == "[?"
                return self._count(self._list(token.pos))
            if token.value == "{":
                return self._count(self._map(token.pos))
            if token.value == "." and self._peek.kind == "ident":
                return self._identifier(str(self._next().value), token.pos)
        self._at -= 1
        raise self._unexpected()

    def _identifier(self, name: str, pos: int) -> Node:
        if name in RESERVED:
            raise CompileError(f"reserved identifier: {name}", pos)
        if self._accept("("):
            return self._count(self._call(name, None, self._arguments(")"), pos))
        if self._peek.kind == "op" and self._peek.value == "{":
            raise CompileError("message construction is not supported", self._peek.pos)
        return self._count(Ident(name, pos))

    def _list(self, pos: int) -> Node:
        elements: list[Node] = []
        optional: set[int] = set()
        if self._peek.value == "[?":
            self._peek.value = "?"
        while not self._accept("]"):
            if self._accept("?"):
                optional.add(len(elements))
            elements.append(self.expression())
            if not self._accept(","):
                self._expect("]")
                break
        return ListLiteral(elements, optional, pos)

    def _map(self, pos: int) -> Node:
        entries: list[tuple[Node, Node]] = []
        optional: set[int] = set()
        while not self._accept("}"):
            if self._accept("?"):
                optional.add(len(entries))
            key = self.expression()
            self._expect(":")
            entries.append((key, self.expression()))
            if not self._accept(","):
                self._expect("}")
                break
        return MapLiteral(entries, optional, pos)
