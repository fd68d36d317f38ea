"""The listeners of a snapshot compiled: by port, then by host name."""

from __future__ import annotations

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot import Snapshot
from quarterdeck.snapshot.policies import Policies
from quarterdeck.snapshot.routing import Listener
from quarterdeck.wire.http import Exchange
from quarterdeck.wire.tls import ListenerTls, NamedContext, by_name

from .call import RouteRef
from .matching import RouteTable
from .route import Building, HttpRoute, RouteChain

PortKey = tuple[str, int]
"""address (empty: the gateway's own) and port; port 0 takes a free one for all listeners that say so"""


class HttpListener:
    """One listener: its host name, the rules that apply before a route is found, and its routes."""

    def __init__(self, listener: Listener, gateway: str, build: Building) -> None:
        """Raises ConfigError that names the listener, or the route of it, that cannot be used."""
        self.listener = listener
        self.name = listener.name
        self.hostname = listener.hostname.lower()
        port = listener.public_port or listener.port
        self.ref = RouteRef(listener.gateway or gateway, listener.name, port=port)
        self.chain: RouteChain | None = None
        if listener.policies != Policies():
            self.chain = build.chain(listener.policies, f"listener/{listener.name}")
        self.routes = [HttpRoute(route, listener, gateway, build) for route in listener.routes]
        self.table = RouteTable(self.routes)

    def shook_hands(self, exchange: Exchange) -> bool:
        """Whether the TLS handshake was for this listener, and showed the certificate it asks for."""
        context = exchange.tls
        if not isinstance(context, NamedContext) or context.name != self.hostname:
            return False
        wanted = self.listener.client_ca
        return not wanted or (context.client_ca == wanted and bool(exchange.peer_certificate))


class Port:
    """All listeners of one port."""

    def __init__(self, key: PortKey, secure: bool) -> None:
        self.key = key
        self.secure = secure
        self.scheme = "https" if secure else "http"
        self.listeners: dict[str, HttpListener] = {}
        """By host name."""
        self.tls: dict[str, ListenerTls] = {}
        self.only: HttpListener | None = None
        """The listener, when it is the only one and takes all names."""
        self.max_body = 0
        """The most that any of its routes takes, in bytes."""

    @property
    def names(self) -> list[str]:
        return [listener.name for listener in self.listeners.values()]

    def listener(self, host: str) -> HttpListener | None:
        """The most specific listener for a host name."""
        return self.only or by_name(self.listeners, host)

    def add(self, listener: HttpListener) -> None:
        self.listeners[listener.hostname] = listener
        self.only = self.listeners[""] if list(self.listeners) == [""] else None
        policies = [listener.listener.policies, *(route.route.policies for route in listener.routes)]
        policies += [d.policies for route in listener.routes for d in route.destinations]
        self.max_body = max(self.max_body, *(p.max_body for p in policies))


class Compiled:
    """The ports of a snapshot, and what keeps some of its listeners from being served (by listener name)."""

    def __init__(self) -> None:
        self.ports: dict[PortKey, Port] = {}
        self.problems: dict[str, str] = {}

    @property
    def routes(self) -> list[HttpRoute]:
        listeners = [listener for port in self.ports.values() for listener in port.listeners.values()]
        return [route for listener in listeners for route in listener.routes]


def compile_listeners(snapshot: Snapshot, build: Building) -> Compiled:
    """Raises ConfigError when a route cannot be used: to leave it out could give its requests to a laxer one."""
    made = Compiled()
    for spec in snapshot.listeners:
        key = (spec.address, spec.port)
        secure = spec.protocol == "HTTPS"
        port = made.ports.get(key)
        if port is None:
            port = made.ports[key] = Port(key, secure)
        taken = port.listeners.get(spec.hostname.lower())
        if port.secure != secure:
            made.problems[spec.name] = f"port {spec.port} serves {port.scheme} for listener {port.names[0]} already"
            continue
        if taken is not None:
            made.problems[spec.name] = f"listener {taken.name} has the same port and host name"
            continue
        listener = HttpListener(spec, snapshot.gateway, build)
        if secure:
            certificates = tuple((c.chain, c.key) for c in spec.certificates)
            try:
                port.tls[listener.hostname] = ListenerTls(
                    listener.hostname, certificates, spec.client_ca, where=f"listener {spec.name}"
                )
            except ConfigError as error:
                made.problems[spec.name] = str(error)
                port.tls[listener.hostname] = ListenerTls.unusable()
        port.add(listener)
    return made
