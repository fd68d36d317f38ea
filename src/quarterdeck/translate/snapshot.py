"""Everything the gateway serves, compiled from resources into one Snapshot. Pure and deterministic."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from quarterdeck.errors import ConfigError, RefNotFound
from quarterdeck.kube.owner import controller_of
from quarterdeck.kube.resource import Object
from quarterdeck.resources.agent import AgentSpec, Tool
from quarterdeck.resources.base import ValueRef, parse
from quarterdeck.resources.conversion import agent_spec, model_spec
from quarterdeck.resources.mcp_server import MCPServerSpec
from quarterdeck.resources.remote_mcp_server import RemoteMCPServerSpec
from quarterdeck.snapshot import (
    Agent,
    AgentPolicy,
    HeaderValue,
    Identities,
    McpServer,
    Model,
    Snapshot,
    ToolGrant,
)
from quarterdeck.snapshot.pins import ANNOTATION, MODES, Mode
from quarterdeck.snapshot.virtual import KIND as VIRTUAL
from quarterdeck.snapshot.virtual import VirtualServer

from . import canary
from .agent import PORT as AGENT_PORT
from .approvals import approval_rule
from .mcp_server import mcp_path
from .model import gateway_model, tls_settings
from .objects import duration
from .options import Options
from .reference import Target, allowed, model_key, tool_target_key
from .resolve import Services, closed_addresses, resolve
from .service import is_mcp_service, service_endpoint
from .sign_in import sign_in
from .triggers import hooks
from .values import SecretReader, Sources
from .virtual import Servers
from .virtual import resolve as resolve_virtual


@dataclass(slots=True)
class World:
    """All objects a snapshot is compiled from, as the API server has them."""

    agents: Sequence[Object] = ()
    model_configs: Sequence[Object] = ()
    mcp_servers: Sequence[Object] = ()
    remote_mcp_servers: Sequence[Object] = ()
    virtual_servers: Sequence[Object] = ()
    services: Sequence[Object] = ()
    endpoint_slices: Sequence[Object] = ()
    values: Values = field(default_factory=lambda: Values.of((), ()))
    pods: Sequence[Object] = ()
    deployments: Sequence[Object] = ()
    replica_sets: Sequence[Object] = ()
    namespaces: Sequence[Object] = ()
    approval_policies: Sequence[Object] = ()
    triggers: Sequence[Object] = ()
    revisions: Mapping[str, Object] = field(default_factory=dict[str, Object])
    """Specs kept in ControllerRevisions by name: those that Pods run while an Agent's own is on trial."""
    identities: Identities = field(default_factory=Identities)
    models: frozenset[tuple[str, str]] = field(init=False)
    """(namespace, name) of the ModelConfigs."""
    targets: dict[Target, Object] = field(init=False)
    """What tools can name."""
    labels: dict[str, dict[str, str]] = field(init=False)
    """Of the Namespaces, by name."""

    def __post_init__(self) -> None:
        self.models = frozenset(map(_key, self.model_configs))
        self.labels = {ns["metadata"]["name"]: ns["metadata"].get("labels") or {} for ns in self.namespaces}
        kinds = (
            ("Agent", self.agents), ("RemoteMCPServer", self.remote_mcp_servers), ("MCPServer", self.mcp_servers),
            (VIRTUAL, self.virtual_servers),
        )  # fmt: skip
        self.targets = {(kind, *_key(obj)): obj for kind, objects in kinds for obj in objects}

    def has_server(self, target: Target) -> bool:
        """Whether a RemoteMCPServer or MCPServer exists."""
        return target in self.targets

    def servers(self) -> Servers:
        """What virtual servers are made of."""
        services = {_key(obj): obj for obj in self.services}
        kinds = {"MCPServer": self.mcp_servers, "RemoteMCPServer": self.remote_mcp_servers, "Service": self.services}

        def get(kind: str, namespace: str, name: str) -> Object | None:
            return services.get((namespace, name)) if kind == "Service" else self.targets.get((kind, namespace, name))

        return Servers(
            get,
            lambda kind, namespace: [obj for obj in kinds[kind] if obj["metadata"]["namespace"] == namespace],
            lambda target, source: _admits(*target, source, self),
        )


