# ruff: noqa: RUF012 - msgspec copies what stands as a default
"""Policies as today's files write them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import field

from ..fields import Cel, Duration, Enforced, Harmless, Model, Refused, Secret
from .llm import LLM, AiPolicy
from .oct import A2A, REMOTE
from .shared import (
    GRPC,
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
    KeySource,
    LocationModel,
    ModeText,
    RateLimitModel,
    RemoteRateLimit,
    RequestMirror,
    RequestRedirect,
    RuleSet,
    ServiceRef,
    SimpleBackend,
    TimeoutPolicy,
    Transform,
    UrlRewrite,
    ValidationOptions,
)

CONDITIONAL = Refused("write one route per condition, with matches")
OIDC = Refused("browsers are not sent to a login page; put a login proxy in front and use jwtAuth")
TUNNEL = Refused("backends are dialled directly; remove it")
GUARDRAILS = Refused("guardrail services (gRPC) cannot be asked; use extAuthz over HTTP or mcpAuthorization")
BACKEND_TLS = Refused("the service is dialled without TLS of its own; use an https:// proxy on this machine")


class McpAuthentication(Model):
    proof: ClassVar[str] = "test_policies.py::test_mcp_authentication"
    issuer: str
    audiences: list[str]
    provider: IdentityProvider | None = None
    resource_metadata: dict[str, Any] = {}
    jwks: str | KeySource | None = None
    mode: ModeText = "strict"
    authorization_location: LocationModel | None = None
    jwt_validation_options: ValidationOptions = field(default_factory=ValidationOptions)
    client_id: str | None = None
    client_secret: Secret | None = None
    scopes: list[str] = []
    """Ours: what every token must be granted (403 ``insufficient_scope``)."""
    tool_scopes: dict[str, list[str]] = {}
    """Ours: what calls of a tool need besides; ``*`` stands for every tool that is not named."""
    relay_signing_key: Annotated[Secret | None, Refused("clients log in at the issuer itself; remove it")] = None


class ApiKeyModel(Model):
    """``key``, or ``keyHash`` as ``sha256:HEX``."""

    proof: ClassVar[str] = "test_policies.py::test_api_keys"
    key: Secret | None = None
    key_hash: str | None = None
    metadata: dict[str, Any] = {}
    allowed_models: Annotated[list[str] | None, LLM] = None


class ApiKeyAuth(Model):
    proof: ClassVar[str] = "test_policies.py::test_api_keys"
    keys: list[ApiKeyModel]
    mode: ModeText = "optional"
    location: LocationModel | None = None


class BasicAuth(Model):
    proof: ClassVar[str] = "test_policies.py::test_basic_auth"
    htpasswd: Secret
    realm: str | None = None
    mode: Literal["strict", "optional"] = "optional"
    authorization_location: Annotated[
        LocationModel | None, Refused("a name and password are read from Authorization only")
    ] = None


class Oidc(Model):
    issuer: str
    client_id: str
    client_secret: Secret
    redirect_uri: str = field(name="redirectURI")
    discovery: str | dict[str, Any] | None = None
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    token_endpoint_auth: Literal["clientSecretBasic", "clientSecretPost"] | None = None
    jwks: str | dict[str, Any] | None = None
    scopes: list[str] = []


class DirectResponse(Model):
    proof: ClassVar[str] = "test_policies.py::test_direct_response"
    body: str | list[int] = ""
    status: int | None = None
    body_expression: Annotated[str | None, Refused("write the text itself in body")] = None
    headers: Annotated[dict[str, str] | None, Refused("use responseHeaderModifier")] = None
    conditional: Annotated[list[dict[str, Any]] | None, CONDITIONAL] = None


class GrpcProtocol(Model):
    context: dict[str, str] | None = None
    metadata: dict[str, str] | None = None


class HttpProtocol(Model):
    proof: ClassVar[str] = "test_policies.py::test_ext_authz"
    path: Cel | None = None
    redirect: Cel | None = None
    include_response_headers: list[str] = []
    add_request_headers: dict[str, Cel] = {}
    metadata: dict[str, Cel] = {}


class AuthzProtocol(Model):
    """``http``; ``grpc`` is what is meant when nothing is written."""

    proof: ClassVar[str] = "test_policies.py::test_ext_authz"
    grpc: Annotated[GrpcProtocol | None, GRPC] = None
    http: HttpProtocol | None = None


class DenyWithStatus(Model):
    proof: ClassVar[str] = "test_policies.py::test_ext_authz"
    deny_with_status: int


class ExtAuthz(Model):
    proof: ClassVar[str] = "test_policies.py::test_ext_authz"
    service: Annotated[ServiceRef | None, SERVICE] = None
    host: str | None = None
    backend: Annotated[str | None, Refused("name the authorizer's address with host")] = None
    policies: Annotated[dict[str, Any] | None, BACKEND_TLS] = None
    protocol: AuthzProtocol | None = None
    failure_mode: Literal["allow", "deny"] | DenyWithStatus = "deny"
    include_request_headers: list[str] | None = None
    include_request_body: BodyOptions | None = None
    cache: Annotated[dict[str, Any] | None, Refused("every request is asked about; remove it")] = None
    conditional: Annotated[list[dict[str, Any]] | None, CONDITIONAL] = None


class ExtProc(Model):
    service: ServiceRef | None = None
    host: str | None = None
    backend: str | None = None
    policies: dict[str, Any] | None = None
    failure_mode: Literal["failClosed", "failOpen"] = "failClosed"
    metadata_context: dict[str, dict[str, str]] | None = None
    request_attributes: dict[str, str] | None = None
    response_attributes: dict[str, str] | None = None
    processing_options: dict[str, Any] | None = None
    conditional: list[dict[str, Any]] | None = None


class Transformations(Model):
    proof: ClassVar[str] = "test_policies.py::test_transformations"
    request: Transform | None = None
    response: Transform | None = None
    conditional: Annotated[list[dict[str, Any]] | None, CONDITIONAL] = None


class ConditionalRateLimits(Model):
    conditional: Annotated[list[dict[str, Any]], CONDITIONAL]


class Retry(Model):
    proof: ClassVar[str] = "test_policies.py::test_timeout_and_retry"
    codes: list[int]
    attempts: int = 1
    backoff: Duration | None = None
    precondition: Cel | None = None
    condition: Cel | None = None


class BufferSide(Model):
    proof: ClassVar[str] = "test_policies.py::test_buffer"
    max_bytes: int
    failure_mode: Annotated[Literal["failClosed"] | None, Enforced("test_policies.py::test_buffer")] = None


class Buffer(Model):
    proof: ClassVar[str] = "test_policies.py::test_buffer"
    request: BufferSide | None = None
    response: BufferSide | None = None


class Tunnel(Model):
    proxy: SimpleBackend


class Eviction(Model):
    proof: ClassVar[str] = "test_policies.py::test_health"
    duration: Duration | None = None
    consecutive_failures: int | None = None
    restore_health: Annotated[float | None, Harmless("after the break one call is tried")] = None
    health_threshold: Annotated[float | None, Refused("use consecutiveFailures")] = None


class Health(Model):
    proof: ClassVar[str] = "test_policies.py::test_health"
    unhealthy_expression: Annotated[
        str | None, Refused("what counts as a failure is fixed: 5xx, timeouts and lost connections")
    ] = None
    eviction: Eviction | None = None


class HttpSettings(Model):
    proof: ClassVar[str] = "test_policies.py::test_http_settings"
    version: Literal["HTTP/1.1", "http1", "HTTP1"] | None = None
    request_timeout: Duration | None = None


class TcpSettings(Model):
    keepalives: Annotated[dict[str, Any] | None, SOCKETS] = None
    connect_timeout: Annotated[str | dict[str, Any] | None, SOCKETS] = None


class Guardrails(Model):
    processors: list[dict[str, Any]] | None = None
    drivers: list[dict[str, Any]] | None = None


class TargetPolicies(Model):
    """Of one server behind an MCP backend; not for stdio."""

    proof: ClassVar[str] = "test_routes.py::test_target_policies"
    request_header_modifier: HeaderModifier | None = None
    transformations: Transformations | None = None
    backend_tls: BackendTls | None = field(name="backendTLS", default=None)
    backend_auth: BackendAuth | None = None
    http: HttpSettings | None = None
    tcp: Annotated[TcpSettings | None, SOCKETS] = None
    backend_tunnel: Annotated[Tunnel | None, TUNNEL] = None
    mcp_authorization: RuleSet | None = None
    ext_mcp: Annotated[Guardrails | None, GUARDRAILS] = None
    mcp_guardrails: Annotated[Guardrails | None, GUARDRAILS] = None


class BackendPolicies(Model):
    """Of one destination of a route."""

    proof: ClassVar[str] = "test_policies.py::test_backend_policies"
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: RequestRedirect | None = None
    transformations: Transformations | None = None
    backend_tls: BackendTls | None = field(name="backendTLS", default=None)
    backend_auth: BackendAuth | None = None
    http: HttpSettings | None = None
    tcp: Annotated[TcpSettings | None, SOCKETS] = None
    backend_tunnel: Annotated[Tunnel | None, TUNNEL] = None
    health: Health | None = None
    ext_authz: ExtAuthz | None = None
    authorization: RuleSet | None = None
    mcp_authorization: RuleSet | None = None
    ext_mcp: Annotated[Guardrails | None, GUARDRAILS] = None
    mcp_guardrails: Annotated[Guardrails | None, GUARDRAILS] = None
    a2a: Annotated[Empty | None, A2A] = None
    ai: Annotated[AiPolicy | None, LLM] = None
    inference_routing: Annotated[dict[str, Any] | None, Refused("endpoint pickers come with the inference gateway")] = (
        None
    )
    session_affinity: Annotated[dict[str, Any] | None, Refused("give the backend one address")] = None


class GatewayPolicies(Model):
    """What is applied before a route is found."""

    proof: ClassVar[str] = "test_routes.py::test_listener_policies"
    cors: CorsPolicy | None = None
    jwt_auth: JwtAuth | None = None
    oidc: Annotated[Oidc | None, OIDC] = None
    api_key: ApiKeyAuth | None = None
    basic_auth: BasicAuth | None = None
    authorization: RuleSet | None = None
    ext_authz: ExtAuthz | None = None
    ext_proc: Annotated[ExtProc | None, GRPC] = None
    transformations: Transformations | None = None


class RoutePolicies(Model):
    """The policies of a route."""

    proof: ClassVar[str] = "test_policies.py::test_every_policy_reaches_the_snapshot"
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: UrlRewrite | None = None
    request_mirror: RequestMirror | None = None
    direct_response: DirectResponse | None = None
    cors: CorsPolicy | None = None
    mcp_authorization: RuleSet | None = None
    ext_mcp: Annotated[Guardrails | None, GUARDRAILS] = None
    mcp_guardrails: Annotated[Guardrails | None, GUARDRAILS] = None
    authorization: RuleSet | None = None
    mcp_authentication: McpAuthentication | None = None
    a2a: Annotated[Empty | None, A2A] = None
    ai: Annotated[AiPolicy | None, LLM] = None
    backend_tls: BackendTls | None = field(name="backendTLS", default=None)
    backend_tunnel: Annotated[Tunnel | None, TUNNEL] = None
    backend_auth: BackendAuth | None = None
    local_rate_limit: Annotated[
        list[RateLimitModel] | ConditionalRateLimits, Enforced("test_policies.py::test_rate_limit")
    ] = []
    remote_rate_limit: Annotated[RemoteRateLimit | None, REMOTE] = None
    jwt_auth: JwtAuth | None = None
    oidc: Annotated[Oidc | None, OIDC] = None
    basic_auth: BasicAuth | None = None
    api_key: ApiKeyAuth | None = None
    ext_authz: ExtAuthz | None = None
    ext_proc: Annotated[ExtProc | None, GRPC] = None
    transformations: Transformations | None = None
    csrf: CsrfPolicy | None = None
    timeout: TimeoutPolicy | None = None
    retry: Retry | None = None
    buffer: Buffer | None = None
    concurrency: Annotated[int | None, Enforced("test_policies.py::test_concurrency")] = None
    """Ours: requests at a time."""
    delay: Annotated[dict[str, Any] | None, Refused("requests are not delayed on purpose; remove it")] = None
