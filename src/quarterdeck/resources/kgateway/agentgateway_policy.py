"""AgentgatewayPolicy (agentgateway.dev/v1alpha1)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from quarterdeck.resources.base import AGE, Json, Kind, Model, Version

from . import AGENTGATEWAY, CATEGORIES
from .common import POLICY_ACCEPTED, Authorization, PolicyStatus, SecretRef, TargetRef, TargetSelector, choice
from .traffic_policy import Cors, HeaderModifiers, HeaderValue

Mode = Annotated[str, choice("Strict", "Optional", "Permissive")]


class Transform(Model):
    set: list[HeaderValue] | None = Field(None, description="Headers that are set: name and CEL.")
    add: list[HeaderValue] | None = Field(None, description="Headers that are added: name and CEL.")
    remove: list[str] | None = Field(None, description="Headers that are taken out.")
    body: str | None = Field(None, description="CEL that gives the body.")
    metadata: Json | None = Field(None, description="Values for later expressions; refused.")


class Transformation(Model):
    request: Transform | None = Field(None, description="Of requests.")
    response: Transform | None = Field(None, description="Of answers.")
    conditional: list[Json] | None = Field(None, description="Alternatives by condition; refused.")


class RemoteJwks(Model):
    """Keys fetched from a server."""

    backend_ref: Json | None = Field(None, description="Service or backend: name, namespace, kind, port.")
    jwks_path: str | None = Field(None, description="Path of the key set there.")
    cache_duration: str = Field("5m", description="How long keys are kept, as a duration.")


class Jwks(Model):
    remote: RemoteJwks | None = Field(None, description="Keys fetched from a server.")
    inline: str | None = Field(None, description="The key set in place.")


class JwtProvider(Model):
    issuer: str = Field(description="Who issues the tokens (iss).")
    audiences: list[str] | None = Field(None, description="Any of these must be in aud; unset: any.")
    jwks: Jwks = Field(description="The issuer's keys.")


class CredentialLocation(Model):
    """Where a credential is: exactly one of these."""

    header: Json | None = Field(None, description="A header: name and prefix.")
    query_parameter: Json | None = Field(None, description="A query parameter: name.")
    cookie: Json | None = Field(None, description="A cookie: name.")
    expression: str | None = Field(None, description="CEL that gives the credential.")


class JwtAuthentication(Model):
    mode: Mode = Field("Strict", description="Whether a token is required.")
    providers: list[JwtProvider] = Field(min_length=1, max_length=64, description="Issuers.")
    location: CredentialLocation | None = Field(None, description="Where the token is; a bearer token unless set.")
    mcp: Json | None = Field(None, description="MCP authorization metadata: provider, resourceMetadata, clientId.")


class ApiKeyAuthentication(Model):
    mode: Mode = Field("Strict", description="Whether a key is required.")
    secret_ref: SecretRef | None = Field(None, description="Secret of keys: each value a key, or JSON {key, metadata}.")
    secret_selector: Json | None = Field(None, description="Secrets by matchLabels.")
    location: CredentialLocation | None = Field(None, description="Where the key is; a bearer token unless set.")


class BasicAuthentication(Model):
    mode: Mode = Field("Strict", description="Whether a user is required.")
    realm: str | None = Field(None, description="What the browser shows.")
    users: list[str] | None = Field(None, description="Lines of an htpasswd file.")
    secret_ref: SecretRef | None = Field(None, description="Secret with an htpasswd file under .htaccess.")
    location: Json | None = Field(None, description="Where the credential is; refused: it is in Authorization.")


class LocalRateLimit(Model):
    requests: int | None = Field(None, ge=1, description="Requests in each unit of time.")
    tokens: int | None = Field(None, ge=1, description="Model tokens in each unit of time.")
    unit: Annotated[str, choice("Seconds", "Minutes", "Hours")] = Field(description="The unit of time.")
    burst: int | None = Field(None, ge=0, description="Requests beyond that may come at once.")


class RateLimit(Model):
    local: list[LocalRateLimit] | None = Field(None, max_length=16, description="Counted by the gateway itself.")
    global_: Json | None = Field(None, alias="global", description="A rate limit service; refused.")
    conditional: list[Json] | None = Field(None, description="Alternatives by condition; refused.")


class Csrf(Model):
    additional_origins: list[str] | None = Field(None, description="Origins besides the own one.")


class ExtAuthHttp(Model):
    path: str | None = Field(None, description="CEL that gives path and query of the question.")
    redirect: str | None = Field(None, description="CEL of a redirect on denial; refused.")
    add_request_headers: dict[str, str] | None = Field(None, description="Headers of the question: name and CEL.")
    allowed_request_headers: list[str] | None = Field(None, description="Headers of the request that are sent along.")
    allowed_response_headers: list[str] | None = Field(None, description="Headers of a positive answer that are added.")
    response_metadata: Json | None = Field(None, description="Values for expressions; refused.")


class ExtAuth(Model):
    """An HTTP service that is asked first."""

    backend_ref: Json | None = Field(None, description="Service or static backend: name, namespace, kind, port.")
    http: ExtAuthHttp | None = Field(None, description="HTTP protocol.")
    cache: Json | None = Field(None, description="Keeping of answers; refused.")
    conditional: list[Json] | None = Field(None, description="Alternatives by condition; refused.")
    grpc: Json | None = Field(None, description="gRPC protocol; refused.")
    forward_body: Json | None = Field(None, description="How much of the body is sent along: maxSize.")
    failure_mode: Annotated[str, choice("FailClosed", "FailOpen")] = Field(
        "FailClosed", description="What happens while the service cannot be asked."
    )


class HostRewrite(Model):
    mode: Annotated[str, choice("Auto", "None")] = Field("Auto", description="Auto: the backend's own name.")


class Retry(Model):
    attempts: int = Field(1, ge=0, description="Tries after the first.")
    codes: list[int] | None = Field(None, description="Status codes that are tried again.")
    backoff: str | None = Field(None, description="Pause before the first repetition, as a duration.")


class Timeouts(Model):
    request: str | None = Field(None, description="For the whole request, as a duration.")


class Buffer(Model):
    request: Json | None = Field(None, description="Largest request body: maxBytes.")
    response: Json | None = Field(None, description="Largest answer: maxBytes.")


class DirectResponse(Model):
    status: int | None = Field(None, ge=200, le=599, description="Status code.")
    body: str | None = Field(None, description="Body.")
    body_expression: str | None = Field(None, description="CEL that gives the body; refused.")
    headers: list[Json] | None = Field(None, description="Headers by CEL; refused.")
    conditional: list[Json] | None = Field(None, description="Alternatives by condition; refused.")


class Traffic(Model):
    """Rules for requests."""

    phase: Annotated[str, choice("PreRouting", "PostRouting")] | None = Field(
        None, description="PreRouting: before a route is found; Gateways and listeners only."
    )
    jwt_authentication: JwtAuthentication | None = Field(None, description="Tokens.")
    api_key_authentication: ApiKeyAuthentication | None = Field(None, description="API keys.")
    basic_authentication: BasicAuthentication | None = Field(None, description="User names and passwords.")
    authorization: Authorization | None = Field(None, description="Who may send requests.")
    rate_limit: RateLimit | None = Field(None, description="How many requests.")
    cors: Cors | None = Field(None, description="Which web pages may call.")
    csrf: Csrf | None = Field(None, description="Which web pages may change something.")
    ext_auth: ExtAuth | None = Field(None, description="A service that is asked first.")
    ext_proc: Json | None = Field(None, description="A service that sees requests; refused.")
    transformation: Transformation | None = Field(None, description="Headers and bodies computed by CEL.")
    header_modifiers: HeaderModifiers | None = Field(None, description="Headers changed.")
    host_rewrite: HostRewrite | None = Field(None, description="The Host header towards the backend.")
    retry: Retry | None = Field(None, description="Repetitions.")
    timeouts: Timeouts | None = Field(None, description="Time limits.")
    buffer: Buffer | None = Field(None, description="Largest bodies.")
    delay: Json | None = Field(None, description="A pause before each request; not served.")
    direct_response: DirectResponse | None = Field(None, description="An answer of the gateway's own.")


class BackendAuth(Model):
    """The credential the gateway shows a backend."""

    key: str | None = Field(None, description="The credential in place; better use a Secret.")
    secret_ref: SecretRef | None = Field(None, description="Secret with the credential under Authorization.")
    credentials: list[Json] | None = Field(None, description="Several credentials; refused.")
    passthrough: Json | None = Field(None, description="The caller's own credential is passed on.")
    location: CredentialLocation | None = Field(None, description="Where it is put; a bearer token unless set.")
    aws: Json | None = Field(None, description="AWS signatures; refused.")
    azure: Json | None = Field(None, description="Azure identities; refused.")
    gcp: Json | None = Field(None, description="Google identities; refused.")
    jwt_sign: Json | None = Field(None, description="Tokens signed here; refused.")
    oauth_token_exchange: Json | None = Field(None, description="Token exchange; refused.")
    cross_app_access: Json | None = Field(None, description="Cross-app access; refused.")


class McpJwks(Model):
    backend_ref: Json | None = Field(None, description="Service or backend that has the keys.")
    jwks_path: str | None = Field(None, description="Path of the key set there.")
    cache_duration: str = Field("5m", description="How long keys are kept, as a duration.")


class McpAuthentication(Model):
    """MCP authorization (RFC 9728)."""

    issuer: str | None = Field(None, description="The authorization server.")
    audiences: list[str] | None = Field(None, description="Any of these must be in aud; unset: any.")
    jwks: McpJwks | None = Field(None, description="The issuer's keys; found by provider when unset.")
    provider: Annotated[str, choice("Auth0", "Authentik", "Descope", "Entra", "Keycloak", "Okta")] | None = Field(
        None, description="Product of the authorization server."
    )
    mode: Mode = Field("Strict", description="Whether a token is required.")
    resource_metadata: Json | None = Field(None, description="Further protected-resource metadata.")
    client_id: str | None = Field(None, description="Client that is given to those who register.")


class McpPolicies(Model):
    authentication: McpAuthentication | None = Field(None, description="Who calls.")
    authorization: Authorization | None = Field(None, description="Which tools, prompts and resources.")
    guardrails: Json | None = Field(None, description="Services that see tool calls; refused.")
    ext_mcp: Json | None = Field(None, description="Services that see MCP messages; refused.")


class BackendTls(Model):
    ca_certificate_refs: list[Json] | None = Field(None, description="ConfigMaps with ca.crt (name).")
    insecure_skip_verify: Annotated[str, choice("All", "Hostname")] | None = Field(
        None, description="What of the certificate is not verified; Hostname alone is refused."
    )
    sni: str | None = Field(None, description="Name the certificate must be for.")
    mtls_certificate_ref: list[Json] | None = Field(None, description="Secret with the gateway's own certificate.")
    verify_subject_alt_names: list[str] | None = Field(None, description="Names the certificate may be for; refused.")
    alpn_protocols: list[str] | None = Field(None, description="Protocols offered; HTTP/1.1 is spoken.")


class BackendPolicies(Model):
    """Rules for what goes to a backend."""

    ai: Json | None = Field(None, description="Rules for models; not served yet.")
    auth: BackendAuth | None = Field(None, description="The credential the gateway shows.")
    mcp: McpPolicies | None = Field(None, description="Rules for MCP.")
    tls: BackendTls | None = Field(None, description="TLS towards the backend.")
    http: Json | None = Field(None, description="HTTP towards the backend: requestTimeout.")
    tcp: Json | None = Field(None, description="Connections towards the backend; defaults are used.")
    health: Json | None = Field(None, description="Eviction of endpoints; the circuit breaker is used.")
    tunnel: Json | None = Field(None, description="A proxy on the way; refused.")
    ext_auth: ExtAuth | None = Field(None, description="A service that is asked first.")
    transformation: Transformation | None = Field(None, description="Headers and bodies computed by CEL.")


class AgentgatewayPolicySpec(Model):
    """Rules for what the targets serve."""

    target_refs: list[TargetRef] | None = Field(None, max_length=16, description="What it is attached to.")
    target_selectors: list[TargetSelector] | None = Field(None, description="What it is attached to, by labels.")
    strategy: Json | None = Field(None, description="How it is merged with outer policies; the inner one wins.")
    traffic: Traffic | None = Field(None, description="Rules for requests.")
    backend: BackendPolicies | None = Field(None, description="Rules for what goes to backends.")
    frontend: Json | None = Field(None, description="Rules for connections, logs and metrics; the gateway's own hold.")


class AgentgatewayPolicy(Model):
    """Rules that Gateways, routes and backends are given."""

    spec: AgentgatewayPolicySpec | None = Field(None, description="The rules and their targets.")
    status: PolicyStatus | None = Field(None, description="Observed state.")


KIND = Kind(
    "AgentgatewayPolicy",
    "agentgatewaypolicies",
    (Version("v1alpha1", AgentgatewayPolicy, (POLICY_ACCEPTED, AGE)),),
    short_names=("agpol",),
    group=AGENTGATEWAY,
    categories=CATEGORIES,
)
