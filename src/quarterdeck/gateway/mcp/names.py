"""Names on the aggregated ``/mcp``: ``{server}_{tool}``, outside the default namespace ``{ns}-{server}_{tool}``.

So adding a server never renames a tool. Where two servers would get one prefix, the later one (in the order of kind and
namespace) gets its kind in front.
"""

from __future__ import annotations

from collections.abc import Iterable

from .route import McpRoute


class Names:
    """Prefixes of servers, both ways."""

    def __init__(self, servers: Iterable[McpRoute], default_namespace: str) -> None:
        self._by_prefix: dict[str, McpRoute] = {}
        self.routes: list[tuple[str, McpRoute]] = []
        members = [r for r in servers if r.server.prefixed]
        for route in sorted(members, key=lambda r: r.server.namespace != default_namespace):
            server = route.server
            prefix = server.name if server.namespace == default_namespace else f"{server.namespace}-{server.name}"
            if prefix in self._by_prefix:
                prefix = f"{server.kind.lower()}-{prefix}"
            if prefix not in self._by_prefix:
                self._by_prefix[prefix] = route
                self.routes.append((prefix, route))
        self.routes.sort(key=lambda pair: pair[0])

    def resolve(self, name: str, separator: str = "_") -> tuple[McpRoute, str] | None:
        """The server and its own name for ``prefix + separator + name``; the longest known prefix wins."""
        at = len(name)
        while (at := name.rfind(separator, 0, at)) > 0:
            route = self._by_prefix.get(name[:at])
            if route is not None:
                return route, name[at + 1 :]
        return None
