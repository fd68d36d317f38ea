"""Where routes lead: Services, Backends of kgateway and agentgateway, MCP servers of kagent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quarterdeck.errors import ConfigError, RefNotPermitted
from quarterdeck.kube.owner import controller_of
from quarterdeck.kube.resource import Object
from quarterdeck.kube.selector import selects
from quarterdeck.resources.base import parse
from quarterdeck.resources.gateway_api import GROUP
from quarterdeck.resources.gateway_api.references import BackendRef
from quarterdeck.resources.kgateway import AGENTGATEWAY, KGATEWAY
from quarterdeck.resources.kgateway.agentgateway_backend import AgentgatewayBackendSpec
from quarterdeck.resources.kgateway.agentgateway_policy import BackendPolicies
from quarterdeck.resources.kgateway.backend import BackendSpec
from quarterdeck.resources.kgateway.common import McpStaticTarget
from quarterdeck.resources.kgateway.common import McpTarget as WantedTarget
from quarterdeck.snapshot import McpServer
from quarterdeck.snapshot.policies import Policies
from quarterdeck.snapshot.routing import Endpoint, HttpBackend, McpBackend, McpTarget, Tls
from quarterdeck.snapshot.virtual import KIND as VIRTUAL
from quarterdeck.translate.resolve import resolve
from quarterdeck.translate.service import is_mcp_service, service_endpoint

from .attach_policies import Index, Rules
from .status import Name, Problem, Verdict, accepted, refused
from .world import GatewayWorld, key_of, not_permitted

_SERVED = {("", "Service"), (KGATEWAY, "Backend"), (AGENTGATEWAY, "AgentgatewayBackend")}
_KAGENT = {("kagent.dev", "MCPServer"), ("kagent.dev", "RemoteMCPServer")}
_VIRTUAL = {("quarterdeck.dev", VIRTUAL)}
_MCP_PROTOCOLS = ("kgateway.dev/mcp", "agentgateway.dev/mcp")
_MCP_PATHS = ("agentgateway.dev/mcp-path", "kgateway.dev/mcp-path")
_TARGET_NAME = "agentgateway.dev/mcp-target-name"
_NOT_SPOKEN = ("kubernetes.io/h2c", "kgateway.dev/a2a", "agentgateway.dev/a2a")
_HTTPS = 443


@dataclass(slots=True)
class Destination:
    """One of ``http`` and ``mcp``, or a problem. ``rules`` are those attached to the backend itself."""

    http: HttpBackend | None = None
    mcp: McpBackend | None = None
    problem: Problem | None = None
    rules: Rules = field(default_factory=Rules)


class Backends:
    """Resolves references; the MCP servers made on the way are in :attr:`servers`."""

    def __init__(self, world: GatewayWorld, index: Index) -> None:
        self._world = world
        self._index = index
        self._services = {key_of(obj): obj for obj in world.services}
        self._kgateway = {key_of(obj): obj for obj in world.backends}
        self._agentgateway = {key_of(obj): obj for obj in world.agentgateway_backends}
        self._known: dict[tuple[str, str, str, str, int | None], Destination] = {}
        self.servers: dict[str, McpServer] = {}
        """Of kind Target, by ``Target/namespace/name``."""

    def of(self, ref: BackendRef, namespace: str, kind: str = "HTTPRoute") -> Destination:
        """What a route of ``namespace`` means by ``ref``."""
        home = ref.namespace or namespace
        what = f"{ref.kind} {home}/{ref.name}"
        if (ref.group, ref.kind) not in _SERVED | _KAGENT | _VIRTUAL:
            return Destination(
                problem=Problem("InvalidKind", f"{ref.group or 'core'}/{ref.kind} {ref.name} is no kind of backend")
            )
        if not self._world.may_refer((GROUP, kind, namespace), (ref.group, ref.kind, home, ref.name)):
            return Destination(problem=not_permitted(what, home, f"{kind}s of {namespace}"))
        slot = (ref.group, ref.kind, home, ref.name, ref.port)
        if slot not in self._known:
            self._known[slot] = self._resolve(ref, home)
        return self._known[slot]

    def statuses(self) -> dict[Name, list[Verdict]]:
        """Accepted of every Backend and AgentgatewayBackend."""
        found: dict[Name, list[Verdict]] = {}
        for group, kind, objects in (
            (KGATEWAY, "Backend", self._world.backends),
            (AGENTGATEWAY, "AgentgatewayBackend", self._world.agentgateway_backends),
        ):
            for obj in objects:
                namespace, name = key_of(obj)
                ref = BackendRef(group=group, kind=kind, name=name, namespace=namespace)
                answer = self._known.get((group, kind, namespace, name, None)) or self._resolve(ref, namespace)
                problem = answer.problem
                found[kind, namespace, name] = [accepted() if problem is None else refused("Accepted", problem)]
        return found

    def _resolve(self, ref: BackendRef, home: str) -> Destination:
        if ref.kind == "Service":
            return self._service(ref, home)
        if (ref.group, ref.kind) in _KAGENT:
            return self._kagent(ref, home)
        if (ref.group, ref.kind) in _VIRTUAL:
            return self._virtual(ref, home)
        obj = (self._kgateway if ref.kind == "Backend" else self._agentgateway).get((home, ref.name))
        if obj is None:
            return Destination(problem=Problem("BackendNotFound", f"{ref.kind} {home}/{ref.name} not found"))
        try:
            return self._backend(obj) if ref.kind == "Backend" else self._agentgateway_backend(obj)
        except RefNotPermitted as error:
            return Destination(problem=Problem("RefNotPermitted", str(error)))
        except ConfigError as error:
            return Destination(problem=Problem("Invalid", str(error)))

    # -- Services

    def _service(self, ref: BackendRef, home: str) -> Destination:
        obj = self._services.get((home, ref.name))
        if obj is None:
            return Destination(problem=Problem("BackendNotFound", f"Service {home}/{ref.name} not found"))
        if (owner := _governed(obj)) is not None:
            text = f"Service {home}/{ref.name} is that of {owner}, whose calls are governed: name {owner} instead"
            return Destination(problem=Problem("RefNotPermitted", text))
        if ref.port is None and not is_mcp_service(obj):
            return Destination(
                problem=Problem("UnsupportedValue", f"backendRef to Service {home}/{ref.name} names no port")
            )
        ports: Sequence[Object] = (obj.get("spec") or {}).get("ports") or ()
        port = next((p for p in ports if ref.port in (None, p.get("port"))), None)
        if port is None:
            return Destination(problem=Problem("BackendNotFound", f"Service {home}/{ref.name} has no port {ref.port}"))
        number, name = int(port["port"]), str(port.get("name") or "")
        rules = self._index.of("Service", home, ref.name, name or str(number), str(number))
        protocol = str(port.get("appProtocol") or "")
        if protocol in _MCP_PROTOCOLS or _labelled_port(obj, number):
            return self._mcp_service(obj, number, rules)
        if protocol in _NOT_SPOKEN:
            text = f"Service {home}/{ref.name}: appProtocol {protocol} is not served"
            return Destination(problem=Problem("UnsupportedProtocol", text))
        backend = HttpBackend(
            f"{home}/{ref.name}",
            self._world.endpoints.endpoints(home, ref.name, number),
            tls=rules.tls,
            host=f"{ref.name}.{home}.svc.cluster.local",
        )
        return Destination(http=backend, rules=rules, problem=rules.problem("Service", home, ref.name))

    def _mcp_service(self, obj: Object, port: int, rules: Rules) -> Destination:
        namespace, name = key_of(obj)
        target = self._service_target(obj, port, name, rules.tls)
        backend = McpBackend(f"{namespace}/{name}", (target,))
        return Destination(mcp=backend, rules=rules, problem=rules.problem("Service", namespace, name))

    def _service_target(self, obj: Object, port: int, owner: str, tls: Tls | None) -> McpTarget:
        """A port of a Service as one MCP server; ``owner`` tells servers of several backends apart."""
        namespace, name = key_of(obj)
        annotations: dict[str, str] = obj["metadata"].get("annotations") or {}
        path, protocol = "/mcp", "STREAMABLE_HTTP"
        if _labelled_port(obj, port):
            found = service_endpoint(obj)
            path, protocol = found.path, found.protocol
        path = next((annotations[key] for key in _MCP_PATHS if key in annotations), path)
        server = McpServer(
            namespace,
            f"{owner}.{name}.{port}",
            "Target",
            path if path.startswith("/") else f"/{path}",
            "SSE" if protocol == "SSE" else "STREAMABLE_HTTP",
            endpoints=self._world.endpoints.endpoints(namespace, name, port),
            authority=f"{name}.{namespace}.svc.cluster.local",
        )
        return McpTarget(annotations.get(_TARGET_NAME) or name, self._keep(_secured(server, tls)))

    # -- kagent's MCP servers

    def _kagent(self, ref: BackendRef, home: str) -> Destination:
        key = f"{ref.kind}/{home}/{ref.name}"
        if key not in self._world.servers:
            return Destination(problem=Problem("BackendNotFound", f"{ref.kind} {home}/{ref.name} not found"))
        rules = self._index.of(ref.kind, home, ref.name)
        backend = McpBackend(f"{home}/{ref.name}", (McpTarget(ref.name, key),))
        return Destination(mcp=backend, rules=rules, problem=rules.problem(ref.kind, home, ref.name))

    def _virtual(self, ref: BackendRef, home: str) -> Destination:
        key = f"{home}/{ref.name}"
        if key not in self._world.virtual:
            text = f"{VIRTUAL} {key} not found, or its spec cannot be used as it is"
            return Destination(problem=Problem("BackendNotFound", text))
        rules = self._index.of(VIRTUAL, home, ref.name)
        problem = rules.problem(VIRTUAL, home, ref.name)
        targets: list[McpTarget] = []
        for server in self._world.virtual[key].servers:  # the rules of each hold for it here, too
            kind, namespace, name = server.server.split("/", 2)
            own = self._index.of(kind, namespace, name)
            problem = problem or own.problem(kind, namespace, name)
            targets.append(McpTarget(server.name, server.server, own.policies))
        return Destination(mcp=McpBackend(key, tuple(targets), virtual=key), rules=rules, problem=problem)

    # -- Backend and AgentgatewayBackend

    def _backend(self, obj: Object) -> Destination:
        namespace, name = key_of(obj)
        spec = self._world.spec(BackendSpec, obj)
        rules = self._index.of("Backend", namespace, name)
        problem = rules.problem("Backend", namespace, name)
        if spec.mcp is not None:
            return Destination(mcp=self._mcp("Backend", obj, spec.mcp.targets, rules), rules=rules, problem=problem)
        if spec.static is not None:
            addresses = [a for host in spec.static.hosts for a in self._addresses(namespace, host.host, host.port)]
            first = spec.static.hosts[0].host
            backend = HttpBackend(f"{namespace}/{name}", tuple(addresses), tls=_named(rules.tls, first), host=first)
            return Destination(http=backend, rules=rules, problem=problem)
        return Destination(problem=_unserved("Backend", obj, spec.type or ""))

    def _agentgateway_backend(self, obj: Object) -> Destination:
        namespace, name = key_of(obj)
        spec = self._world.spec(AgentgatewayBackendSpec, obj)
        rules = self._index.of("AgentgatewayBackend", namespace, name).within(
            self._index.own(spec.policies, namespace, f"AgentgatewayBackend/{namespace}/{name}")
        )
        problem = rules.problem("AgentgatewayBackend", namespace, name)
        if spec.mcp is not None:
            mcp = spec.mcp
            backend = msgspec.structs.replace(
                self._mcp("AgentgatewayBackend", obj, mcp.targets, rules),
                prefix={"Always": "always", "Never": "never"}.get(mcp.prefix_mode, "conditional"),
                stateful=mcp.session_routing != "Stateless",
                fail_open=mcp.failure_mode == "FailOpen",
            )
            return Destination(mcp=backend, rules=rules, problem=problem)
        if spec.static is not None and spec.static.host and spec.static.port:
            host = spec.static.host
            found = HttpBackend(
                f"{namespace}/{name}",
                self._addresses(namespace, host, spec.static.port),
                tls=_named(rules.tls, host),
                host=host,
            )
            return Destination(http=found, rules=rules, problem=problem)
        wanted = next((word for word in ("ai", "a2a", "aws") if getattr(spec, word) is not None), "this kind")
        return Destination(problem=_unserved("AgentgatewayBackend", obj, wanted))

    def _addresses(self, namespace: str, host: str, port: int) -> tuple[Endpoint, ...]:
        """Raises ConfigError, RefNotPermitted."""
        return resolve(f"http://{_bracketed(host)}:{port}", self._world.endpoints, namespace).endpoints

    def _mcp(self, kind: str, obj: Object, targets: Sequence[WantedTarget], rules: Rules) -> McpBackend:
        """Raises ConfigError, RefNotPermitted."""
        namespace, name = key_of(obj)
        found: list[McpTarget] = []
        for target in targets:
            own = self._index.of(kind, namespace, name, target.name, only_section=True)
            if target.static is not None:
                where = f"{kind}/{namespace}/{name}/{target.name}"
                own = own.within(self._index.own(_policies(target.static), namespace, where))
                found.append(self._static(f"{kind}.{name}", namespace, target.name, target.static, own, rules))
            elif target.selector is not None:
                found += [self._ruled(each, own) for each in self._selected(f"{kind}.{name}", namespace, target, rules)]
        if len({target.name for target in found}) < len(found):
            raise ConfigError(f"{kind} {namespace}/{name}: two of its targets have the same name")
        return McpBackend(f"{namespace}/{name}", tuple(found))

    def _static(
        self, owner: str, namespace: str, name: str, static: McpStaticTarget, own: Rules, rules: Rules
    ) -> McpTarget:
        host = static.host or f"{(static.backend_ref or {}).get('name', '')}.{namespace}.svc.cluster.local"
        sse = static.protocol == "SSE"
        path = static.path or ("/sse" if sse else "/mcp")
        path = path if path.startswith("/") else f"/{path}"
        found = resolve(f"http://{_bracketed(host)}:{static.port}{path}", self._world.endpoints, namespace)
        tls = own.tls or rules.tls
        default = _HTTPS if tls is not None else 80
        server = McpServer(
            namespace,
            f"{owner}.{name}",
            "Target",
            path,
            "SSE" if sse else "STREAMABLE_HTTP",
            endpoints=found.endpoints,
            authority=host if static.port == default else f"{_bracketed(host)}:{static.port}",
        )
        return self._ruled(McpTarget(name, self._keep(_secured(server, tls))), own)

    def _ruled(self, target: McpTarget, own: Rules) -> McpTarget:
        """Raises ConfigError when a rule of the target cannot be enforced."""
        if own.problems:
            raise ConfigError(f"target {target.name}: {'; '.join(own.problems)}")
        return target if own.policies == Policies() else msgspec.structs.replace(target, policies=own.policies)

    def _selected(self, owner: str, namespace: str, target: WantedTarget, rules: Rules) -> list[McpTarget]:
        selector = target.selector
        assert selector is not None
        services, namespaces = selector.services or selector.service, selector.namespaces or selector.namespace
        found: list[McpTarget] = []
        for key, obj in sorted(self._services.items()):
            if not (self._world.selected(namespaces, key[0]) if namespaces is not None else key[0] == namespace):
                continue
            if (services is not None and not _carries(obj, services)) or _governed(obj) is not None:
                continue
            ports = [p for p in (obj.get("spec") or {}).get("ports") or () if _speaks_mcp(obj, p)]
            for port in ports:
                made = self._service_target(obj, int(port["port"]), f"{owner}.{target.name}", rules.tls)
                name = made.name if len(ports) == 1 else f"{made.name}-{port.get('name') or port['port']}"
                taken = any(each.name == name for each in found)
                found.append(msgspec.structs.replace(made, name=f"{key[0]}-{name}" if taken else name))
        return found

    def _keep(self, server: McpServer) -> str:
        key = f"Target/{server.namespace}/{server.name}"
        self.servers[key] = server
        return key


def _governed(obj: Object) -> str | None:
    """``kind name`` of the agent, MCP server or model whose Service it is."""
    owner = controller_of(obj)
    ours = owner is not None and str(owner.get("apiVersion")).startswith("kagent.dev/")
    return f"{owner['kind']} {owner['name']}" if ours and owner is not None else None


def _unserved(kind: str, obj: Object, what: str) -> Problem:
    namespace, name = key_of(obj)
    return Problem(
        "UnsupportedValue",
        f"{kind} {namespace}/{name}: {what or 'its type'} is not served yet; mcp and static backends are",
    )


def _policies(static: McpStaticTarget) -> BackendPolicies | None:
    return parse(BackendPolicies, static.policies, "policies of a target") if static.policies else None


def _labelled_port(obj: Object, port: int) -> bool:
    """Whether kagent's label says that this port speaks MCP."""
    if not is_mcp_service(obj):
        return False
    try:
        return service_endpoint(obj).port == port
    except ConfigError:
        return False


def _speaks_mcp(obj: Object, port: Object) -> bool:
    return port.get("appProtocol") in _MCP_PROTOCOLS or _labelled_port(obj, int(port["port"]))


def _carries(obj: Object, selector: dict[str, Any]) -> bool:
    return selects(selector, obj["metadata"].get("labels") or {})


def _secured(server: McpServer, tls: Tls | None) -> McpServer:
    if tls is None:
        return server
    return msgspec.structs.replace(
        server, tls=True, tls_insecure=tls.insecure, tls_ca=tls.ca, authority=tls.hostname or server.authority
    )


def _named(tls: Tls | None, host: str) -> Tls | None:
    return tls if tls is None or tls.hostname else msgspec.structs.replace(tls, hostname=host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
