"""An MCP server as the gateway sees it: compiled once per snapshot, so that a call only looks things up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quarterdeck.mcptypes import protocol
from quarterdeck.snapshot import McpServer
from quarterdeck.wire.client import Origin, Pool

from ..call import header_lines
from ..policy.authorizer import Authorizer, Decision, Grant, Request, Target, gateways_own
from ..policy.principal import Principal
from ..upstream import Upstreams

if TYPE_CHECKING:
    from ..consent import Consent
    from ..oauth.conversation import Door
    from ..pins import Pins
    from .groups import McpGroup
    from .openapi import Operation


Start = tuple[str, Origin, bytes | None, bytes | None, str]
"""method, origin, accept, protocol version and session of a request"""

_LANES = 10_000
"""Callers of one server whose grants are remembered."""
_STARTS = 256
_START_BYTES = 2048
"""Bounds of what is remembered per lane: callers choose the accept header."""


class Lane:
    """One principal on one server: its grant, and the header lines that every one of its requests starts with."""

    __slots__ = ("authorizer", "binding", "forward", "grant", "headers", "principal", "starts", "target")

    def __init__(
        self, route: McpRoute, principal: Principal, authorizer: Authorizer, target: Target | None = None
    ) -> None:
        """``target``: what has to be granted, where it is not the server itself."""
        self.principal = principal
        self.target = target or route.target
        self.authorizer = authorizer
        self.grant: Grant | None = authorizer.grant(principal, self.target)
        self.binding = f"{'/'.join(route.target)}|{principal.id}".encode()
        self.forward: tuple[bytes, ...] = ()
        self.starts: dict[Start, bytes] = {}
        """First lines of request heads already put together."""
        headers = route.headers
        if self.grant is not None:
            won = {h.name.lower() for h in self.grant.headers}
            headers = tuple(h for h in headers if h.name.lower() not in won) + self.grant.headers
            self.forward = tuple(name.encode() for name in self.grant.allowed_headers)
        self.headers = route.host_line + header_lines(headers)

    def remember(self, key: Start, head: bytes) -> bytes:
        """Keep the first lines of a request head for the next call like it."""
        if len(head) <= _START_BYTES:
            if len(self.starts) >= _STARTS:
                self.starts.clear()
            self.starts[key] = head
        return head

    def decide(self, method: str, name: str = "") -> Decision:
        return self.authorizer.decide(Request(self.principal, self.target, method, name))

    def shows(self, tool: str) -> bool:
        """Whether a tool appears in lists: those that need approval do, denied ones do not."""
        return self.decide(protocol.TOOLS_CALL, tool).verdict != "deny"

    @property
    def filters(self) -> bool:
        return self.grant is not None and self.grant.tools is not None


class McpRoute:
    """One server. ``label`` is how metrics, audit and messages name it."""

    def __init__(self, server: McpServer, authorizer: Authorizer, upstreams: Upstreams) -> None:
        self.server = server
        self.target: Target = (server.kind, server.namespace, server.name)
        self.label = f"{server.namespace}/{server.name}"
        self.pool: Pool = upstreams.pool(
            insecure=server.tls_insecure,
            ca_pem=server.tls_ca,
            authority=server.authority,
            system=server.tls_system,
            where=self.label,
        )
        self.headers = tuple(h for h in server.headers if not gateways_own(h.name.lower()))
        self.path = (server.path or "/").encode()
        self.host_line = f"host: {server.authority}\r\n".encode() if server.authority else b""
        self._authorizer = authorizer
        self._lanes: dict[str, Lane] = {}
        self._next = 0
        self._origins: dict[tuple[str, int], Origin] = {
            (e.host, e.port): (e.host, e.port, server.tls) for e in server.endpoints
        }
        self.modern_until = 0.0
        """Until when (monotonic) the server is known to speak 2026-07-28."""
        self.door: Door | None = None
        """Its users' sign-ins, where they have to."""
        if server.sign_in is not None and upstreams.sign_ins is not None:
            self.door = upstreams.sign_ins.door(server)
        self.plain = server.protocol == "STREAMABLE_HTTP" and server.openapi is None and server.sign_in is None
        """Whether it is spoken to as clients speak to us; others need the gateway to translate."""
        self.reachable = bool(server.endpoints)
        self.changes = 0
        """How often the server said that a list of its changed, as far as this process heard."""
        self.operations: dict[str, Operation] | None = None
        """Of an API: its tools, compiled when they are first needed."""
        self.consent: Consent | None = None
        """Which of its calls people must approve; None: none but those that grants say."""
        self.pins: Pins | None = None
        """What was approved of its tools; None: no tool is held to anything."""
        self.group: McpGroup = None  # type: ignore[assignment]  # set when the table is compiled
        """The group of the server's built-in path."""

    def lane(self, principal: Principal) -> Lane:
        lane = self._lanes.get(principal.id)
        if lane is None:
            if len(self._lanes) >= _LANES:
                self._lanes.clear()
            lane = self._lanes[principal.id] = self.make_lane(principal)
        return lane

    def make_lane(self, principal: Principal) -> Lane:
        return Lane(self, principal, self._authorizer)

    def origin(self, host: str = "", port: int = 0) -> Origin | None:
        """The next address in turn, or the one a session lives at; None when there is none (any more)."""
        if host:
            return self._origins.get((host, port))
        if not self._origins:
            return None
        endpoints = self.server.endpoints
        self._next = (self._next + 1) % len(endpoints)
        endpoint = endpoints[self._next]
        return self._origins[endpoint.host, endpoint.port]

    @property
    def remedy(self) -> str:
        """The next step when the server cannot be reached."""
        if self.server.kind == "Target":
            return f"see target {self.server.name} of the MCP backend"
        plural = {"MCPServer": "mcpserver", "RemoteMCPServer": "remotemcpserver"}.get(self.server.kind, "service")
        return f"see: kubectl describe {plural} {self.server.name} -n {self.server.namespace}"
