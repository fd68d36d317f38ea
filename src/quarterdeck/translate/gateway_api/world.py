"""What Gateway API objects are compiled from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from quarterdeck.errors import ConfigError
from quarterdeck.kube.resource import Object
from quarterdeck.kube.selector import selects
from quarterdeck.resources.base import Model, parse
from quarterdeck.resources.gateway_api import AGENTGATEWAY_CLASS, CONTROLLER
from quarterdeck.resources.gateway_api.grant import ReferenceGrantSpec
from quarterdeck.snapshot import McpServer
from quarterdeck.snapshot.virtual import VirtualServer
from quarterdeck.translate.resolve import Services
from quarterdeck.translate.snapshot import Values

from .status import Problem

M = TypeVar("M", bound=Model)
ANONYMOUS = "quarterdeck.dev/allow-anonymous"
"""Annotation on a Gateway: whether MCP and other governed routes without authentication serve everybody (true), or
refuse who comes without a workload's identity (false)."""


@dataclass(slots=True)
class GatewayWorld:
    """All objects, as the API server has them, and what the rest of the snapshot offers."""

    classes: Sequence[Object] = ()
    gateways: Sequence[Object] = ()
    http_routes: Sequence[Object] = ()
    grpc_routes: Sequence[Object] = ()
    grants: Sequence[Object] = ()
    backends: Sequence[Object] = ()
    agentgateway_backends: Sequence[Object] = ()
    traffic_policies: Sequence[Object] = ()
    agentgateway_policies: Sequence[Object] = ()
    services: Sequence[Object] = ()
    endpoints: Services = field(default_factory=Services)
    values: Values = field(default_factory=lambda: Values.of((), ()))
    secret: Callable[[str, str], Object | None] = lambda namespace, name: None
    secrets: Callable[[str, Mapping[str, str]], Sequence[str]] = lambda namespace, labels: ()
    """Names of the Secrets of a namespace with these labels."""
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    """Of the Namespaces, by name."""
    servers: Mapping[str, McpServer] = field(default_factory=dict[str, McpServer])
    """The MCP servers of the snapshot by ``kind/namespace/name``."""
    virtual: Mapping[str, VirtualServer] = field(default_factory=dict[str, VirtualServer])
    """Its virtual servers by ``namespace/name``."""
    shared: bool = False
    """Whether one gateway serves all Gateways, on ports that must differ."""
    parsed: dict[tuple[Any, ...], Any] = field(default_factory=dict[tuple[Any, ...], Any])
    """Specs kept from earlier compilations, by uid and resourceVersion."""
    _seen: set[tuple[Any, ...]] = field(default_factory=set[tuple[Any, ...]])
    _grants: list[tuple[str, ReferenceGrantSpec]] | None = None

    def spec(self, model: type[M], obj: Object) -> M:
        """The typed spec. Raises ConfigError."""
        metadata = obj["metadata"]
        slot = (model, metadata.get("uid") or key_of(obj), metadata.get("resourceVersion"))
        if slot not in self.parsed or slot[2] is None:
            what = f"{obj.get('kind', model.__name__)} {metadata.get('namespace', '')}/{metadata['name']}"
            try:
                self.parsed[slot] = parse(model, obj.get("spec") or {}, what)
            except ConfigError as error:
                self.parsed[slot] = error
        self._seen.add(slot)
        found = self.parsed[slot]
        if isinstance(found, ConfigError):
            raise found
        return found

    def forget(self) -> None:
        """Drop specs of objects that are not there any more."""
        for slot in self.parsed.keys() - self._seen:
            del self.parsed[slot]

    def ours(self, gateway: Object) -> bool:
        """Whether its class is one of ours."""
        name = (gateway.get("spec") or {}).get("gatewayClassName")
        return any(
            obj["metadata"]["name"] == name and (obj.get("spec") or {}).get("controllerName") == CONTROLLER
            for obj in self.classes
        )

    def open(self, gateway: Object, *, governed: bool) -> bool:
        """Whether a route without authentication serves callers beyond loopback.

        Gateway API's plain HTTP routes do; ``governed`` ones (MCP, agents) only where the Gateway says so, or is of the
        class whose users know it like that.
        """
        said = (gateway["metadata"].get("annotations") or {}).get(ANONYMOUS)
        if said in ("true", "false"):
            return said == "true"
        return not governed or (gateway.get("spec") or {}).get("gatewayClassName") == AGENTGATEWAY_CLASS

    def may_refer(self, source: tuple[str, str, str], target: tuple[str, str, str, str]) -> bool:
        """Whether (group, kind, namespace) may refer to (group, kind, namespace, name)."""
        if source[2] == target[2]:
            return True
        if self._grants is None:
            self._grants = []
            for obj in self.grants:
                try:
                    self._grants.append((obj["metadata"]["namespace"], self.spec(ReferenceGrantSpec, obj)))
                except ConfigError:
                    continue  # nothing is granted by what cannot be read
        group, kind, namespace, name = target
        return any(
            home == namespace
            and any((f.group, f.kind, f.namespace) == source for f in grant.from_)
            and any((t.group, t.kind) == (group, kind) and t.name in (None, "", name) for t in grant.to)
            for home, grant in self._grants
        )

    def selected(self, selector: Mapping[str, Any] | None, namespace: str) -> bool:
        return selects(selector or {}, self.labels.get(namespace, {}))


def key_of(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def by_age(objects: Sequence[Object]) -> list[Object]:
    """The oldest first, then by name: who comes first wins (Gateway API, conflict resolution)."""
    return sorted(objects, key=lambda obj: (str(obj["metadata"].get("creationTimestamp") or ""), key_of(obj)))


def not_permitted(what: str, namespace: str, source: str) -> Problem:
    return Problem(
        "RefNotPermitted", f"{what} is in namespace {namespace}, where no ReferenceGrant lets {source} refer to it"
    )
