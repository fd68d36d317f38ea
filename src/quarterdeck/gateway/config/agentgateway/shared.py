# ruff: noqa: RUF012 - msgspec copies what stands as a default
"""Parts of a file that both generations write the same way.

Field names, defaults and meaning: agentgateway's ``types/local.rs`` and ``schema/config.json``.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import field

from ..fields import Cel, Duration, Enforced, File, Harmless, Model, Raw, Refused, Secret

HTTP1 = Harmless("this gateway speaks HTTP/1.1")
SOCKETS = Harmless("connections are kept by this gateway's own rules")
GRPC = Refused("gRPC services cannot be asked")
AWS = Refused("AWS signatures are not made; put a signing proxy in front")
NO_MESH = Refused("this gateway takes no part in a mesh; remove it")


class Empty(Model):
    """``{}``."""


class Text(Model):
    """``exact``, or ``regex`` over the whole value."""

    proof: ClassVar[str] = "test_routes.py::test_matches"
    exact: str | None = None
    regex: str | None = None


class NamedText(Model):
    proof: ClassVar[str] = "test_routes.py::test_matches"
    name: str
    value: Text


class PathMatch(Model):
    proof: ClassVar[str] = "test_routes.py::test_matches"
    exact: str | None = None
    path_prefix: str | None = None
    regex: str | None = None


class RouteMatch(Model):
    proof: ClassVar[str] = "test_routes.py::test_matches"
    headers: list[NamedText] = []
    path: PathMatch = field(default_factory=lambda: PathMatch(path_prefix="/"))
    method: str | None = None
    query: list[NamedText] = []


class NamespacedHostname(Model):
    proof: ClassVar[str] = "test_fields.py::test_refused"
    namespace: str
    hostname: str


class ServiceRef(Model):
    proof: ClassVar[str] = "test_fields.py::test_refused"
    name: NamespacedHostname
    port: int


SERVICE = Refused("there is no service registry in a file; name the address with host")


class SimpleBackend(Model):
    """Exactly one of them."""

    proof: ClassVar[str] = "test_policies.py::test_mirror"
    service: Annotated[ServiceRef | None, SERVICE] = None
    host: str | None = None
    backend: str | None = None


class HeaderModifier(Model):
    proof: ClassVar[str] = "test_policies.py::test_header_modifiers"
    add: dict[str, str] = {}
    set: dict[str, str] = {}
    remove: list[str] = []


class Authority(Model):
    proof: ClassVar[str] = "test_policies.py::test_redirect"
    full: str | None = None
    host: str | None = None
    port: int | None = None


class PathChange(Model):
    proof: ClassVar[str] = "test_policies.py::test_redirect"
    full: str | None = None
    prefix: str | None = None


class RequestRedirect(Model):
    proof: ClassVar[str] = "test_policies.py::test_redirect"
    scheme: str | None = None
    authority: Authority | Literal["auto", "none"] | None = None
    path: PathChange | None = None
    status: int | None = None


class UrlRewrite(Model):
    proof: ClassVar[str] = "test_policies.py::test_rewrite"
    authority: Authority | Literal["auto", "none"] | None = None
    path: PathChange | None = None


class RequestMirror(Model):
    proof: ClassVar[str] = "test_policies.py::test_mirror"
    backend: SimpleBackend
    percentage: float = 100.0


class CorsPolicy(Model):
    proof: ClassVar[str] = "test_policies.py::test_cors"
    allow_credentials: bool = False
    allow_headers: list[str] = []
    allow_methods: list[str] = []
    allow_origins: list[str] = []
    expose_headers: list[str] = []
    max_age: Duration | None = None


class RuleModel(Model):
    """Exactly one of them."""

    proof: ClassVar[str] = "test_policies.py::test_authorization"
    allow: Cel | None = None
    deny: Cel | None = None
    require: Cel | None = None


class RuleSet(Model):
    """A plain text is ``allow``."""

    proof: ClassVar[str] = "test_policies.py::test_authorization"
    rules: list[Cel | RuleModel]


class KeySource(Model):
    """``url`` is asked while the gateway serves, never while it validates."""

    proof: ClassVar[str] = "test_policies.py::test_jwt"
    file: File | None = None
    url: str | None = None


class HeaderLocation(Model):
    proof: ClassVar[str] = "test_policies.py::test_locations"
    name: str
    prefix: str | None = None


class NamedLocation(Model):
    proof: ClassVar[str] = "test_policies.py::test_locations"
    name: str


class ExpressionLocation(Model):
    """Before 1.4 the expression was nested once more."""

    proof: ClassVar[str] = "test_policies.py::test_locations"
    expression: Cel


class LocationModel(Model):
    """Exactly one of them."""

    proof: ClassVar[str] = "test_policies.py::test_locations"
    header: HeaderLocation | None = None
    query_parameter: NamedLocation | None = None
    cookie: NamedLocation | None = None
    expression: Cel | ExpressionLocation | None = None


class ValidationOptions(Model):
    proof: ClassVar[str] = "test_policies.py::test_jwt"
    required_claims: tuple[str, ...] = ("exp",)


ModeText = Literal["strict", "optional", "permissive"]


class JwtProviderModel(Model):
    proof: ClassVar[str] = "test_policies.py::test_jwt"
    issuer: str
    jwks: str | KeySource
    audiences: list[str] | None = None
    jwt_validation_options: ValidationOptions = field(default_factory=ValidationOptions)


class JwtAuth(Model):
    """One provider inline, or ``providers``."""

    proof: ClassVar[str] = "test_policies.py::test_jwt"
    mode: ModeText = "optional"
    location: LocationModel | None = None
    providers: list[JwtProviderModel] | None = None
    issuer: str | None = None
    audiences: list[str] | None = None
    jwks: str | KeySource | None = None
    jwt_validation_options: ValidationOptions = field(default_factory=ValidationOptions)


class IdentityProvider(Model):
    """At most one of them."""

    proof: ClassVar[str] = "test_policies.py::test_mcp_authentication"
    auth0: Empty | None = None
    keycloak: Empty | None = None
    okta: Empty | None = None
    descope: Empty | None = None
    authentik: Empty | None = None
    entra: Empty | None = None


class BackendTls(Model):
    proof: ClassVar[str] = "test_policies.py::test_backend_tls"
    cert: File | None = None
    key: File | None = None
    root: File | None = None
    hostname: str | None = None
    insecure: bool = False
    insecure_host: Annotated[
        bool | None, Refused("checking everything but the name is not offered; set hostname to the certificate's name")
    ] = None
    alpn: Annotated[list[str] | None, HTTP1] = None
    subject_alt_names: Annotated[
        list[str] | None, Refused("set hostname to the one name the certificate must be for")
    ] = None
    key_exchange_groups: Annotated[
        list[str] | None, Refused("key exchange is chosen by the TLS library; remove it")
    ] = None


class AwsCredentials(Model):
    """Explicit keys, or what the environment has."""

    access_key_id: str | None = None
    secret_access_key: Secret | None = None
    region: str | None = None
    session_token: Secret | None = None
    service_name: str | None = None
    assume_role: dict[str, Any] | None = None


class CloudCredentials(Model):
    """GCP: kind of token, audience and credential."""

    type: Literal["idToken", "accessToken"] | None = None
    audience: str | None = None
    credential: Secret | None = None


class Passthrough(Model):
    proof: ClassVar[str] = "test_policies.py::test_backend_auth"
    location: LocationModel | None = None


class KeyFile(Model):
    """A key as ``{file: PATH}``, as ``{value, location}``; in text it stands for itself."""

    proof: ClassVar[str] = "test_policies.py::test_backend_auth"
    file: File | None = None
    value: Secret | None = None
    location: LocationModel | None = None


class ClientAuth(Model):
    """With a secret, or the ``signingKey`` (PEM) of ``privateKeyJwt``."""

    proof: ClassVar[str] = "test_policies.py::test_clients_of_token_endpoints"
    client_id: str
    client_secret: Secret | None = None
    method: Literal["clientSecretBasic", "clientSecretPost", "privateKeyJwt"] | None = None
    signing_key: Secret | None = None
    alg: Annotated[str | None, Harmless("the algorithm is the key's own")] = None
    kid: Annotated[str | None, Refused("assertions carry no key id; remove it")] = None
    assertion_audience: Annotated[str | None, Refused("assertions are for the token endpoint's URL; remove it")] = None


class TokenExchange(Model):
    """RFC 8693: the caller's token for one of the backend's."""

    proof: ClassVar[str] = "test_policies.py::test_token_exchange"
    host: str | None = None
    service: Annotated[ServiceRef | None, SERVICE] = None
    backend: Annotated[str | None, Refused("name the token endpoint's address with host")] = None
    policies: Annotated[dict[str, Any] | None, Refused("write host as https://…")] = None
    path: str = "/"
    grant_type: Annotated[
        Literal["tokenExchange", "jwtBearer"], Enforced("test_policies.py::test_clients_of_token_endpoints")
    ] = "tokenExchange"
    subject_token: Annotated[dict[str, Any] | None, Refused("the caller's own token is exchanged; remove it")] = None
    actor_token: Annotated[dict[str, Any] | None, Refused("no actor is named; remove it")] = None
    audiences: list[str] = []
    scopes: list[str] = []
    resources: list[str] = []
    requested_token_type: str | None = None
    client_auth: ClientAuth | None = None
    additional_params: Annotated[dict[str, str] | None, Refused("only RFC 8693's parameters are sent")] = None
    authorization_location: LocationModel | None = None
    cache: Annotated[dict[str, Any] | None, Harmless("tokens are kept as long as they are valid")] = None


class TokenEndpoint(Model):
    proof: ClassVar[str] = "test_policies.py::test_cross_app_access"
    client_auth: ClientAuth
    host: str | None = None
    service: Annotated[ServiceRef | None, SERVICE] = None
    backend: Annotated[str | None, Refused("name the token endpoint's address with host")] = None
    policies: Annotated[dict[str, Any] | None, Refused("write host as https://…")] = None
    path: str = "/"


class CrossAppAccess(Model):
    """The caller's identity token for an ID-JAG at the identity provider, that for a token of the resource."""

    proof: ClassVar[str] = "test_policies.py::test_cross_app_access"
    identity_provider: TokenEndpoint
    resource_authorization_server: TokenEndpoint
    audience: str
    resources: list[str] = []
    scopes: list[str] = []
    subject_token: Annotated[dict[str, Any] | None, Refused("the caller's own token is exchanged; remove it")] = None
    access_token_scopes: list[str] | None = None
    cache: Annotated[dict[str, Any] | None, Harmless("tokens are kept as long as they are valid")] = None


