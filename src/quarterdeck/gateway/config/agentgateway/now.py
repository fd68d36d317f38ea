# ruff: noqa: RUF012 - msgspec copies what stands as a default
"""Files of today (1.x, August 2026): ``gateways``, ``routes`` and ``mcp``; ``binds`` still works."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import field

from ..fields import Duration, Enforced, File, Harmless, Model, Refused, Secret
from .auditing import Audit
from .llm import LLM, AiBackend, Llm
from .oct import DYNAMIC, TCP, TcpRoute
from .policies import (
    BackendPolicies,
    GatewayPolicies,
    RoutePolicies,
    TargetPolicies,
)
from .shared import (
    AWS,
    HTTP1,
    NO_MESH,
    SERVICE,
    SOCKETS,
    McpHost,
    OpenApi,
    RawConfig,
    RouteMatch,
    RuleSet,
    ServiceRef,
    Stdio,
)
from .virtual import Virtual

TLS_LIBRARY = Refused("ciphers and key exchange are chosen by the TLS library; remove it")
TlsVersion = Literal["TLS_V1_0", "TLS_V1_1", "TLS_V1_2", "TLS_V1_3"]


class ServerTls(Model):
    """Never below TLS 1.2."""

    proof: ClassVar[str] = "test_routes.py::test_tls"
    cert: File
    key: File
    mode: Literal["static"] = "static"
    root: File | None = None
    spiffe: Annotated[dict[str, Any] | None, NO_MESH] = None
    cipher_suites: Annotated[list[str] | None, TLS_LIBRARY] = None
    min_tls_version: TlsVersion | None = field(name="minTLSVersion", default=None)
    max_tls_version: TlsVersion | None = field(name="maxTLSVersion", default=None)
    key_exchange_groups: Annotated[list[str] | None, TLS_LIBRARY] = None


class SignInSettings(Model):
    """The gateway as a client of what protects a target; all of it may be left out."""

    proof: ClassVar[str] = "test_routes.py::test_targets_with_sign_ins"
    client_id: str | None = None
    client_secret: Secret | None = None
    signing_key: Secret | None = None
    """PEM, for ``privateKeyJwt``."""
    method: Literal["clientSecretBasic", "clientSecretPost", "privateKeyJwt"] | None = None
    issuer: str | None = None
    scopes: list[str] = []
    trusted_hosts: list[str] = []
    name: str | None = None
    """What people call the server."""


class McpTarget(Model):
    """Exactly one of sse, mcp, stdio and openapi."""

    proof: ClassVar[str] = "test_routes.py::test_mcp_targets"
    name: str
    sse: McpHost | None = None
    mcp: McpHost | None = None
    stdio: Annotated[Stdio | None, Enforced("test_routes.py::test_stdio_targets")] = None
    openapi: Annotated[OpenApi | None, Enforced("test_routes.py::test_openapi_targets")] = None
    policies: Annotated[TargetPolicies | None, Enforced("test_routes.py::test_target_policies")] = None
    auth: Annotated[Literal["oauth"] | None, Enforced("test_routes.py::test_targets_with_sign_ins")] = None
    """``oauth``: every user signs in at the server for herself."""
    oauth: Annotated[SignInSettings | None, Enforced("test_routes.py::test_targets_with_sign_ins")] = None


class McpBackend(Model):
    proof: ClassVar[str] = "test_routes.py::test_mcp_backends"
    targets: list[McpTarget]
    stateful_mode: Literal["stateful", "stateless"] = "stateful"
    prefix_mode: Literal["conditional", "always", "never"] | None = None
    failure_mode: Literal["failClosed", "failOpen"] | None = None
    virtual: Annotated[Virtual | None, Enforced("test_virtual.py::test_every_field")] = None
    """Ours."""
    dns_rebinding_protection: Annotated[
        bool | dict[str, Any] | None, Harmless("Host and Origin are always checked")
    ] = None


class AwsBackend(Model):
    agent_core: dict[str, Any] | None = None


class RouteBackend(Model):
    """Exactly one destination."""

    proof: ClassVar[str] = "test_routes.py::test_http_backends"
    weight: int = 1
    service: Annotated[ServiceRef | None, SERVICE] = None
    host: str | None = None
    backend: Annotated[str | None, Enforced("test_routes.py::test_named_backends")] = None
    dynamic: Annotated[dict[str, Any] | None, DYNAMIC] = None
    mcp: Annotated[McpBackend | None, Enforced("test_routes.py::test_mcp_backends")] = None
    ai: Annotated[AiBackend | None, LLM] = None
    aws: Annotated[AwsBackend | None, AWS] = None
    internal: Annotated[Any, Refused("the admin port is served on its own address only")] = None
    route_group: Annotated[str | None, Refused("write the group's routes where they are used")] = None
    policies: Annotated[BackendPolicies | None, Enforced("test_policies.py::test_backend_policies")] = None


class NamedBackend(Model):
    """One of the file's ``backends``."""

    proof: ClassVar[str] = "test_routes.py::test_named_backends"
    name: str
    host: str | None = None
    mcp: McpBackend | None = None
    ai: Annotated[AiBackend | None, LLM] = None
    aws: Annotated[AwsBackend | None, AWS] = None
    policies: BackendPolicies | None = None


