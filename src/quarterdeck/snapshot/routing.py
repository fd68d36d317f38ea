"""Listeners, routes and backends as Gateway API and agentgateway's files describe them, as plain data."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from .policies import Policies


class Endpoint(Struct, frozen=True, omit_defaults=True):
    """Host name or IP address, and port, that an upstream answers at."""

    host: str
    port: int


class PathMatch(Struct, frozen=True, omit_defaults=True):
    """``prefix`` matches whole segments (``/a``: ``/a/b``, not ``/ab``); ``regex`` is RE2 over the whole path."""

    kind: Literal["exact", "prefix", "regex"] = "prefix"
    value: str = "/"


class TextMatch(Struct, frozen=True, omit_defaults=True):
    """A header (lower case) or query parameter."""

    name: str
    value: str
    regex: bool = False


class Match(Struct, frozen=True, omit_defaults=True):
    """All parts must hold."""

    path: PathMatch = PathMatch()
    headers: tuple[TextMatch, ...] = ()
    query: tuple[TextMatch, ...] = ()
    method: str = ""


class Tls(Struct, frozen=True, omit_defaults=True):
    """How a backend is reached."""

    insecure: bool = False
    ca: str = ""
    """PEM; empty: the system's."""
    hostname: str = ""
    """Server name and what its certificate must be for; empty: the address' host."""
    certificate: str = ""
    key: str = ""
    """PEM of the gateway's own (mutual TLS); ``key`` is a secret."""


class HttpBackend(Struct, frozen=True, omit_defaults=True):
    """A plain HTTP service. ``addresses`` empty: nothing runs there now (503)."""

    name: str
    addresses: tuple[Endpoint, ...] = ()
    tls: Tls | None = None
    host: str = ""
    """Host header where the rewrite asks for the backend's own."""


class McpTarget(Struct, frozen=True, omit_defaults=True):
    """One server of an MCP backend: ``server`` is the ``kind/namespace/name`` of one in :attr:`Snapshot.mcp`."""

    name: str
    server: str
    policies: Policies = Policies()


class McpBackend(Struct, frozen=True, omit_defaults=True):
    """One or several MCP servers behind one endpoint."""

    name: str
    targets: tuple[McpTarget, ...] = ()
    prefix: Literal["conditional", "always", "never"] = "conditional"
    stateful: bool = True
    fail_open: bool = False
    """Whether a target that fails is left out of lists, instead of failing them."""
    virtual: str = ""
    """``namespace/name`` of one in :attr:`Snapshot.virtual`: ``targets`` only say the rules of the servers behind it,
    and names and failures are its own matter."""


class RouteBackend(Struct, frozen=True, omit_defaults=True):
    """One destination of a route; exactly one of ``http``, ``mcp``, ``agent``, ``model`` and ``error`` is given."""

    weight: int = 1
    http: HttpBackend | None = None
    mcp: McpBackend | None = None
    agent: str = ""
    """``namespace/name`` of one in :attr:`Snapshot.agents`."""
    model: str = ""
    error: str = ""
    """Why it cannot be served: its share of requests is answered with 500."""
    policies: Policies = Policies()
    """The route's and the backend's own, merged."""


class Mirror(Struct, frozen=True, omit_defaults=True):
    """A copy of the request, whose answer is thrown away."""

    backend: HttpBackend
    percent: float = 100.0


class Route(Struct, frozen=True, omit_defaults=True):
    """One rule of an HTTPRoute, or one route of a file."""

    name: str
    """``namespace/name`` (of the HTTPRoute) or the file's name."""
    rule: str = ""
    hostnames: tuple[str, ...] = ()
    """Empty: every name the listener takes."""
    matches: tuple[Match, ...] = (Match(),)
    policies: Policies = Policies()
    backends: tuple[RouteBackend, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    order: int = 0
    """Decides between equal matches: the lower one wins (age and name in Gateway API, position in a file)."""


class Certificate(Struct, frozen=True, omit_defaults=True):
    """PEM chain and its key (a secret)."""

    chain: str
    key: str


class Listener(Struct, frozen=True, omit_defaults=True):
    """One port of one host name. Several listeners may share a port (told apart by SNI and Host)."""

    name: str
    port: int
    address: str = ""
    """Where to bind; empty: the gateway's own Pod address."""
    protocol: Literal["HTTP", "HTTPS"] = "HTTP"
    hostname: str = ""
    """Exact, ``*.example.org`` or empty for all."""
    certificates: tuple[Certificate, ...] = ()
    public_port: int = 0
    """The port that clients know, where another one leads to ``port``; 0: the same. Redirects name it."""
    gateway: str = ""
    """``namespace/name`` in metrics and records; empty: the snapshot's."""
    client_ca: str = ""
    """PEM: clients must present a certificate of these (mutual TLS)."""
    policies: Policies = Policies()
    """What applies before a route is found (phase gateway)."""
    routes: tuple[Route, ...] = ()


class Child(Struct, frozen=True, omit_defaults=True):
    """A stdio MCP server that the gateway itself runs (files only), behind a bridge process."""

    server: str
    """``kind/namespace/name`` of the entry in :attr:`Snapshot.mcp` it serves."""
    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    clear_env: bool = False
    cwd: str = ""
    """Its working directory; empty: the gateway's."""
