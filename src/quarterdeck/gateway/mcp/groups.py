"""MCP servers behind one endpoint, and what clients call their tools, prompts, resources and tasks there.

With prefixes a tool or prompt is ``{member}_{name}``, a resource or template ``{member}+{uri}``, a resource of MCP Apps
``ui://{member}+{rest}`` and a task ``{member}+{id}``. Reference: agentgateway_and_peers.md §2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot.policies import Policies
from quarterdeck.snapshot.routing import McpBackend

from ..policy.principal import Principal
from .route import McpRoute

if TYPE_CHECKING:
    from ..http.call import RouteRef
    from .virtual import View

Prefix = Literal["conditional", "always", "never"]
_UI = "ui://"
_BINDINGS = 10_000


class Member:
    """One server of a group. ``chain`` decides by the rules of its target; None where there are none."""

    __slots__ = ("chain", "contested", "limits", "mark", "name", "policies", "route", "shown")

    def __init__(self, name: str, route: McpRoute, chain: Any = None, policies: Policies | None = None) -> None:
        self.name = name
        self.route = route
        self.chain = chain
        self.policies = policies
        """The target's; None on the built-in paths."""
        self.limits: Any = None
        """Limits and breakers of this server, filled in when it is first called."""
        self.contested = False
        """Whether some of its names could read as another member's."""
        self.shown = ""
        """The prefix without its separator; empty where names pass as they are. Set by the group."""
        self.mark = ""
        """The same in ids, which are marked wherever there are several servers."""

    def name_out(self, name: str) -> str:
        """A tool's or prompt's name as clients see it."""
        return f"{self.shown}_{name}" if self.shown else name

    def uri_out(self, uri: str) -> str:
        """A resource's URI, or URI template, as clients see it."""
        if not self.shown:
            return uri
        return f"{_UI}{self.shown}+{uri[5:]}" if uri.startswith(_UI) else f"{self.shown}+{uri}"

    def task_out(self, task: str) -> str:
        return f"{self.mark}+{task}" if self.mark else task