class Route(Model):
    proof: ClassVar[str] = "test_routes.py::test_names"
    name: str | None = None
    namespace: str | None = None
    rule_name: str | None = None
    gateways: Annotated[str | list[str] | None, Enforced("test_routes.py::test_gateways")] = None
    hostnames: Annotated[list[str], Enforced("test_routes.py::test_matches")] = []
    matches: Annotated[tuple[RouteMatch, ...], Enforced("test_routes.py::test_matches")] = field(
        default_factory=lambda: (RouteMatch(),)
    )
    policies: Annotated[RoutePolicies | None, Enforced("test_policies.py::test_every_policy_reaches_the_snapshot")] = (
        None
    )
    backends: Annotated[list[RouteBackend], Enforced("test_routes.py::test_http_backends")] = []


class Listener(Model):
    """A listener of ``binds``."""

    proof: ClassVar[str] = "test_routes.py::test_listeners"
    name: str | None = None
    namespace: Annotated[str | None, Harmless("a file has no namespace")] = None
    hostname: str | None = None
    protocol: Literal["HTTP", "HTTPS", "TLS", "TCP", "HBONE"] = "HTTP"
    tls: Annotated[ServerTls | None, Enforced("test_routes.py::test_tls")] = None
    routes: list[Route] | None = None
    tcp_routes: Annotated[list[TcpRoute] | None, TCP] = None
    policies: Annotated[GatewayPolicies | None, Enforced("test_routes.py::test_listener_policies")] = None


class Bind(Model):
    proof: ClassVar[str] = "test_routes.py::test_listeners"
    port: int
    listeners: list[Listener]
    tunnel_protocol: Literal["direct"] = "direct"


class GatewayListener(GatewayPolicies):
    """One host name of a gateway; what it leaves out is the gateway's."""

    proof: ClassVar[str] = "test_routes.py::test_gateways"
    name: str | None = None
    hostname: str | None = None
    protocol: Literal["HTTP", "HTTPS", "TLS", "TCP", "HBONE"] | None = None
    tls: Annotated[ServerTls | None, Enforced("test_routes.py::test_tls")] = None


class Gateway(GatewayPolicies, kw_only=True):
    proof: ClassVar[str] = "test_routes.py::test_gateways"
    port: int
    protocol: Literal["HTTP", "HTTPS", "TLS", "TCP", "HBONE"] | None = None
    tls: Annotated[ServerTls | None, Enforced("test_routes.py::test_tls")] = None
    listeners: list[GatewayListener] = []


