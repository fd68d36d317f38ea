"""A snapshot compiled for serving. Replaced as a whole: a call runs to its end on the table it began with."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot import Agent, Snapshot, Split
from quarterdeck.snapshot.merge import merged
from quarterdeck.snapshot.policies import Policies
from quarterdeck.snapshot.routing import McpBackend

from .consent import Consents
from .http.listeners import Compiled, compile_listeners
from .http.retry import Budgets
from .http.route import Building, RouteChain
from .llm.route import ModelRoute
from .mcp.groups import McpGroup, aggregate, alone
from .mcp.route import McpRoute
from .mcp.virtual import VirtualGroup
from .policy.authentication import Authenticator
from .policy.authorizer import Authorizer
from .split import Splits
from .upstream import Upstreams

if TYPE_CHECKING:
    from .policy.services import Services

_RANK = {"MCPServer": 0, "RemoteMCPServer": 1, "Service": 2, "Target": 3}


class Table:
    """Who may call, what, and where it is."""

    def __init__(
        self,
        snapshot: Snapshot,
        upstreams: Upstreams,
        splits: Splits | None = None,
        services: Services | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        """``services`` is what the rules of listeners need; without it only the built-in paths are served.

        Raises ConfigError when the snapshot cannot be served as written.
        """
        self.snapshot = snapshot
        clock = services.clock if services is not None else time
        self.authenticator = Authenticator(snapshot.identities, clock, snapshot.permit_keys)
        self.authorizer = Authorizer(snapshot)
        self.servers: list[McpRoute] = []
        """In the order of the aggregated lists."""
        self.mcp: dict[bytes, McpRoute] = {}
        """By path: ``/mcp/{ns}/{name}`` is the MCPServer; others of that name are ``/mcp/{ns}/{kind}.{name}``."""
        self.targets: dict[str, McpRoute] = {}
        """By ``kind/namespace/name``: every server, those that only routes name included."""
        consents = Consents(snapshot)
        for server in sorted(snapshot.mcp, key=lambda s: (s.namespace, s.name, _RANK[s.kind])):
            route = McpRoute(server, self.authorizer, upstreams)
            self.targets[f"{server.kind}/{server.namespace}/{server.name}"] = route
            route.consent = consents.of(route)
            if server.kind == "Target":
                continue
            self.servers.append(route)
            self.mcp.setdefault(f"/mcp/{server.namespace}/{server.name}".encode(), route)
            self.mcp[f"/mcp/{server.namespace}/{server.kind.lower()}.{server.name}".encode()] = route
        self.asleep = [route for route in self.servers if route.server.wake and not route.server.endpoints]
        """Servers scaled to zero that can be woken."""
        self.models: dict[str, ModelRoute] = {
            f"{m.namespace}/{m.name}": ModelRoute(m, upstreams) for m in snapshot.models
        }
        self.agents: dict[str, Agent] = {f"{a.namespace}/{a.name}": a for a in snapshot.agents}
        self.hooks = frozenset(snapshot.hooks)
        self.groups: dict[str, McpGroup] = {}
        """All MCP groups by the key that their sessions are bound to: built-in paths, MCP backends of routes."""
        for group in (*map(alone, self.servers), aggregate(self.servers, snapshot.default_namespace)):
            self.groups[group.key] = group
        self.virtual: dict[bytes, VirtualGroup] = {}
        """By path, as :attr:`mcp`; the short one is a server's of that name, where there is one."""
        for virtual in snapshot.virtual:
            path = f"/mcp/{virtual.namespace}/virtualserver.{virtual.name}"
            group = VirtualGroup(path[1:], virtual, self.targets, self.authorizer)
            self.virtual[path.encode()] = self.groups[group.key] = group
            self.virtual[f"/mcp/{virtual.namespace}/{virtual.name}".encode()] = group
        self._virtual = {f"{virtual.namespace}/{virtual.name}": virtual for virtual in snapshot.virtual}
        self._backends: dict[str, tuple[McpBackend, Policies]] = {}
        self._services = services
        self.listeners = Compiled()
        """What is served on the snapshot's own ports."""
        deals = {label: agent.split for label, agent in self.agents.items() if agent.split is not None}
        if services is not None and snapshot.listeners:
            deals |= self._compile_listeners(upstreams, services, budgets or Budgets())
        self.splitters = (splits or Splits()).compile(deals)
        """By ``namespace/name`` agents with more than one track, and by their key routes with several backends."""
        for route in self.listeners.routes:
            route.dealt_by(self.splitters.get(route.split_key))

    def _compile_listeners(self, upstreams: Upstreams, services: Services, budgets: Budgets) -> dict[str, Split]:
        from .policy.chain import chain_for

        def chain(policies: Policies, where: str) -> RouteChain:
            final = not where.startswith("listener/")
            return chain_for(policies, services, where=where, authenticator=self.authenticator, final=final)

        build = Building(upstreams, chain, self._group, budgets.get, self.agents, self.models)
        self.listeners = compile_listeners(self.snapshot, build)
        return build.splits

    def _group(self, key: str, backend: McpBackend, rules: Policies) -> McpGroup:
        """Compile an MCP backend; ``rules`` are its route's. One that several listeners serve alike is one group."""
        from .policy.chain import mcp_chain

        targets = tuple(msgspec.structs.replace(t, policies=_below(rules, t.policies)) for t in backend.targets)
        backend = msgspec.structs.replace(backend, targets=targets)
        before = self._backends.get(key)
        if before is not None:
            if before == (backend, rules):
                return self.groups[key]
            key = f"{key}@{len(self.groups)}"  # the same route, by other rules
        self._backends[key] = (backend, rules)
        services = self._services
        assert services is not None

        def chains(policies: Policies) -> Any:
            return mcp_chain(policies, services, f"route/{key}")

        if backend.virtual:
            virtual = self._virtual.get(backend.virtual)
            if virtual is None:
                raise ConfigError(f"MCP backend {backend.name}: no virtual server {backend.virtual}")
            group = VirtualGroup(key, virtual, self.targets, self.authorizer, chains, backend.targets)
            group.stateful = backend.stateful
        else:
            group = McpGroup(key, backend, self.targets, chains)
        group.policies = rules
        self.groups[key] = group
        return group

    @property
    def default_model(self) -> ModelRoute | None:
        """The model of ``/v1/…`` requests that name none."""
        return self.models.get(f"{self.snapshot.default_namespace}/default-model-config")


def _below(outer: Policies, inner: Policies) -> Policies:
    """A target's rules with those around it; sets of rules that are in both count once."""
    rules = merged(outer, inner)
    sets = tuple(dict.fromkeys(rules.mcp_authorization))
    return msgspec.structs.replace(rules, mcp_authorization=sets)