def compile_snapshot(world: World, options: Options, gateway: str = "") -> Snapshot:
    """Objects that cannot be used are left out, or carry an error; their own controllers report why."""
    services = Services.of(world.services, world.endpoint_slices, world.pods)
    values = world.values
    servers = [
        *(hosted_server(obj, services) for obj in world.mcp_servers),
        *(_remote(obj, services, values) for obj in world.remote_mcp_servers),
        *(_service(obj, services) for obj in world.services if is_mcp_service(obj)),
    ]
    mcp = tuple(sorted((s for s in servers if s is not None), key=lambda s: (s.namespace, s.name, s.kind)))
    models = [_model(obj, services, values) for obj in world.model_configs]
    agents = [_agent(obj, services) for obj in world.agents]
    policies = [_served_policy(obj, world, values, options) for obj in world.agents]
    return Snapshot(
        gateway=gateway or options.gateway,
        replicas=replicas(world.deployments, gateway or options.gateway),
        default_namespace=options.default_namespace,
        mcp=mcp,
        virtual=_virtual(world, mcp) if world.virtual_servers else (),
        models=tuple(sorted((m for m in models if m is not None), key=lambda m: (m.namespace, m.name))),
        agents=tuple(sorted(agents, key=lambda a: (a.namespace, a.name))),
        policies=tuple(sorted((p for p in policies if p is not None), key=lambda p: (p.namespace, p.name))),
        identities=_identities(world),
        approvals=tuple(sorted(map(approval_rule, world.approval_policies), key=lambda rule: rule.name)),
        hooks=hooks(world.triggers),
        closed=tuple(sorted({a for obj in (*world.services, *world.pods) for a in closed_addresses(obj)})),
    )


def replicas(deployments: Sequence[Object], gateway: str) -> int:
    """How many Pods the Deployment of a gateway (``namespace/name``) shall have; 1 where there is none."""
    namespace, _, name = gateway.partition("/")
    found = next((obj for obj in deployments if _key(obj) == (namespace, name)), None)
    return max(int(found["spec"].get("replicas") or 1), 1) if found is not None else 1


Lookup = Callable[[str, str], Object | None]
"""(namespace, name) to the object."""


class Values:
    """Values of ConfigMaps and Secrets."""

    def __init__(self, secrets: Lookup, config_maps: Lookup) -> None:
        self._secrets = secrets
        self._config_maps = config_maps

    @classmethod
    def of(cls, secrets: Iterable[Object], config_maps: Iterable[Object]) -> Values:
        """Of these objects."""
        by_name = [{_key(obj): obj for obj in objects} for objects in (secrets, config_maps)]
        return cls(*(lambda namespace, name, known=known: known.get((namespace, name)) for known in by_name))

    def secret(self, namespace: str, name: str, key: str) -> str:
        """Raises ConfigError naming what is missing."""
        obj = self._secrets(namespace, name)
        if obj is None:
            raise RefNotFound(f"Secret {namespace}/{name} not found; create it with key {key}")
        return secret_value(obj, key)

    def config_map(self, namespace: str, name: str, key: str) -> str:
        """Raises ConfigError naming what is missing."""
        obj = self._config_maps(namespace, name)
        if obj is None:
            raise RefNotFound(f"ConfigMap {namespace}/{name} not found; create it with key {key}")
        data: Mapping[str, str] = obj.get("data") or {}
        if key not in data:
            raise RefNotFound(
                f"ConfigMap {namespace}/{name} has no key {key}; it has {', '.join(sorted(data)) or 'none'}"
            )
        return data[key]

    def reader(self, namespace: str) -> SecretReader:
        return lambda name, key: self.secret(namespace, name, key)

    def sources(self, namespace: str) -> Sources:
        return Sources(self.reader(namespace), lambda name, key: self.config_map(namespace, name, key))

    def header(self, namespace: str, ref: ValueRef) -> HeaderValue:
        """Raises ConfigError."""
        source = ref.value_from
        if source is None:
            return HeaderValue(ref.name, ref.value or "")
        if source.type == "Secret":
            return HeaderValue(ref.name, self.secret(namespace, source.name, source.key), secret=True)
        return HeaderValue(ref.name, self.config_map(namespace, source.name, source.key))


def secret_value(obj: Object, key: str) -> str:
    """The text under ``key``; an empty key means the only one. Raises ConfigError."""
    name = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
    data: Mapping[str, str] = obj.get("data") or {}
    key = key or (next(iter(data)) if len(data) == 1 else "")
    if key not in data:
        raise RefNotFound(f"Secret {name} has no key {key or '(unnamed)'}; it has {', '.join(sorted(data)) or 'none'}")
    try:
        return base64.b64decode(data[key], validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"Secret {name}, key {key}: the value is not text") from error


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


_BRIDGE_MARGIN = 1.0
"""Seconds the gateway waits longer than a server's bridge, which can tell the server's silence from its own."""