CLOUD = Refused("cloud credentials are not made; put a key under backendAuth.key")


class BackendAuth(Model):
    """Exactly one of them."""

    proof: ClassVar[str] = "test_policies.py::test_backend_auth"
    passthrough: Passthrough | None = None
    key: str | KeyFile | None = None
    location: LocationModel | None = None
    credentials: Annotated[list[dict[str, Any]] | None, Refused("one backendAuth.key is what is sent")] = None
    gcp: Annotated[CloudCredentials | None, CLOUD] = None
    aws: Annotated[AwsCredentials | None, AWS] = None
    azure: Annotated[dict[str, Any] | None, CLOUD] = None
    copilot: Annotated[Empty | None, Refused("GitHub Copilot's credentials come with the LLM gateway")] = None
    jwt_sign: Annotated[dict[str, Any] | None, Refused("tokens are not signed here; use a key")] = None
    oauth_token_exchange: TokenExchange | None = None
    cross_app_access: CrossAppAccess | None = None


class RateLimitModel(Model):
    proof: ClassVar[str] = "test_policies.py::test_rate_limit"
    fill_interval: Duration
    max_tokens: int = 0
    tokens_per_fill: int = 0
    type: Literal["requests", "tokens"] = "requests"
    key: Cel | None = None
    """Ours: names the bucket of a request, e.g. ``jwt.sub`` or ``mcp.tool.name``; without it all share one."""


