"""Authorization by expressions: agentgateway's rules, in both of its generations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quarterdeck.cel.errors import BudgetExceeded, EvalError
from quarterdeck.mcptypes import protocol
from quarterdeck.snapshot.policies import Authorization, CelRule

from .authorizer import Decision
from .expressions import EXPOSED, Expression, compile_expression, on_any_test_of_either, on_either_name

Test = Callable[[Mapping[str, Any]], Any]

KINDS = {
    protocol.TOOLS_CALL: "tool",
    protocol.PROMPTS_GET: "prompt",
    protocol.RESOURCES_READ: "resource",
    "resources/subscribe": "resource",
    "resources/unsubscribe": "resource",
}
"""What a method's name is the name of; other methods are not subject to rules about tools, prompts and resources."""

_NO_RULES = Decision("allow", "no-rules")


class Rules:
    """The rules of one route or target, from all of its attachment points.

    No rules: allow. Any deny that is true: deny. Any require that is not true: deny. Any allow that is true: allow.
    Else it is allowed only when there is no allow rule at all, and, for strict sets (October 2025), no deny rule
    either. A rule whose evaluation fails counts as not true; in a strict set a failing deny denies. A deny that takes
    too much work, or reads a body too large to be read, denies in any set: else callers could get round it.
    """

    def __init__(self, sets: Sequence[Authorization], where: str, reason: str = "denied by policy") -> None:
        """Raises ConfigError when an expression does not compile."""
        self.expressions: list[Expression] = []
        self._denies: list[tuple[tuple[Test, ...], bool, Decision]] = []
        self._requires: list[tuple[Test, Decision]] = []
        self._allows: list[tuple[Test, Decision]] = []
        self._reason = reason
        counted = False
        for number, rules in enumerate(sets):
            name = rules.where or (f"{where}#{number}" if len(sets) > 1 else where)
            for at, rule in enumerate(rules.rules):
                self._add(rule, f"{name}/{rule.effect}/{at}", rules.strict)
            effects = {rule.effect for rule in rules.rules}
            counted = counted or (rules.strict and bool(effects) and "require" not in effects)
        allowed_by_default = not self._allows and not counted
        end = f"{where}/default"
        self._default = Decision("allow", end) if allowed_by_default else Decision("deny", end, reason)
        self.empty = not (self._denies or self._requires or self._allows)

    def _add(self, rule: CelRule, name: str, strict: bool) -> None:
        if rule.effect == "deny":
            raw = self._compile(rule.expression, name, None)
            either = self._compile(rule.expression, name, on_any_test_of_either)
            tests = (raw.evaluate, either.evaluate) if _names_something(raw) else (raw.evaluate,)
            self._denies.append((tests, strict, Decision("deny", name, self._reason)))
            return
        test = self._compile(rule.expression, name, on_either_name).evaluate
        if rule.effect == "require":
            self._requires.append((test, Decision("deny", name, self._reason)))
        else:
            self._allows.append((test, Decision("allow", name)))

    def _compile(self, source: str, name: str, rewrite: Callable[[Any], Any] | None) -> Expression:
        expression = compile_expression(source, name, rewrite)
        self.expressions.append(expression)
        return expression

    def decide(self, variables: Mapping[str, Any]) -> Decision:
        """The decision on a request whose attributes are ``variables``."""
        if self.empty:
            return _NO_RULES
        for tests, strict, denied in self._denies:
            for test in tests:
                try:
                    if test(variables) is True:
                        return denied
                except BudgetExceeded:
                    return denied
                except EvalError:
                    if strict:
                        return denied
        for test, denied in self._requires:
            try:
                if test(variables) is not True:
                    return denied
            except EvalError:
                return denied
        for test, allowed in self._allows:
            try:
                if test(variables) is True:
                    return allowed
            except EvalError:
                continue
        return self._default

    def decide_named(
        self, variables: dict[str, Any], method: str, name: str, exposed: str = "", target: str = ""
    ) -> Decision:
        """The decision on a call of ``name`` (the upstream's name or URI), which clients know as ``exposed``."""
        if self.empty:
            return _NO_RULES
        kind = KINDS.get(method)
        if kind is None:
            return _NO_RULES
        item = {"name": name, "target": target, EXPOSED: exposed or name}
        variables["mcp"] = {kind: item, "methodName": method}
        return self.decide(variables)


def _names_something(expression: Expression) -> bool:
    return any(path[:1] == ("mcp",) for path in expression.references)
