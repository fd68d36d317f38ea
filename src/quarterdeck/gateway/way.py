"""The way of a request that others with the very same head went before: what it needs is known, and not asked again.

Kept in :attr:`~quarterdeck.wire.seen.Head.memo`. It holds for one configuration, and only for what the head alone
decides: a credential that is still good, the route, rules that read nothing else. What is counted or written down is
so for each request as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .policy.authorizer import Decision
from .policy.principal import Principal

if TYPE_CHECKING:
    from .http.listeners import HttpListener
    from .http.route import Destination
    from .mcp.groups import McpGroup, Member
    from .mcp.session import Session
    from .policy.admission import Known
    from .table import Table

_DECISIONS, _LONGEST = 64, 128
"""Decisions of one head that are kept, and letters of the names in them: callers choose heads and names."""


class Way:
    """To a group of MCP servers, for one caller. ``holds()``: whether its credential is still good."""

    __slots__ = (
        "_decisions", "_methods", "group", "holds", "opened", "principal", "routed", "session", "sound", "table",
    )  # fmt: skip

    def __init__(self, table: Table, group: McpGroup, principal: Principal, holds: Callable[[], bool]) -> None:
        self.table = table
        self.group = group
        self.principal = principal
        self.holds = holds
        self.routed: Routed | None = None
        """By which route; None on built-in paths."""
        self.session: Session | None = None
        """What the head's session token holds, as :attr:`opened`, a generation of keys, could tell."""
        self.opened = 0
        self.sound = False
        """Whether the head was found to be that of a message (and not of a stream, or no JSON)."""
        self._decisions: dict[tuple[Member, str, str], Decision] = {}
        self._methods: dict[tuple[Member, str], Decision] = {}

    def decided(self, member: Member, tool: str, exposed: str) -> Decision | None:
        """What was decided on calls of a tool; None when it has to be (again)."""
        return self._decisions.get((member, tool, exposed))

    def decided_on(self, member: Member, method: str) -> Decision | None:
        """The same of a request that names nothing: lists, and what goes to all servers."""
        return self._methods.get((member, method))

    def remember_on(self, member: Member, method: str, decision: Decision) -> None:
        """Keep what caller and head alone have led to."""
        if len(method) <= _LONGEST and len(self._methods) < _DECISIONS:
            self._methods[member, method] = decision

    def remember(self, member: Member, tool: str, exposed: str, decision: Decision) -> None:
        """Keep a decision that caller, head and names alone have led to."""
        if len(tool) > _LONGEST or len(exposed) > _LONGEST:
            return
        if len(self._decisions) >= _DECISIONS:
            self._decisions.clear()
        self._decisions[member, tool, exposed] = decision


class Routed:
    """What a listener and a route found out. ``target``: path and query in the form that was matched."""

    __slots__ = ("destination", "known", "listener", "target")

    def __init__(self, listener: HttpListener, destination: Destination, known: Known, target: bytes) -> None:
        self.listener = listener
        self.destination = destination
        self.known = known
        self.target = target