class McpGroup:
    """Members in the order of their names, and the way from a client's name to a member's own.

    ``key`` is unique and the same on all replicas: session tokens are bound to it, and peers find the group by it.
    """

    def __init__(
        self,
        key: str,
        backend: McpBackend,
        targets: Mapping[str, McpRoute],
        chains: Callable[[Policies], Any] | None = None,
    ) -> None:
        """Raises ConfigError for a target that names no server of the snapshot."""
        members: list[Member] = []
        for target in backend.targets:
            route = targets.get(target.server)
            if route is None:
                raise ConfigError(f"MCP backend {backend.name}: target {target.name}: no server {target.server}")
            chain = chains(target.policies) if chains is not None else None
            members.append(Member(target.name, route, chain, target.policies))
        self._fill(key, backend.name, members, backend.prefix)
        self.stateful = backend.stateful
        self.fail_open = backend.fail_open

    @classmethod
    def of(cls, key: str, members: Sequence[Member], prefix: Prefix = "conditional") -> McpGroup:
        """A group of the built-in paths: one dead server does not fail the others."""
        group = cls.__new__(cls)
        group._fill(key, key, members, prefix)
        group.stateful = True
        group.fail_open = True
        return group

    def _fill(self, key: str, name: str, members: Sequence[Member], prefix: Prefix) -> None:
        self.key = key
        self.name = name
        self.edition = key
        """The key, or what tells this configuration of the group from others: what is remembered of names is its."""
        self.stateful = True
        self.fail_open = False
        self.sse = True
        """Whether HTTP+SSE of 2024-11-05 is served at ``…/sse``."""
        self.policies = Policies()
        """The rules of its route."""
        self.view: View | None = None
        """What a virtual server shows of its members; None for all other groups."""
        self.ref: RouteRef | None = None
        """How records and metrics name a virtual server's built-in path."""
        self.lot = b""
        """What its session tokens begin with where a route deals requests out among several groups."""
        self.limited = False
        """Whether the members' limits are there."""
        self.members = tuple(sorted(members, key=lambda member: member.name))
        self.prefixed = prefix == "always" or (prefix == "conditional" and len(members) != 1)
        self.searched = not self.prefixed and len(self.members) != 1
        """Whether a name does not tell whose it is, so that the members' lists have to."""
        self.single = self.members[0] if len(self.members) == 1 and not self.prefixed else None
        """The only member, when names pass through untouched."""
        self.by_name = {member.name: member for member in self.members}
        self.doors = any(member.route.door is not None for member in self.members)
        """Whether users sign in at some of them."""
        self._bindings: dict[str, bytes] = {}
        for member in self.members:
            member.shown = member.name if self.prefixed else ""
            member.contested = self.prefixed and any(m.name.startswith(f"{member.name}_") for m in self.members)
            member.mark = member.name if self.single is None else ""

    def binding(self, principal: Principal) -> bytes:
        """What a session token is bound to: this group and this caller."""
        binding = self._bindings.get(principal.id)
        if binding is None:
            if len(self._bindings) >= _BINDINGS:
                self._bindings.clear()
            caller = f"agent:{principal.agent}" if principal.on_behalf_of else principal.id
            binding = self._bindings[principal.id] = f"{self.key}|{caller}".encode()
        return binding

    def name_in(self, name: str) -> tuple[Member, str] | None:
        """The member, and its own name, of a tool or prompt. Only where names have prefixes, or there is one member."""
        return self._split(name, "_")

    def tool_in(self, name: str) -> tuple[Member, str] | None:
        """The same of a tool."""
        return self._split(name, "_")

    def owns(self, member: Member, name: str) -> bool:
        """Whether a tool or prompt of a member can be called by the name it is shown under: no other has the name."""
        if not member.contested:
            return True
        found = self.name_in(member.name_out(name))
        return found is not None and found[0] is member

    def uri_in(self, uri: str) -> tuple[Member, str] | None:
        """The member, and its own URI, of a resource."""
        if not uri.startswith(_UI) or self.single is not None:
            return self._split(uri, "+")
        found = self._split(uri[5:], "+")
        return (found[0], _UI + found[1]) if found is not None else None

    def task_in(self, task: str) -> tuple[Member, str] | None:
        """The member, and its own id, of a task."""
        return self._split(task, "+", marked=True)

    def _split(self, text: str, separator: str, *, marked: bool = False) -> tuple[Member, str] | None:
        """The longest known prefix wins, so a member whose name holds the separator is found, too."""
        if self.single is not None:
            return self.single, text
        if not self.prefixed and not marked:
            return None
        at = len(text)
        while (at := text.rfind(separator, 0, at)) > 0:
            member = self.by_name.get(text[:at])
            if member is not None:
                return member, text[at + 1 :]
        return None


def aggregate(servers: Iterable[McpRoute], default_namespace: str) -> McpGroup:
    """The group of the built-in ``/mcp``: ``{server}_{tool}``, outside the default namespace ``{ns}-{server}_{tool}``.

    Adding a server never renames a tool. Where two servers would get one prefix, the later one (in the order of kind
    and namespace) gets its kind in front.
    """
    members: dict[str, Member] = {}
    ours = [route for route in servers if route.server.prefixed]
    for route in sorted(ours, key=lambda r: r.server.namespace != default_namespace):
        server = route.server
        prefix = server.name if server.namespace == default_namespace else f"{server.namespace}-{server.name}"
        if prefix in members:
            prefix = f"{server.kind.lower()}-{prefix}"
        members.setdefault(prefix, Member(prefix, route))
    return McpGroup.of("mcp", list(members.values()), "always")


def alone(route: McpRoute) -> McpGroup:
    """The group of the built-in path of one server."""
    server = route.server
    key = f"mcp/{server.namespace}/{server.kind.lower()}.{server.name}"
    group = route.group = McpGroup.of(key, [Member(server.name, route)])
    return group
