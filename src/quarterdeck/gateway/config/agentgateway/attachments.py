"""Policies that name what they apply to, instead of standing there."""

from __future__ import annotations

from dataclasses import dataclass, field

from quarterdeck.snapshot.merge import merged
from quarterdeck.snapshot.policies import Policies

from ..document import Path_
from . import now
from .context import Context
from .rules import policies

_NAMESPACE = (None, "", "default")
"""Where the gateways and backends of a file are."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is. Names that do not apply yet are empty."""

    gateways: tuple[str, ...]
    """Names of the gateway, or of the bind."""
    listener: str = ""
    port: int = 0
    route: str = ""
    """``namespace/name``."""
    rule: str = ""
    backend: str = ""
    target: str = ""

    @property
    def keys(self) -> dict[str, str]:
        """agentgateway's key of each part."""
        listener = f"{self.gateways[0]}/{self.listener}"
        route = f"{listener}/{self.route}"
        return {
            "gateway": self.gateways[0],
            "listener": listener,
            "route": route,
            "routeRule": f"{route}/{self.rule}" if self.rule else route,
            "backend": self.backend,
            "subBackend": f"{self.backend}/{self.target}",
        }


@dataclass(frozen=True, slots=True)
class Named:
    """A target of October 2025: one text."""

    kind: str
    name: str

    def fits(self, level: str, place: Place) -> bool:
        wanted = {"route": "route", "routeRule": "route", "backend": "backend", "subBackend": "target"}
        if level != wanted.get(self.kind, "listener"):
            return False
        names = [*place.gateways] if self.kind == "gateway" else [place.keys[self.kind]]
        return any(name == self.name or name.endswith(f"/{self.name}") for name in names)


@dataclass(frozen=True, slots=True)
class Structured:
    """A target of today."""

    model: now.PolicyTarget

    def fits(self, level: str, place: Place) -> bool:
        model = self.model
        if model.gateway is not None:
            gateway = model.gateway
            return (
                level == "listener"
                and gateway.gateway_name in place.gateways
                and gateway.gateway_namespace in _NAMESPACE
                and gateway.listener_name in (None, place.listener)
                and gateway.port in (None, place.port)
            )
        if model.route is not None:
            route = model.route
            return (
                level == "route"
                and route.kind in (None, "HTTPRoute")
                and place.route == f"{route.namespace or 'default'}/{route.name}"
                and route.rule_name in (None, place.rule)
            )
        named = model.backend.backend if model.backend is not None else None
        if named is None or named.namespace not in _NAMESPACE or level != ("target" if named.section else "backend"):
            return False
        same = place.backend == named.name or place.backend.endswith(f"/{named.name}")
        return same and named.section in (None, place.target)


@dataclass(slots=True)
class Attachment:
    """One entry; ``early`` before a route is found."""

    path: Path_
    target: Named | Structured
    policies: Policies
    early: bool = False
    used: bool = False


@dataclass(slots=True)
class Attachments:
    """All entries of a file."""

    entries: list[Attachment] = field(default_factory=list[Attachment])

    def add(self, context: Context, path: Path_, entry: now.TargetedPolicy, target: Named | Structured) -> None:
        name = entry.name if isinstance(entry.name, str) else f"{entry.name.namespace}/{entry.name.name}"
        model = entry.policy
        unusable = [field for field in ("request_mirror", "backend_tls") if getattr(model, field) is not None]
        for attribute in unusable:
            written = model.__struct_encode_fields__[model.__struct_fields__.index(attribute)]
            context.error((*path, "policy", written), "write it where the route or backend is")
        found = policies(context, (*path, "policy"), model, f"policy/{name}")
        self.entries.append(Attachment(path, target, found, entry.phase == "gateway"))

    def outer(self, level: str, place: Place, *, early: bool = False) -> Policies:
        """What entries attach at ``level`` (listener, route, backend, target) to ``place``; a later entry wins."""
        result = Policies()
        for entry in self.entries:
            if entry.early == early and entry.target.fits(level, place):
                entry.used = True
                result = merged(result, entry.policies)
        return result

    def check(self, context: Context) -> None:
        """An entry that applies to nothing protects nothing: an error."""
        for entry in self.entries:
            if not entry.used:
                context.error((*entry.path, "target"), "nothing in this file has that name")
