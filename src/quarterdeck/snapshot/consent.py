"""What tool calls need people's approval: rules as the gateway reads them, and what is said between it and the control
plane about one call."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

MATCHING = "ApprovalPolicy"
REQUIRED = "requireApproval"
"""First part of a rule's name when it is kagent's ``requireApproval`` of an Agent."""

State = Literal["Pending", "Approved", "Denied", "Expired", "Consumed", "Void"]


class ServerPattern(Struct, frozen=True, omit_defaults=True):
    """An MCP server; empty parts match any."""

    name: str = ""
    namespace: str = ""
    kind: str = ""

    def matches(self, kind: str, namespace: str, name: str) -> bool:
        return (
            self.name in ("", name) and self.namespace in ("", namespace) and self.kind in ("", kind)
        )  # fmt: skip


class ApprovalRule(Struct, frozen=True, omit_defaults=True):
    """One ApprovalPolicy. ``expires`` is in seconds."""

    name: str
    """``ApprovalPolicy/NAMESPACE/NAME``."""
    servers: tuple[ServerPattern, ...]
    tools: tuple[str, ...] = ()
    """Empty: all. ``*`` at the end stands for any rest."""
    when: str = ""
    """CEL over arguments, tool, server, agent, user; empty: always."""
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """Who may approve; both empty: whom Kubernetes RBAC lets."""
    required: int = 1
    requester: bool = False
    """Whether the requester counts."""
    expires: float = 3600.0
    description: str = ""

    def governs(self, kind: str, namespace: str, name: str) -> bool:
        return any(pattern.matches(kind, namespace, name) for pattern in self.servers)

    def names(self, tool: str) -> bool:
        """Whether the tool is one of those it is about; there are servers that read names whatever their case."""
        plain = tool.strip().casefold()
        wanted = [one.casefold() for one in self.tools]
        return not wanted or any(plain.startswith(one[:-1]) if one.endswith("*") else plain == one for one in wanted)


class Requester(Struct, frozen=True, omit_defaults=True):
    """The user for whom a call is made. ``names``: other names of the same person (claims of the verified token)."""

    id: str = ""
    names: tuple[str, ...] = ()

    def known_as(self) -> frozenset[str]:
        return frozenset(name for name in (self.id, *self.names) if name)


class Wanted(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One call, as the gateway saw it; ``POST /v1/approvals``, and what is shown again when it is to be sent."""

    kind: str
    namespace: str
    server: str
    tool: str
    arguments_hash: str
    principal: str
    """Who calls, as audit records name it."""
    rules: tuple[str, ...] = ()
    """Names of the rules that demand the approval."""
    agent: str = ""
    requester: Requester = Requester()
    run: str = ""
    step: int = 0
    session: str = ""
    """Of callers without a run: digest of their MCP session."""
    task: str = ""
    """A2A task in which the call is made, as ``NAMESPACE/AGENT#ID``: where the requester may answer."""
    arguments: dict[str, Any] | None = None


class Ticket(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What the control plane says of an approval."""

    approval: str
    """``namespace/name``."""
    state: State
    arguments_hash: str
    expires_at: str
    """RFC 3339."""
    reason: str = ""
    by: tuple[str, ...] = ()


VARIABLES = frozenset({"arguments", "tool", "server", "agent", "user"})
"""What ``when`` reads: an object, and names (``server`` is ``namespace/name``; agent and user may be empty)."""
