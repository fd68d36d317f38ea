"""The way in: all Gateway API objects of a cluster to what each gateway serves, and to what is said of each object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from quarterdeck.errors import ConfigError
from quarterdeck.resources.gateway_api.gateway import GatewaySpec
from quarterdeck.snapshot import McpServer, Snapshot
from quarterdeck.snapshot.routing import Listener
from quarterdeck.snapshot.virtual import KIND as VIRTUAL

from .attach_policies import Index
from .backends import Backends
from .listeners import ListenerState, assign_ports, listener_states
from .routes import Parent, Routes
from .status import GatewayStatus, ListenerStatus, Problem, Statuses, Verdict, accepted, refused
from .world import GatewayWorld, by_age, key_of

_NO_LISTENERS = Problem("ListenersNotValid", "no listener can be served; see the listeners' conditions")


@dataclass(slots=True)
class Served:
    """What one Gateway adds to the snapshot of the process that serves it."""

    listeners: tuple[Listener, ...] = ()
    servers: tuple[McpServer, ...] = ()
    """Targets of its routes' backends."""
    used: frozenset[str] = frozenset()
    """``kind/namespace/name`` of all MCP servers its routes lead to, virtual ones and those behind them."""
    ports: dict[int, int] = field(default_factory=dict[int, int])
    """Port of the Gateway to the one that is bound."""


@dataclass(slots=True)
class Result:
    gateways: dict[tuple[str, str], Served]
    """By namespace and name."""
    statuses: Statuses


def compile_gateways(world: GatewayWorld) -> Result:
    """Deterministic. What cannot be used is told so in its status, and answers 500 where it is routed to."""
    index = Index(world)
    backends = Backends(world, index)
    statuses = Statuses()
    parents = _parents(world, statuses)
    routes = Routes(world, index, backends, parents)
    for place, obj in enumerate(by_age(world.http_routes)):
        if found := routes.http(obj, place):
            statuses.routes["HTTPRoute", *key_of(obj)] = found
    for obj in world.grpc_routes:
        if found := routes.grpc(obj):
            statuses.routes["GRPCRoute", *key_of(obj)] = found
    served = {key: _served(parent, index, backends) for key, parent in parents.items()}
    for key, parent in parents.items():
        statuses.gateways[key] = _gateway_status(parent, world, index)
    statuses.backends = backends.statuses()
    statuses.policies = index.statuses()
    world.forget()
    return Result(served, statuses)


def _parents(world: GatewayWorld, statuses: Statuses) -> dict[tuple[str, str], Parent]:
    """Our Gateways with their listeners on ports; the older one gets a port that two want."""
    found: dict[tuple[str, str], Parent] = {}
    taken: set[int] = set()
    for obj in by_age(world.gateways):
        if not world.ours(obj):
            continue
        try:
            states = listener_states(obj, world.spec(GatewaySpec, obj), world)
        except ConfigError as error:
            problem = Problem("Invalid", str(error))
            statuses.gateways[key_of(obj)] = GatewayStatus([refused("Accepted", problem)])
            continue
        assign_ports(states, taken if world.shared else set())
        found[key_of(obj)] = Parent(obj, states)
    return found


def _served(parent: Parent, index: Index, backends: Backends) -> Served:
    listeners = tuple(_listener(state, parent, index) for state in parent.listeners if state.port)
    servers = {key: backends.servers[key] for key in parent.used if key in backends.servers}
    return Served(
        listeners,
        tuple(servers[key] for key in sorted(servers)),
        frozenset(parent.used),
        {state.spec.port: state.port for state in parent.listeners if state.port},
    )


def _listener(state: ListenerState, parent: Parent, index: Index) -> Listener:
    namespace, name = key_of(parent.obj)
    rules = index.of("Gateway", namespace, name, state.spec.name, str(state.spec.port))
    return Listener(
        f"{namespace}/{name}/{state.spec.name}",
        state.port,
        protocol="HTTPS" if state.spec.protocol == "HTTPS" else "HTTP",
        hostname=(state.spec.hostname or "").lower(),
        certificates=state.certificates,
        public_port=state.spec.port if state.spec.port != state.port else 0,
        gateway=f"{namespace}/{name}",
        client_ca=state.client_ca,
        policies=rules.pre,
        routes=tuple(parent.routes.get(state.spec.name, ())),
    )


def _gateway_status(parent: Parent, world: GatewayWorld, index: Index) -> GatewayStatus:
    namespace, name = key_of(parent.obj)
    listeners = [
        ListenerStatus(
            state.spec.name,
            state.kinds,
            len(parent.attached.get(state.spec.name, ())),
            [state.accepted, state.conflicted, state.resolved],
            state.valid,
            state.port,
        )
        for state in parent.listeners
    ]
    spec = world.spec(GatewaySpec, parent.obj)
    asked = [address.value for address in spec.addresses or () if address.value]
    wrong = [state.name for state in listeners if not state.valid]
    if asked:
        text = f"addresses cannot be chosen ({', '.join(asked)}); leave spec.addresses out"
        verdict = refused("Accepted", Problem("UnsupportedAddress", text))
    elif spec.infrastructure is not None and spec.infrastructure.parameters_ref is not None:
        text = "infrastructure.parametersRef is not served"
        verdict = refused("Accepted", Problem("InvalidParameters", text))
    elif listeners and len(wrong) == len(listeners):
        verdict = refused("Accepted", _NO_LISTENERS)
    elif wrong:
        text = f"of the listeners, {', '.join(wrong)} cannot be served; see their conditions"
        verdict = Verdict("Accepted", "True", "ListenersNotValid", text)
    else:
        verdict = accepted("Gateway is accepted")
    problems = index.of("Gateway", namespace, name).problems
    notes = [f"port {s.spec.port} is {s.port} there" for s in parent.listeners if s.port not in (0, s.spec.port)]
    notes += [f"all requests are answered with 500: {'; '.join(problems)}"] if problems else []
    return GatewayStatus([verdict], listeners, "; ".join(dict.fromkeys(notes)))


def with_gateways(base: Snapshot, served: Iterable[Served]) -> Snapshot:
    """The default gateway's snapshot, with the listeners of the Gateways that it serves."""
    parts = list(served)
    if not any(part.listeners for part in parts):
        return base
    servers = {f"{s.kind}/{s.namespace}/{s.name}": s for part in parts for s in part.servers}
    return msgspec.structs.replace(
        base,
        mcp=(*base.mcp, *(servers[key] for key in sorted(servers))),
        listeners=tuple(listener for part in parts for listener in part.listeners),
    )


def own_snapshot(
    base: Snapshot, gateway: str, part: Served, known: Mapping[str, McpServer], replicas: int = 1
) -> Snapshot:
    """The snapshot of a gateway process of one Gateway: of the rest it learns only what its routes lead to."""
    used = [known[key] for key in sorted(part.used) if key in known]
    virtual = tuple(each for each in base.virtual if f"{VIRTUAL}/{each.namespace}/{each.name}" in part.used)
    return msgspec.structs.replace(
        base,
        gateway=gateway,
        identities=msgspec.structs.replace(base.identities, local_token_hashes=(), anonymous_local=False),
        mcp=(*used, *part.servers),
        virtual=virtual,
        models=(),
        agents=(),
        policies=(),
        listeners=part.listeners,
        replicas=replicas,
    )
