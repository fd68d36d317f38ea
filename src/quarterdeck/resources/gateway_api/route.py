"""HTTPRoute, and what GRPCRoute shares with it, the fields that are read (httproute_types.go)."""

from __future__ import annotations

from pydantic import Field

from quarterdeck.resources.base import Model

from .references import BackendRef, ParentRef


class PathMatch(Model):
    type: str = "PathPrefix"
    value: str = "/"


class TextMatch(Model):
    """A header or query parameter."""

    type: str = "Exact"
    name: str
    value: str


class Match(Model):
    path: PathMatch = PathMatch()
    headers: list[TextMatch] | None = None
    query_params: list[TextMatch] | None = None
    method: str | None = None


class Header(Model):
    name: str
    value: str


class HeaderFilter(Model):
    set: list[Header] | None = None
    add: list[Header] | None = None
    remove: list[str] | None = None


class PathModifier(Model):
    type: str
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class RedirectFilter(Model):
    scheme: str | None = None
    hostname: str | None = None
    path: PathModifier | None = None
    port: int | None = None
    status_code: int = 302


class RewriteFilter(Model):
    hostname: str | None = None
    path: PathModifier | None = None


class Fraction(Model):
    numerator: int
    denominator: int = 100


class MirrorFilter(Model):
    backend_ref: BackendRef
    percent: int | None = None
    fraction: Fraction | None = None


class CorsFilter(Model):
    allow_origins: list[str] | None = None
    allow_methods: list[str] | None = None
    allow_headers: list[str] | None = None
    expose_headers: list[str] | None = None
    allow_credentials: bool | None = None
    max_age: int = 5


class ExtensionRef(Model):
    group: str
    kind: str
    name: str


class Filter(Model):
    """``type`` says which of the others is meant."""

    type: str
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None
    request_redirect: RedirectFilter | None = None
    url_rewrite: RewriteFilter | None = None
    cors: CorsFilter | None = None
    extension_ref: ExtensionRef | None = None


class HttpBackendRef(BackendRef):
    weight: int = 1
    filters: list[Filter] | None = None


class Timeouts(Model):
    request: str | None = None
    backend_request: str | None = None


class Retry(Model):
    codes: list[int] | None = None
    attempts: int = 1
    backoff: str | None = None


class HttpRule(Model):
    name: str | None = None
    matches: list[Match] = Field(default_factory=lambda: [Match()])
    filters: list[Filter] | None = None
    backend_refs: list[HttpBackendRef] | None = None
    timeouts: Timeouts | None = None
    retry: Retry | None = None


class HttpRouteSpec(Model):
    parent_refs: list[ParentRef] | None = None
    hostnames: list[str] | None = None
    rules: list[HttpRule] = Field(default_factory=list[HttpRule])


class GrpcRouteSpec(Model):
    """Only where it wants to be attached: no gateway of ours carries gRPC."""

    parent_refs: list[ParentRef] | None = None
    hostnames: list[str] | None = None