class Transform(Model):
    """Names and CEL that gives their values."""

    proof: ClassVar[str] = "test_policies.py::test_transformations"
    add: dict[str, Cel] = {}
    set: dict[str, Cel] = {}
    remove: list[str] = []
    body: Cel | None = None
    replace: Annotated[dict[str, Any] | None, Refused("write set instead")] = None
    metadata: Annotated[dict[str, str] | None, Refused("nothing reads metadata here; use set")] = None


class CsrfPolicy(Model):
    proof: ClassVar[str] = "test_policies.py::test_csrf"
    additional_origins: list[str] = []


class TimeoutPolicy(Model):
    proof: ClassVar[str] = "test_policies.py::test_timeout_and_retry"
    request_timeout: Duration | None = None
    backend_request_timeout: Duration | None = None


class BodyOptions(Model):
    proof: ClassVar[str] = "test_policies.py::test_ext_authz"
    max_request_bytes: int = 8192
    allow_partial_message: bool = False
    pack_as_bytes: Annotated[bool | None, GRPC] = None


class Descriptor(Model):
    entries: list[dict[str, str]]
    type: Literal["requests", "tokens"] = "requests"
    cost: str | None = None
    limit_override: str | None = None


class RemoteRateLimit(Model):
    service: ServiceRef | None = None
    host: str | None = None
    backend: str | None = None
    domain: str | None = None
    policies: dict[str, Any] | None = None
    descriptors: list[Descriptor] = []
    conditional: list[dict[str, Any]] | None = None
    failure_mode: Literal["failClosed", "failOpen", "FailClosed", "FailOpen"] = "failClosed"


class Stdio(Model):
    proof: ClassVar[str] = "test_routes.py::test_stdio_targets"
    cmd: str
    args: list[str] = []
    env: dict[str, str] = {}
    clear_env: bool = field(name="clear_env", default=False)


