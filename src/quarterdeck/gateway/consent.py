"""Which calls of a server people must approve first: ApprovalPolicies, compiled once per snapshot."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from quarterdeck import cel
from quarterdeck.cel.agentgateway import LIBRARY
from quarterdeck.snapshot import Snapshot
from quarterdeck.snapshot.consent import ApprovalRule

from .mcp.route import McpRoute

_log = logging.getLogger("quarterdeck.gateway")
_LIMITS = cel.Limits(steps=100_000)


class Rule:
    """One policy. What goes wrong with its expression demands an approval."""

    def __init__(self, rule: ApprovalRule) -> None:
        self.rule = rule
        self._when: cel.Program | None = None
        if rule.when:
            try:
                self._when = cel.compile(rule.when, limits=_LIMITS, library=LIBRARY)
            except cel.CompileError as error:
                _log.warning("%s: %s; every call needs approval", rule.name, error)

    def demands(self, variables: Mapping[str, Any]) -> bool:
        """Whether a call of one of its servers needs approval."""
        if not self.rule.names(variables["tool"]):
            return False
        if self._when is None:
            return True
        try:
            return self._when.evaluate(variables) is not False
        except cel.EvalError:
            return True


class Consent:
    """The policies of one server."""

    def __init__(self, label: str, rules: Iterable[Rule]) -> None:
        self._label = label
        self._rules = tuple(rules)

    def demanded(self, tool: str, arguments: Mapping[str, Any], agent: str, user: str) -> tuple[str, ...]:
        """Names of the rules by which the call needs approval."""
        variables = {"tool": tool, "server": self._label, "arguments": arguments, "agent": agent, "user": user}
        return tuple(rule.rule.name for rule in self._rules if rule.demands(variables))


class Consents:
    """The policies of a snapshot; servers without any cost their calls nothing."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._rules = [Rule(rule) for rule in snapshot.approvals]

    def of(self, route: McpRoute) -> Consent | None:
        """What holds for one server."""
        own = [rule for rule in self._rules if rule.rule.governs(*route.target)]
        return Consent(route.label, own) if own else None