def hosted_server(obj: Object, services: Services) -> McpServer | None:
    try:
        spec = parse(MCPServerSpec, obj.get("spec") or {}, "MCPServer")
        timeout = duration(spec.timeout) + (_BRIDGE_MARGIN if spec.transport_type == "stdio" else 0.0)
    except ConfigError:
        return None
    namespace, name = _key(obj)
    return McpServer(
        namespace,
        name,
        "MCPServer",
        mcp_path(spec),
        endpoints=services.own_endpoints(obj, spec.deployment.port),
        timeout=timeout,
        wake=hold(obj),
        pin=pin_mode(obj),
    )


def pin_mode(obj: Object) -> Mode:
    """Of the annotation ``quarterdeck.dev/pin``; a word that is none of the modes is taken for the strictest."""
    wanted = (obj["metadata"].get("annotations") or {}).get(ANNOTATION, "")
    known: dict[str, Mode] = {mode: mode for mode in ("", *MODES)}
    return known.get(wanted, "enforce")


def _remote(obj: Object, services: Services, values: Values) -> McpServer | None:
    namespace, name = _key(obj)
    try:
        spec = parse(RemoteMCPServerSpec, obj.get("spec") or {}, "RemoteMCPServer")
        server = remote_server(namespace, name, spec, services, values)
    except ConfigError:
        return None
    return msgspec.structs.replace(server, pin=pin_mode(obj))


def remote_server(
    namespace: str, name: str, spec: RemoteMCPServerSpec, services: Services, values: Values
) -> McpServer:
    """Raises ConfigError for an unusable URL, duration or reference."""
    upstream = resolve(spec.url, services, namespace)
    reader = values.reader(namespace)
    insecure, ca, system = tls_settings(spec.tls, reader)
    return McpServer(
        namespace,
        name,
        "RemoteMCPServer",
        upstream.path,
        "SSE" if spec.protocol == "SSE" else "STREAMABLE_HTTP",
        tls=upstream.tls,
        tls_insecure=insecure,
        tls_ca=ca,
        tls_system=system,
        authority=upstream.authority,
        endpoints=upstream.endpoints,
        headers=tuple(values.header(namespace, ref) for ref in spec.headers_from or ()),
        timeout=duration(spec.timeout),
        sign_in=sign_in(name, spec, reader),
    )


def _service(obj: Object, services: Services) -> McpServer | None:
    namespace, name = _key(obj)
    try:
        found = service_endpoint(obj)
    except ConfigError:
        return None
    return McpServer(
        namespace,
        name,
        "Service",
        found.path,
        "SSE" if found.protocol == "SSE" else "STREAMABLE_HTTP",
        endpoints=services.endpoints(namespace, name, found.port),
        pin=pin_mode(obj),
    )


def _virtual(world: World, mcp: Sequence[McpServer]) -> tuple[VirtualServer, ...]:
    """Those that can be served, with the servers that are."""
    servers = world.servers()
    known = {f"{s.kind}/{s.namespace}/{s.name}" for s in mcp}
    found: list[VirtualServer] = []
    for obj in sorted(world.virtual_servers, key=_key):
        virtual = resolve_virtual(obj, servers).server
        if virtual is not None:
            there = tuple(server for server in virtual.servers if server.server in known)
            found.append(msgspec.structs.replace(virtual, servers=there))
    return tuple(found)


def _model(obj: Object, services: Services, values: Values) -> Model | None:
    namespace, name = _key(obj)
    try:
        spec = model_spec(obj)
    except ConfigError:
        return None
    return gateway_model(namespace, name, spec, values.sources(namespace), services)


def _agent(obj: Object, services: Services) -> Agent:
    namespace, name = _key(obj)
    description = str((obj.get("spec") or {}).get("description") or "")
    stable = services.own_endpoints(obj, AGENT_PORT)
    trial = services.own_endpoints(obj, AGENT_PORT, canary.SUFFIX)
    byo = (obj.get("spec") or {}).get("type") == "BYO"
    forward = () if byo else _forwarded(obj)
    return Agent(namespace, name, stable, description, canary.split(obj, stable, trial), hold(obj), byo, forward)


def _forwarded(obj: Object) -> tuple[str, ...]:
    """``allowedHeaders`` of all tools of an agent, those of its canary's among them while there is one."""
    try:
        declarative = agent_spec(obj).declarative
    except ConfigError:
        return ()
    tools = (declarative.tools if declarative is not None else None) or ()
    names = [name.lower() for tool in tools if tool.mcp_server for name in tool.mcp_server.allowed_headers or ()]
    return tuple(dict.fromkeys(names))


def hold(obj: Object) -> float:
    """Seconds a call may wait for a Pod of what is scaled to zero while idle; 0 when it is not."""
    rest = (obj.get("spec") or {}).get("scaleToZero")
    if not rest:
        return 0.0
    try:
        return duration(str(rest.get("hold") or ""), 60.0)
    except ConfigError:
        return 0.0


