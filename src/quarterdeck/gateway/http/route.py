"""Routes compiled: what a request needs at each step is looked up once, when the snapshot comes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from quarterdeck.errors import ConfigError
from quarterdeck.mcptypes.protocol import H_SESSION
from quarterdeck.snapshot import Backend, Split
from quarterdeck.snapshot.policies import Policies
from quarterdeck.snapshot.routing import HttpBackend, Listener, McpBackend, Route, RouteBackend
from quarterdeck.wire.client import Origin, Pool
from quarterdeck.wire.http import Header

from ..call import Call
from ..mcp.session import lot_of
from ..policy.admission import Known
from ..policy.refusal import Refusal
from ..split import Splitter
from ..upstream import Upstreams
from .call import RouteRef
from .headers import Edit, modifier
from .retry import Budget, Conditions

if TYPE_CHECKING:
    from ..mcp.groups import McpGroup

_PORTS = {False: 80, True: 443}
_LOTS = 256


class RouteChain(Protocol):
    """The rules of one attachment, see ``gateway/policy/chain.py``."""

    @property
    def buffers_response(self) -> bool: ...
    @property
    def edits_response(self) -> bool: ...
    @property
    def well_known(self) -> Callable[[Call, Any, str], Refusal | Coroutine[Any, Any, Refusal]] | None: ...
    def admit(self, call: Call) -> Refusal | Coroutine[Any, Any, Refusal | None] | None: ...
    def known(self, call: Call) -> Known | None: ...
    def admit_known(self, call: Call, known: Known) -> Refusal | None: ...
    def outgoing(self, call: Call, headers: list[Header]) -> list[Header]: ...
    def outgoing_target(self, call: Call, target: bytes) -> bytes: ...
    def request_body(self, call: Call, body: bytes) -> bytes: ...
    def incoming(self, call: Call, status: int, headers: list[Header]) -> list[Header]: ...
    def response_body(self, call: Call, status: int, headers: list[Header], body: bytes) -> bytes: ...


@dataclass(slots=True)
class Building:
    """What routes are compiled with."""

    upstreams: Upstreams
    chain: Callable[[Policies, str], RouteChain]
    """Rules and the name of what they are attached to. Never raises: what cannot be compiled refuses all."""
    group: Callable[[str, McpBackend, Policies], McpGroup]
    """Key and backend. Raises ConfigError for a server that is not in the snapshot."""
    budget: Callable[[str], Budget]
    agents: Mapping[str, Any]
    models: Mapping[str, Any]
    splits: dict[str, Split] = field(default_factory=dict[str, Split])
    """Filled while compiling: by route, how its requests are dealt out."""


class HttpTarget:
    """A plain HTTP service. ``name`` is how metrics, records and messages name it."""

    def __init__(self, backend: HttpBackend, upstreams: Upstreams, where: str) -> None:
        """Raises ConfigError, naming ``where``, when its TLS settings cannot be used."""
        tls = backend.tls
        self.name = backend.name
        self.host = backend.host
        self.secure = tls is not None
        self.addresses: tuple[Origin, ...] = tuple((a.host, a.port, self.secure) for a in backend.addresses)
        self._next = -1
        if tls is None:
            self.pool: Pool = upstreams.pool()
        else:
            self.pool = upstreams.pool(
                insecure=tls.insecure,
                ca_pem=tls.ca,
                authority=tls.hostname,
                certificate=tls.certificate,
                key=tls.key,
                where=where,
            )

    def address(self) -> Origin | None:
        """The next address in turn; None when nothing runs there."""
        if not self.addresses:
            return None
        self._next = (self._next + 1) % len(self.addresses)
        return self.addresses[self._next]

    def authority(self, origin: Origin) -> bytes:
        """Its own Host."""
        if self.host:
            return self.host.encode("latin-1", "replace")
        if origin[0].startswith("/"):
            return b"localhost"
        name = f"[{origin[0]}]" if ":" in origin[0] else origin[0]
        return (name if origin[1] == _PORTS[origin[2]] else f"{name}:{origin[1]}").encode("latin-1", "replace")


class Destination:
    """One backend of a route, with the rules that apply to requests for it."""

    def __init__(self, route: HttpRoute, index: int, backend: RouteBackend, build: Building) -> None:
        where = f"route {route.label} backend {index}"
        self.route = route
        self.policies = policies = backend.policies
        self.error = backend.error
        self.http: HttpTarget | None = None
        self.group: McpGroup | None = None
        self.agent = backend.agent
        self.model = backend.model
        self.kind: Literal["http", "mcp", "a2a", "llm"] = "http"
        self.name = ""
        if backend.http is not None:
            self.http = HttpTarget(backend.http, build.upstreams, where)
            self.name = backend.http.name
        elif backend.mcp is not None:
            self.kind, self.name = "mcp", backend.mcp.name
            self.group = build.group(f"{route.label}#{index}", backend.mcp, policies)
            if len(route.route.backends) > 1 and backend.weight > 0 and index < _LOTS:
                self.group.lot = bytes([index])
        elif backend.agent:
            self.kind, self.name = "a2a", backend.agent
            if backend.agent not in build.agents:
                self.error = f"agent {backend.agent} is not served by this gateway"
        elif backend.model:
            self.kind, self.name = "llm", backend.model
            if backend.model not in build.models:
                self.error = f"model {backend.model} is not served by this gateway"
        elif not backend.error:
            raise ConfigError(f"{where} names no backend")
        self.request_headers: Edit | None = modifier(policies.request_headers, where)
        self.response_headers: Edit | None = modifier(policies.response_headers, where)
        self.chain = route.chain if policies == route.route.policies else build.chain(policies, f"route/{route.label}")
        self.budget = build.budget(route.label) if policies.retry is not None else None
        self.retries = Conditions(policies.retry, where) if policies.retry is not None else None


class Mirrored:
    """Where copies of a route's requests go, and of how many."""

    __slots__ = ("_percent", "_turn", "target")

    def __init__(self, target: HttpTarget, percent: float) -> None:
        self.target = target
        self._percent = percent
        self._turn = 0.0

    def due(self) -> bool:
        """Whether this request is copied: evenly spread, 25 percent are every fourth."""
        self._turn += self._percent
        if self._turn < 100.0:
            return False
        self._turn -= 100.0
        return True


