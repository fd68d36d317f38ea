"""What a caller may do. One pure decision function, used for calls and for filtering lists, compiled per snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from msgspec import Struct

from quarterdeck.mcptypes import protocol
from quarterdeck.snapshot import FRAMING, AgentPolicy, Snapshot, ToolGrant

from .principal import Principal

WRITTEN = FRAMING | {"accept", "content-type", "traceparent"}
"""Headers of requests that the gateway writes itself, whatever is behind it."""

Target = tuple[str, str, str]
"""kind, namespace, name"""

Verdict = Literal["allow", "deny", "approval"]

_OPEN_METHODS = frozenset(
    {
        protocol.INITIALIZE, protocol.DISCOVER, protocol.PING, protocol.TOOLS_LIST, protocol.SET_LEVEL,
        "subscriptions/listen", "tasks/get", "tasks/update", "tasks/cancel", "tasks/result", "tasks/list", "DELETE",
    }
)  # fmt: skip
"""What a caller limited to some tools may do besides calling them: nothing here reads data of the server's.

DELETE ends the caller's own session."""


class Request(Struct, frozen=True, gc=False):
    """One thing a caller wants. ``name`` is the tool (the upstream's name) for ``tools/call``, else empty."""

    principal: Principal
    target: Target
    method: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, the rule that gave it and, for a refusal, the reason as told to the caller."""

    verdict: Verdict
    rule: str
    reason: str = ""

    @property
    def allow(self) -> bool:
        return self.verdict == "allow"


class Grant:
    """A ToolGrant compiled: what one agent may do on one MCP server."""

    __slots__ = ("_allow", "allowed_headers", "approval", "headers", "rule", "tools")

    def __init__(self, grant: ToolGrant, agent: str) -> None:
        self.rule = f"agent/{agent}/tools/{grant.kind}/{grant.namespace}/{grant.name}"
        self.tools = None if grant.tools is None else frozenset(grant.tools)
        self.approval = frozenset(grant.approval)
        self.headers = tuple(h for h in grant.headers if not gateways_own(h.name.lower()))
        self.allowed_headers = tuple(name for name in map(str.lower, grant.allowed_headers) if not gateways_own(name))
        self._allow = Decision("allow", self.rule)

    def decide(self, request: Request) -> Decision:
        if request.method == protocol.TOOLS_CALL:
            return self._decide_call(request)
        if self.tools is None or request.method in _OPEN_METHODS or request.method.startswith("notifications/"):
            return self._allow
        return Decision(
            "deny",
            self.rule,
            f"{request.method} of {_name(request.target)} is not allowed for {request.principal.title}: "
            f"its toolNames grant tools only (rule {self.rule})",
        )

    def _decide_call(self, request: Request) -> Decision:
        tool = request.name
        if self.tools is not None and tool not in self.tools:
            return Decision(
                "deny",
                self.rule,
                f'tool "{tool}" of {_name(request.target)} is not allowed for {request.principal.title} '
                f"(rule {self.rule}: toolNames does not list it)",
            )
        if tool in self.approval:
            return Decision(
                "approval",
                self.rule,
                f'tool "{tool}" of {_name(request.target)} needs approval for {request.principal.title} '
                f"(rule {self.rule}: requireApproval)",
            )
        return self._allow


_LOCAL = Decision("allow", "local/people")
_ROUTED = Decision("allow", "route")
"""Targets are reached through routes only, and the rules of those decide."""


class Revoker(Protocol):
    """The kill switch: asked first, and only while ``active``."""

    @property
    def active(self) -> bool: ...
    def decide(self, principal: Principal, target: Target) -> Decision | None: ...


class Authorizer:
    """Decides requests by the policies of one snapshot. Anything no policy grants to an agent is denied.

    People on the local listener (DESIGN §7) may use every server, model and agent; rules written for agents
    (``toolNames``, approvals) are not theirs.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._grants: dict[tuple[str, Target], Grant] = {}
        self._others: dict[tuple[str, Target], Decision] = {}
        self.revocations: Revoker | None = None
        for policy in snapshot.policies:
            self._compile(policy)

    def decide(self, request: Request) -> Decision:
        principal = request.principal
        revoked = self.revocations
        if revoked is not None and revoked.active and (denial := revoked.decide(principal, request.target)) is not None:
            return denial
        if not principal.agent:
            return _LOCAL
        if request.target[0] == "Target":
            return _ROUTED
        key = (principal.agent, request.target)
        grant = self._grants.get(key)
        if grant is not None:
            return grant.decide(request)
        other = self._others.get(key)
        if other is not None:
            return other
        kind, namespace, name = request.target
        return Decision(
            "deny",
            f"agent/{principal.agent}/default-deny",
            f"{kind} {namespace}/{name} is not granted to {principal.title}: add it to the agent's spec",
        )

    def grant(self, principal: Principal, target: Target) -> Grant | None:
        """The compiled grant of an agent on an MCP server; None for people and for what is not granted."""
        return self._grants.get((principal.agent, target))

    def _compile(self, policy: AgentPolicy) -> None:
        agent = f"{policy.namespace}/{policy.name}"
        for grant in policy.tools:
            self._grants[agent, (grant.kind, grant.namespace, grant.name)] = Grant(grant, agent)
        for kind, names in (("Model", policy.models), ("Agent", policy.agents)):
            for full in names:
                namespace, _, name = full.partition("/")
                rule = f"agent/{agent}/{kind.lower()}s/{full}"
                self._others[agent, (kind, namespace, name)] = Decision("allow", rule)


def _name(target: Target) -> str:
    return f"{target[1]}/{target[2]}"


def gateways_own(header: str) -> bool:
    """Whether no server and no grant may set a header: it frames requests, or says what they are about."""
    return header in WRITTEN or header.startswith("mcp-")
