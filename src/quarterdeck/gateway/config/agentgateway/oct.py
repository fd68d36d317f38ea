# ruff: noqa: RUF012 - msgspec copies what stands as a default
"""Files of October 2025 (v0.10.5): ``binds``, with listeners and routes inside."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import field

from ..fields import Duration, Enforced, File, Harmless, Model, Refused
from .auditing import Audit
from .llm import LLM, AiBackendOct, AiPolicyOct
from .shared import (
    GRPC,
    HTTP1,
    SERVICE,
    SOCKETS,
    BackendAuth,
    BackendTls,
    BodyOptions,
    CorsPolicy,
    CsrfPolicy,
    Empty,
    HeaderModifier,
    IdentityProvider,
    JwtAuth,
    McpHost,
    OpenApi,
    RateLimitModel,
    RawConfig,
    RemoteRateLimit,
    RequestMirror,
    RequestRedirect,
    RouteMatch,
    RuleSet,
    ServiceRef,
    Stdio,
    TimeoutPolicy,
    Transform,
    UrlRewrite,
)

A2A = Refused("agents are not served from a file yet; serve them with Agent resources (/a2a/{namespace}/{name})")
TCP = Refused("only HTTP and HTTPS are served; put a TCP proxy beside this gateway")
REMOTE = Refused("a rate limit service cannot be asked; use localRateLimit")
DYNAMIC = Refused("a backend that the caller chooses could be any address; name it with host")


class ServerTls(Model):
    proof: ClassVar[str] = "test_routes.py::test_tls"
    cert: File
    key: File


class McpAuthentication(Model):
    """The token of every request must be of ``issuer`` and for ``audience``."""

    proof: ClassVar[str] = "test_generations.py::test_mcp_authentication_of_october"
    issuer: str
    audience: str
    jwks_url: str
    provider: IdentityProvider | None = None
    resource_metadata: dict[str, Any] = {}


class ExtAuthz(Model):
    """gRPC only, in October 2025."""

    service: ServiceRef | None = None
    host: str | None = None
    context: dict[str, str] | None = None
    fail_open: bool = False
    status_on_error: int | None = None
    include_request_body: BodyOptions | None = None


class ExtProc(Model):
    service: ServiceRef | None = None
    host: str | None = None
    failure_mode: Literal["failClosed", "failOpen"] = "failClosed"


class DirectResponse(Model):
    proof: ClassVar[str] = "test_policies.py::test_direct_response"
    body: str | list[int]
    status: int


class Transformations(Model):
    proof: ClassVar[str] = "test_policies.py::test_transformations"
    request: Transform | None = None
    response: Transform | None = None


class Retry(Model):
    proof: ClassVar[str] = "test_policies.py::test_timeout_and_retry"
    codes: list[int]
    attempts: int = 1
    backoff: Duration | None = None


class RoutePolicies(Model):
    """The 24 policies of a route."""

    proof: ClassVar[str] = "test_policies.py::test_every_policy_reaches_the_snapshot"
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: UrlRewrite | None = None
    request_mirror: RequestMirror | None = None
    direct_response: DirectResponse | None = None
    cors: CorsPolicy | None = None
    mcp_authorization: RuleSet | None = None
    authorization: RuleSet | None = None
    mcp_authentication: McpAuthentication | None = None
    a2a: Annotated[Empty | None, A2A] = None
    ai: Annotated[AiPolicyOct | None, LLM] = None
    backend_tls: BackendTls | None = field(name="backendTLS", default=None)
    backend_auth: BackendAuth | None = None
    local_rate_limit: list[RateLimitModel] = []
    remote_rate_limit: Annotated[RemoteRateLimit | None, REMOTE] = None
    jwt_auth: JwtAuth | None = None
    ext_authz: Annotated[
        ExtAuthz | None, Refused("gRPC authorizers cannot be asked; use protocol.http of today's format")
    ] = None
    ext_proc: Annotated[ExtProc | None, GRPC] = None
    transformations: Transformations | None = None
    csrf: CsrfPolicy | None = None
    timeout: TimeoutPolicy | None = None
    retry: Retry | None = None
    concurrency: Annotated[int | None, Enforced("test_policies.py::test_concurrency")] = None
    """Ours: requests at a time."""


class McpTarget(Model):
    """Exactly one of sse, mcp, stdio and openapi."""

    proof: ClassVar[str] = "test_routes.py::test_mcp_targets"
    name: str
    sse: McpHost | None = None
    mcp: McpHost | None = None
    stdio: Annotated[Stdio | None, Enforced("test_routes.py::test_stdio_targets")] = None
    openapi: Annotated[OpenApi | None, Enforced("test_routes.py::test_openapi_targets")] = None


class McpBackend(Model):
    proof: ClassVar[str] = "test_routes.py::test_mcp_backends"
    targets: list[McpTarget]
    stateful_mode: Literal["stateful", "stateless"] = "stateful"
    prefix_mode: Literal["conditional", "always"] | None = None


class RouteBackend(Model):
    """Exactly one destination."""

    proof: ClassVar[str] = "test_routes.py::test_http_backends"
    weight: int = 1
    service: Annotated[ServiceRef | None, SERVICE] = None
    host: str | None = None
    dynamic: Annotated[Empty | None, DYNAMIC] = None
    mcp: Annotated[McpBackend | None, Enforced("test_routes.py::test_mcp_backends")] = None
    ai: Annotated[AiBackendOct | None, LLM] = None


class Route(Model):
    proof: ClassVar[str] = "test_routes.py::test_names"
    name: str | None = None
    rule_name: str | None = None
    hostnames: Annotated[list[str], Enforced("test_routes.py::test_matches")] = []
    matches: Annotated[tuple[RouteMatch, ...], Enforced("test_routes.py::test_matches")] = field(
        default_factory=lambda: (RouteMatch(),)
    )
    policies: Annotated[RoutePolicies | None, Enforced("test_policies.py::test_every_policy_reaches_the_snapshot")] = (
        None
    )
    backends: Annotated[list[RouteBackend], Enforced("test_routes.py::test_http_backends")] = []


class TcpRoute(Model):
    name: str | None = None
    rule_name: str | None = None
    hostnames: list[str] = []
    policies: dict[str, Any] | None = None
    backends: list[dict[str, Any]] = []


class Listener(Model):
    proof: ClassVar[str] = "test_routes.py::test_listeners"
    name: str | None = None
    gateway_name: str | None = None
    hostname: str | None = None
    protocol: Literal["HTTP", "HTTPS", "TLS", "TCP", "HBONE"] = "HTTP"
    tls: Annotated[ServerTls | None, Enforced("test_routes.py::test_tls")] = None
    routes: list[Route] | None = None
    tcp_routes: Annotated[list[TcpRoute] | None, TCP] = None


class Bind(Model):
    proof: ClassVar[str] = "test_routes.py::test_listeners"
    port: int
    listeners: list[Listener]


class PolicyTarget(Model):
    """Exactly one of them: the key of what it names, or the end of that key."""

    proof: ClassVar[str] = "test_attachments.py::test_targets_of_october"
    gateway: str | None = None
    listener: str | None = None
    route: str | None = None
    route_rule: str | None = None
    service: Annotated[str | None, SERVICE] = None
    backend: str | None = None
    sub_backend: str | None = None


class TargetedPolicy(Model):
    proof: ClassVar[str] = "test_attachments.py::test_targets_of_october"
    name: str
    target: PolicyTarget
    policy: RoutePolicies


class GatewayPolicies(Model):
    """What can be applied before a route is found."""

    proof: ClassVar[str] = "test_attachments.py::test_gateway_policies_of_october"
    ext_proc: Annotated[ExtProc | None, GRPC] = None
    jwt_auth: JwtAuth | None = None
    transformations: Transformations | None = None


class GatewayPolicy(Model):
    proof: ClassVar[str] = "test_attachments.py::test_gateway_policies_of_october"
    name: str
    target: PolicyTarget
    policy: GatewayPolicies


class ListenerSettings(Model):
    """Of all connections that come in."""

    proof: ClassVar[str] = "test_settings.py::test_max_buffer_size"
    max_buffer_size: int | None = None
    tls_handshake_timeout: Annotated[Duration | None, SOCKETS] = None
    http1_max_headers: Annotated[int | None, Harmless("headers are bounded by 64 KiB")] = None
    http1_idle_timeout: Annotated[Duration | None, SOCKETS] = None
    http2_window_size: Annotated[int | None, HTTP1] = None
    http2_connection_window_size: Annotated[int | None, HTTP1] = None
    http2_frame_size: Annotated[int | None, HTTP1] = None
    http2_keepalive_interval: Annotated[Duration | None, HTTP1] = None
    http2_keepalive_timeout: Annotated[Duration | None, HTTP1] = None


class ConfigOct(RawConfig):
    proof: ClassVar[str] = "test_settings.py::test_addresses"
    listener: Annotated[ListenerSettings | None, Enforced("test_settings.py::test_max_buffer_size")] = None


class Root(Model):
    """A whole file."""

    proof: ClassVar[str] = "test_routes.py::test_listeners"
    config: Annotated[ConfigOct | None, Enforced("test_settings.py::test_addresses")] = None
    binds: list[Bind] = []
    policies: Annotated[list[TargetedPolicy], Enforced("test_attachments.py::test_targets_of_october")] = []
    gateway_policies: Annotated[
        list[GatewayPolicy], Enforced("test_attachments.py::test_gateway_policies_of_october")
    ] = []
    workloads: Annotated[list[dict[str, Any]], SERVICE] = []
    services: Annotated[list[dict[str, Any]], SERVICE] = []
    audit: Annotated[Audit | None, Enforced("test_settings.py::test_audit")] = None
    """Ours."""