class HttpRoute:
    """A Route compiled for one listener."""

    def __init__(self, route: Route, listener: Listener, gateway: str, build: Building) -> None:
        """Raises ConfigError that names the route and what of it cannot be used."""
        self.route = route
        self.label = f"{route.name}/{route.rule}" if route.rule else route.name
        port = listener.public_port or listener.port
        named = bool(listener.hostname or route.hostnames)
        self.ref = RouteRef(listener.gateway or gateway, listener.name, route.name, route.rule, port, named)
        self.chain = build.chain(route.policies, f"route/{self.label}")
        self.response_headers: Edit | None = modifier(route.policies.response_headers, f"route {self.label}")
        self.destinations = tuple(Destination(self, i, backend, build) for i, backend in enumerate(route.backends))
        self.mirrors = tuple(
            Mirrored(HttpTarget(m.backend, build.upstreams, f"route {self.label} mirror"), m.percent)
            for m in route.mirrors
        )
        self._splitter: Splitter | None = None
        self._only = self.destinations[0] if len(self.destinations) == 1 and route.backends[0].weight > 0 else None
        self.split_key = f"{listener.name}|{self.label}"
        if self._only is None and any(backend.weight > 0 for backend in route.backends):
            deal = tuple(Backend(str(i), weight=backend.weight) for i, backend in enumerate(route.backends))
            build.splits[self.split_key] = Split(deal, strict=True)
        self._homes = {d.group.lot[0]: d for d in self.destinations if d.group is not None and d.group.lot}
        """Where sessions began, by what their tokens begin with."""

    def dealt_by(self, splitter: Splitter | None) -> None:
        self._splitter = splitter

    @property
    def sole(self) -> bool:
        """Whether all of its requests go to one backend."""
        return self._only is not None

    def choose(self, headers: Mapping[bytes, bytes]) -> Destination | None:
        """The backend where the session began, else the one whose turn it is by weight; None when none has any."""
        if self._only is not None:
            return self._only
        if self._homes:
            session = headers.get(H_SESSION)
            home = self._homes.get(lot_of(session)) if session else None
            if home is not None:
                return home
        if self._splitter is None:
            return None
        return self.destinations[int(self._splitter.choose(headers, {}).name)]