class Mcp(McpBackend):
    """Served at ``/mcp`` and ``/sse`` as one server."""

    proof: ClassVar[str] = "test_routes.py::test_simple_mcp"
    gateways: str | list[str] | None = None
    port: int | None = None
    policies: RoutePolicies | None = None


class GatewayTarget(Model):
    proof: ClassVar[str] = "test_attachments.py::test_targets_of_today"
    gateway_name: str
    gateway_namespace: str | None = None
    listener_name: str | None = None
    port: int | None = None


class RouteTarget(Model):
    proof: ClassVar[str] = "test_attachments.py::test_targets_of_today"
    name: str
    namespace: str | None = None
    rule_name: str | None = None
    kind: Annotated[
        Literal["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"] | None,
        Enforced("test_attachments.py::test_policies_of_other_kinds_of_routes_fit_nothing"),
    ] = None


class BackendName(Model):
    proof: ClassVar[str] = "test_attachments.py::test_targets_of_today"
    name: str
    namespace: str | None = None
    section: str | None = None


class BackendTarget(Model):
    proof: ClassVar[str] = "test_attachments.py::test_targets_of_today"
    backend: BackendName | None = None
    service: Annotated[dict[str, Any] | None, SERVICE] = None


class PolicyTarget(Model):
    """Exactly one of them."""

    proof: ClassVar[str] = "test_attachments.py::test_targets_of_today"
    gateway: GatewayTarget | None = None
    route: RouteTarget | None = None
    backend: BackendTarget | None = None
    listener_set: Annotated[dict[str, Any] | None, Refused("name the gateway and its listener")] = None


class ResourceName(Model):
    proof: ClassVar[str] = "test_attachments.py::test_targets_of_today"
    name: str
    namespace: str = "default"


class TargetedPolicy(Model):
    proof: ClassVar[str] = "test_attachments.py::test_targets_of_today"
    name: str | ResourceName
    target: PolicyTarget
    policy: RoutePolicies
    phase: Annotated[Literal["route", "gateway"], Enforced("test_attachments.py::test_the_gateway_phase_of_today")] = (
        "route"
    )


class HttpFrontend(Model):
    proof: ClassVar[str] = "test_settings.py::test_max_buffer_size"
    max_buffer_size: int | None = None
    http1_max_headers: Annotated[int | None, Harmless("headers are bounded by 64 KiB")] = None
    http1_idle_timeout: Annotated[Duration | None, SOCKETS] = None
    http1_header_case: Annotated[str | None, Harmless("names of headers mean the same in any case")] = None
    http2_window_size: Annotated[int | None, HTTP1] = None
    http2_connection_window_size: Annotated[int | None, HTTP1] = None
    http2_frame_size: Annotated[int | None, HTTP1] = None
    http2_max_header_size: Annotated[int | None, HTTP1] = None
    http2_keepalive_interval: Annotated[Duration | None, HTTP1] = None
    http2_keepalive_timeout: Annotated[Duration | None, HTTP1] = None
    max_connection_duration: Annotated[Duration | None, SOCKETS] = None


class TlsFrontend(Model):
    proof: ClassVar[str] = "test_settings.py::test_frontend_tls"
    handshake_timeout: Annotated[Duration | None, SOCKETS] = None
    alpn: Annotated[list[Any] | None, HTTP1] = None
    min_version: TlsVersion | None = None
    max_version: TlsVersion | None = None
    cipher_suites: Annotated[list[str] | None, TLS_LIBRARY] = None
    key_exchange_groups: Annotated[list[str] | None, TLS_LIBRARY] = None


