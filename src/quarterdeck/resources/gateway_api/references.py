"""References between objects of Gateway API (shared_types.go, object_reference_types.go)."""

from __future__ import annotations

from pydantic import Field

from quarterdeck.resources.base import Json, Model

from . import GROUP


class ObjectRef(Model):
    """A certificate or other object; the core group and a Secret unless said otherwise."""

    group: str = ""
    kind: str = "Secret"
    name: str
    namespace: str | None = None


class ParentRef(Model):
    """What a route wants to be attached to: a Gateway, or one listener or port of it."""

    group: str = GROUP
    kind: str = "Gateway"
    namespace: str | None = None
    name: str
    section_name: str | None = None
    port: int | None = None


class BackendRef(Model):
    """A destination; a Service unless said otherwise."""

    group: str = ""
    kind: str = "Service"
    name: str
    namespace: str | None = None
    port: int | None = None


class RouteNamespaces(Model):
    """Namespaces whose routes may attach."""

    from_: str = Field("Same", alias="from")
    selector: Json | None = None


class RouteKind(Model):
    group: str = GROUP
    kind: str


class AllowedRoutes(Model):
    namespaces: RouteNamespaces = Field(default_factory=RouteNamespaces.model_construct)
    kinds: list[RouteKind] | None = None