def _served_policy(obj: Object, world: World, values: Values, options: Options) -> AgentPolicy | None:
    """Of all specs that Pods of the agent run: while a canary is on trial there are two."""
    served = [_policy(spec, world, values, options) for spec in canary.served(obj, world.revisions)]
    policies = [policy for policy in served if policy is not None]
    return canary.union(policies) if len(policies) > 1 else policies[0] if policies else None


def _policy(obj: Object, world: World, values: Values, options: Options) -> AgentPolicy | None:
    """What an agent may reach. A reference that may not be made gives no grant."""
    namespace, name = _key(obj)
    try:
        spec = agent_spec(obj)
    except ConfigError:
        return None
    models = [model_key(namespace, wanted, world.models, options) for wanted in models_of(spec)]
    tools = (spec.declarative.tools if spec.declarative else None) or []
    grants = [grant for tool in tools if (grant := _grant(namespace, tool, world, values)) is not None]
    agents = [target for tool in tools if (target := _agent_target(namespace, tool, world)) is not None]
    return AgentPolicy(
        namespace,
        name,
        tuple(grants),
        tuple(sorted({"/".join(key) for key in models})),
        tuple(sorted(set(agents))),
        spec.type != "BYO",
    )


def models_of(spec: AgentSpec) -> list[str]:
    """The ModelConfigs an agent names; an empty name is the default one."""
    declarative = spec.declarative
    if declarative is None:
        return [""]
    names = [declarative.model_config_ or ""]
    if declarative.memory is not None:
        names.append(declarative.memory.model_config_)
    compaction = declarative.context.compaction if declarative.context else None
    if compaction is not None and compaction.summarizer is not None and compaction.summarizer.model_config_:
        names.append(compaction.summarizer.model_config_)
    return names


def _grant(namespace: str, tool: Tool, world: World, values: Values) -> ToolGrant | None:
    if tool.type != "McpServer" or tool.mcp_server is None:
        return None
    server = tool.mcp_server
    try:
        kind, target_namespace, name = tool_target_key(namespace, tool, world.has_server)
        headers = tuple(values.header(namespace, ref) for ref in tool.headers_from or ())
    except ConfigError:
        return None
    if target_namespace != namespace and not _admits(kind, target_namespace, name, namespace, world):
        return None
    return ToolGrant(
        target_namespace,
        name,
        kind,
        tuple(server.tool_names) if server.tool_names else None,
        tuple(server.require_approval or ()),
        headers,
        tuple(header.lower() for header in server.allowed_headers or ()),
    )


def _agent_target(namespace: str, tool: Tool, world: World) -> str | None:
    if tool.type != "Agent" or tool.agent is None:
        return None
    kind, target_namespace, name = tool_target_key(namespace, tool, world.has_server)
    if target_namespace != namespace and not _admits(kind, target_namespace, name, namespace, world):
        return None
    return f"{target_namespace}/{name}"


def _admits(kind: str, namespace: str, name: str, source: str, world: World) -> bool:
    target = world.targets.get((kind, namespace, name)) if kind in ("Agent", "RemoteMCPServer") else None
    if target is None:
        return False
    rule = (target.get("spec") or {}).get("allowedNamespaces")
    return allowed(rule, namespace, source, world.labels.get(source, {}))


def _identities(world: World) -> Identities:
    """Pod UID → the Agent that controls its Deployment. Labels and names are not proof; owner UIDs are, in the owner's
    own namespace: elsewhere anybody who knows one can write it down."""
    agents = {_identity(obj): "/".join(_key(obj)) for obj in world.agents}
    deployments = {_identity(obj): agents.get(_owner(obj, "Agent")) for obj in world.deployments}
    replica_sets = {_identity(obj): deployments.get(_owner(obj, "Deployment")) for obj in world.replica_sets}
    pods: dict[str, str] = {}
    for pod in world.pods:
        agent = replica_sets.get(_owner(pod, "ReplicaSet"))
        if agent is not None:
            pods[pod["metadata"]["uid"]] = agent
    return msgspec.structs.replace(world.identities, pods=dict(sorted(pods.items())))


def _identity(obj: Object) -> tuple[str, str | None]:
    """Namespace and UID."""
    return obj["metadata"]["namespace"], obj["metadata"].get("uid")


def _owner(obj: Object, kind: str) -> tuple[str, str | None]:
    """Namespace and UID of the controlling owner of that kind; no UID when there is none."""
    owner = controller_of(obj)
    uid = owner["uid"] if owner is not None and owner["kind"] == kind else ""
    return obj["metadata"]["namespace"], uid