class FrontendPolicies(Model):
    proof: ClassVar[str] = "test_settings.py::test_max_buffer_size"
    http: HttpFrontend | None = None
    tls: Annotated[TlsFrontend | None, Enforced("test_settings.py::test_frontend_tls")] = None
    tcp: Annotated[dict[str, Any] | None, SOCKETS] = None
    network_authorization: Annotated[
        RuleSet | None, Refused("write the rules (source.address) as authorization of the gateway or route")
    ] = None
    network_ext_authz: Annotated[dict[str, Any] | None, Refused("use extAuthz of the gateway or route")] = None
    proxy_protocol: Annotated[
        dict[str, Any] | None, Refused("the PROXY protocol is not read; let the balancer pass connections through")
    ] = None
    connect: Annotated[dict[str, Any] | None, Refused("CONNECT is always refused; remove it")] = None
    access_log: Annotated[dict[str, Any] | None, Harmless("audit record and access log have fields of their own")] = (
        None
    )
    tracing: Annotated[dict[str, Any] | None, Harmless("spans are sent to QUARTERDECK_GATEWAY_TRACE_OTLP")] = None


class SessionSettings(Model):
    key: Annotated[
        Secret, Refused("the key of sessions is made in the data directory; replicas share it with --key-file")
    ]


class McpSettings(Model):
    session_ttl: Annotated[Duration | None, Harmless("a session is its token and takes no memory")] = None


class Config(RawConfig):
    proof: ClassVar[str] = "test_settings.py::test_addresses"
    dns: Annotated[dict[str, Any] | None, Harmless("the system's resolver is used")] = None
    additional_trust_domains: Annotated[str | None, NO_MESH] = None
    skip_validate_trust_domain: Annotated[bool | None, NO_MESH] = None
    spiffe: Annotated[dict[str, Any] | None, NO_MESH] = None
    session: Annotated[SessionSettings | None, Enforced("test_fields.py::test_refused")] = None
    mcp: Annotated[McpSettings | None, Enforced("test_fields.py::test_harmless")] = None
    model_catalog: Annotated[list[dict[str, Any]] | None, LLM] = None
    database: Annotated[dict[str, Any] | None, Harmless("requests are kept in the audit file")] = None
    storage: Annotated[dict[str, Any] | None, Harmless("the file is only read")] = None
    standard_attributes: Annotated[
        dict[str, Any] | None, Harmless("audit record and access log have fields of their own")
    ] = None
    histograms: Annotated[str | None, Harmless("histograms are classic")] = None
    custom_functions: Annotated[dict[str, Any] | list[Any] | None, Refused("write the expression out")] = None
    sensitive_headers: Annotated[list[str] | None, Harmless("headers are neither logged nor recorded")] = None


class RouteGroup(Model):
    name: str
    routes: list[Route]


class Root(Model):
    """A whole file."""

    proof: ClassVar[str] = "test_routes.py::test_gateways"
    config: Annotated[Config | None, Enforced("test_settings.py::test_addresses")] = None
    gateways: dict[str, Gateway] = {}
    routes: list[Route] = []
    tcp_routes: Annotated[list[TcpRoute], TCP] = []
    llm: Annotated[Llm | None, LLM] = None
    mcp: Annotated[Mcp | None, Enforced("test_routes.py::test_simple_mcp")] = None
    ui: Annotated[dict[str, Any] | None, Harmless("there is no UI on the gateway's ports")] = None
    backends: Annotated[list[NamedBackend], Enforced("test_routes.py::test_named_backends")] = []
    policies: Annotated[list[TargetedPolicy], Enforced("test_attachments.py::test_targets_of_today")] = []
    frontend_policies: Annotated[FrontendPolicies | None, Enforced("test_settings.py::test_max_buffer_size")] = None
    route_groups: Annotated[list[RouteGroup], Refused("write the group's routes where they are used")] = []
    binds: Annotated[list[Bind], Enforced("test_routes.py::test_listeners")] = []
    workloads: Annotated[list[dict[str, Any]], SERVICE] = []
    services: Annotated[list[dict[str, Any]], SERVICE] = []
    audit: Annotated[Audit | None, Enforced("test_settings.py::test_audit")] = None
    """Ours."""