class McpHost(Model):
    """``host`` as a URL alone; or host, port and path; or ``backend`` and path."""

    proof: ClassVar[str] = "test_routes.py::test_mcp_targets"
    host: str | None = None
    port: int | None = None
    path: str | None = None
    backend: str | None = None


class SchemaSource(Model):
    proof: ClassVar[str] = "test_routes.py::test_openapi_targets"
    file: File | None = None
    url: Annotated[str | None, Refused("validating must not need the network; download it and name it with file")] = (
        None
    )


class OpenApi(Model):
    proof: ClassVar[str] = "test_routes.py::test_openapi_targets"
    schema: Raw | SchemaSource
    host: str | None = None
    port: int | None = None
    path: str | None = None
    backend: str | None = None


class Keepalives(Model):
    enabled: bool = True
    time: Duration = 180.0
    interval: Duration = 180.0
    retries: int = 9


class BackendSettings(Model):
    keepalives: Annotated[Keepalives | None, SOCKETS] = None
    connect_timeout: Annotated[Duration | None, SOCKETS] = None
    pool_idle_timeout: Annotated[Duration | None, SOCKETS] = None
    pool_max_size: Annotated[int | None, SOCKETS] = None


class LogFields(Model):
    remove: Annotated[
        list[str] | None, Refused("fields cannot be left out of the log; keep what must not be logged out of requests")
    ] = None
    add: Annotated[dict[str, str] | None, Harmless("audit record and access log have fields of their own")] = None


class Logging(Model):
    proof: ClassVar[str] = "test_settings.py::test_logging"
    filter: Annotated[str | None, Harmless("the access log (QUARTERDECK_GATEWAY_ACCESS_LOG) has every request")] = None
    fields: Annotated[LogFields | None, Enforced("test_fields.py::test_refused")] = None
    level: str | list[str] | None = None
    format: Literal["text", "json"] | None = None


class Tracing(Model):
    """Spans of calls, as OTLP over HTTP."""

    proof: ClassVar[str] = "test_settings.py::test_tracing"
    otlp_endpoint: str | None = None
    headers: dict[str, str] = {}
    otlp_protocol: Literal["grpc", "http"] = "grpc"
    fields: Annotated[LogFields | None, Enforced("test_fields.py::test_refused")] = None
    random_sampling: str | bool | float | None = None
    client_sampling: Annotated[str | bool | float | None, Harmless("traces that callers sampled are always kept")] = (
        None
    )
    path: str | None = None


class Metrics(Model):
    remove: list[str] = []
    fields: dict[str, Any] | None = None


class Hbone(Model):
    window_size: int | None = None
    connection_window_size: int | None = None
    frame_size: int | None = None
    pool_max_streams_per_conn: int | None = None
    pool_unused_release_timeout: Duration | None = None


class RawConfig(Model):
    """Settings of the process."""

    proof: ClassVar[str] = "test_settings.py::test_addresses"
    enable_ipv6: Annotated[bool | None, Harmless("listeners take IPv4")] = field(name="enableIpv6", default=None)
    local_xds_path: Annotated[str | None, Harmless("the file given with -f is the configuration")] = None
    ca_address: Annotated[str | None, NO_MESH] = None
    ca_auth_token: Annotated[Secret | None, NO_MESH] = None
    xds_address: Annotated[str | None, Refused("there is no xDS client; use a file or Quarterdeck's control plane")] = (
        None
    )
    xds_auth_token: Annotated[Secret | None, NO_MESH] = None
    namespace: Annotated[str | None, Harmless("a file has no namespace")] = None
    gateway: Annotated[str | None, Harmless("a file is one gateway")] = None
    trust_domain: Annotated[str | None, NO_MESH] = None
    service_account: Annotated[str | None, NO_MESH] = None
    cluster_id: Annotated[str | None, NO_MESH] = None
    network: Annotated[str | None, NO_MESH] = None
    admin_addr: str | None = None
    stats_addr: str | None = None
    readiness_addr: str | None = None
    connection_termination_deadline: Annotated[Duration | None, Harmless("calls in flight get ten seconds")] = None
    connection_min_termination_deadline: Annotated[Duration | None, Harmless("a drained gateway ends at once")] = None
    worker_threads: Annotated[str | int | None, Harmless("processes are set by QUARTERDECK_GATEWAY_WORKERS")] = None
    tracing: Annotated[Tracing | None, Enforced("test_settings.py::test_tracing")] = None
    logging: Annotated[Logging | None, Enforced("test_settings.py::test_logging")] = None
    metrics: Annotated[Metrics | None, Harmless("series have agentgateway's labels")] = None
    backend: Annotated[BackendSettings | None, SOCKETS] = None
    hbone: Annotated[Hbone | None, NO_MESH] = None
