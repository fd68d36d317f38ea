"""A snapshot compiled for serving. Replaced as a whole: a call runs to its end on the table it began with."""

from __future__ import annotations

from quarterdeck.snapshot import Agent, Snapshot

from .llm.route import ModelRoute
from .mcp.route import McpRoute
from .policy.authentication import Authenticator
from .policy.authorizer import Authorizer
from .split import Splits
from .upstream import Upstreams

_RANK = {"MCPServer": 0, "RemoteMCPServer": 1, "Service": 2, "Target": 3}


class Table:
    """Who may call, what, and where it is."""

    def __init__(self, snapshot: Snapshot, upstreams: Upstreams, splits: Splits | None = None) -> None:
        """Raises ConfigError when the snapshot cannot be served as written."""
        self.snapshot = snapshot
        self.authenticator = Authenticator(snapshot.identities)
        self.authorizer = Authorizer(snapshot)
        self.servers: list[McpRoute] = []
        """In the order of the aggregated lists."""
        self.mcp: dict[bytes, McpRoute] = {}
        """By path: ``/mcp/{ns}/{name}`` is the MCPServer; others of that name are ``/mcp/{ns}/{kind}.{name}``."""
        self.targets: dict[str, McpRoute] = {}
        """By ``kind/namespace/name``: every server, those that only routes name included."""
        for server in sorted(snapshot.mcp, key=lambda s: (s.namespace, s.name, _RANK[s.kind])):
            route = McpRoute(server, self.authorizer, upstreams)
            self.targets[f"{server.kind}/{server.namespace}/{server.name}"] = route
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
        self.splitters = (splits or Splits()).compile(
            {label: agent.split for label, agent in self.agents.items() if agent.split is not None}
        )
        """By ``namespace/name``: agents with more than one track."""

    @property
    def default_model(self) -> ModelRoute | None:
        """The model of ``/v1/…`` requests that name none."""
        return self.models.get(f"{self.snapshot.default_namespace}/default-model-config")
