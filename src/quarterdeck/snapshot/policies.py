"""Rules that a listener, a route or a backend carries, as plain data.

They are merged before they come here (:func:`quarterdeck.snapshot.merge.merged`): what a Route holds is what applies to
it. Defaults mean: no such rule.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from .sign_in import AuthMethod

Mode = Literal["strict", "optional", "permissive"]
"""strict: a valid credential is required. optional: none, or a valid one. permissive: invalid ones count as none."""


class CelRule(Struct, frozen=True, omit_defaults=True):
    """One rule of an authorization. ``expression`` is CEL over ``request``, ``jwt``, ``source``, ``mcp``, …"""

    effect: Literal["allow", "deny", "require"]
    expression: str


class Authorization(Struct, frozen=True, omit_defaults=True):
    """Rules of one attachment point. Several attachment points: any deny denies, all requires, allows or-ed."""

    rules: tuple[CelRule, ...]
    strict: bool = False
    """A set with denials only denies the rest, too, and an error inside deny or require denies (October 2025)."""
    where: str = ""
    """Name of the rule set in audit records, e.g. ``policy/ns/name``."""


class Location(Struct, frozen=True, omit_defaults=True):
    """Where a credential is in a request."""

    kind: Literal["header", "query", "cookie", "expression"] = "header"
    name: str = "authorization"
    prefix: str = "Bearer "


class JwtProvider(Struct, frozen=True, omit_defaults=True):
    """One issuer of tokens. Exactly one of ``jwks``, ``jwks_url`` and ``jwks_file`` is given."""

    issuer: str
    audiences: tuple[str, ...] = ()
    """Empty: any audience."""
    jwks: dict[str, Any] | None = None
    jwks_url: str = ""
    jwks_file: str = ""
    cache: float = 300.0
    """Seconds between looks at ``jwks_url`` or ``jwks_file``."""
    required_claims: tuple[str, ...] = ("exp",)


class Jwt(Struct, frozen=True, omit_defaults=True):
    """Tokens of any of several issuers."""

    providers: tuple[JwtProvider, ...]
    mode: Mode = "strict"
    location: Location = Location()
    keep: bool = False
    """Whether the token stays in the request towards the backend."""


class McpAuthentication(Struct, frozen=True, omit_defaults=True):
    """MCP authorization (RFC 9728): tokens of one issuer, and the metadata that tells clients where to get them."""

    jwt: Jwt
    issuer: str
    provider: Literal["", "keycloak", "auth0", "okta", "entra", "descope", "authentik"] = ""
    resource_metadata: dict[str, Any] = {}
    scopes: tuple[str, ...] = ()
    """What every token must be granted; told in metadata and challenges."""
    tool_scopes: dict[str, tuple[str, ...]] = {}
    """Scopes that calls of a tool need besides (upstream's or exposed name; ``*``: any tool): 403 asks for them."""
    client_id: str = ""
    """Answered to every client that registers, instead of asking the issuer."""
    client_secret: str = ""


class ApiKey(Struct, frozen=True, omit_defaults=True):
    """One key: its SHA-256 (hex) and what expressions read as ``apiKey.<name>``."""

    hash: str
    metadata: dict[str, Any] = {}


class ApiKeys(Struct, frozen=True, omit_defaults=True):
    keys: tuple[ApiKey, ...]
    mode: Mode = "optional"
    location: Location = Location()


class BasicUsers(Struct, frozen=True, omit_defaults=True):
    """Lines of an htpasswd file (bcrypt, apr1, SHA-crypt or {SHA})."""

    htpasswd: str
    realm: str = "Restricted"
    mode: Mode = "strict"


class RateLimit(Struct, frozen=True, omit_defaults=True):
    """A token bucket. ``key`` is CEL that names the bucket of a request; empty: one bucket for all."""

    max_tokens: int
    tokens_per_fill: int
    fill_interval: float
    kind: Literal["requests", "tokens"] = "requests"
    key: str = ""


class Breaker(Struct, frozen=True, omit_defaults=True):
    """Circuit breaker per server and tool."""

    failures: int = 3
    """In a row: connect error, timeout, 5xx, malformed answer, -32603."""
    open_for: float = 30.0
    """Seconds until one call may try again."""


class Retry(Struct, frozen=True, omit_defaults=True):
    """Attempts after the first, for calls safe to repeat only."""

    attempts: int = 1
    codes: tuple[int, ...] = ()
    backoff: float = 0.025
    per_try_timeout: float = 0.0
    precondition: str = ""
    condition: str = ""


class HeaderModifier(Struct, frozen=True, omit_defaults=True):
    add: tuple[tuple[str, str], ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class Transform(Struct, frozen=True, omit_defaults=True):
    """Headers and body computed by CEL."""

    add: tuple[tuple[str, str], ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()
    body: str = ""


class Transformation(Struct, frozen=True, omit_defaults=True):
    request: Transform | None = None
    response: Transform | None = None


class Cors(Struct, frozen=True, omit_defaults=True):
    """``*`` inside an origin stands for any label part; a lone ``*`` for every origin, method or header."""

    allow_origins: tuple[str, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    allow_credentials: bool = False
    max_age: int = 0


class Csrf(Struct, frozen=True, omit_defaults=True):
    """Requests that change something must come from these origins, or the gateway's own."""

    additional_origins: tuple[str, ...] = ()


class Redirect(Struct, frozen=True, omit_defaults=True):
    """Empty parts stay as they are in the request."""

    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str | None = None
    prefix: str | None = None
    """Replaces the matched prefix; ``path`` replaces all."""
    status: int = 302


class Rewrite(Struct, frozen=True, omit_defaults=True):
    host: str = ""
    auto_host: bool = False
    """The Host header becomes the backend's own."""
    path: str | None = None
    prefix: str | None = None


class DirectResponse(Struct, frozen=True, omit_defaults=True):
    status: int
    body: str = ""


class ExtAuth(Struct, frozen=True, omit_defaults=True):
    """An HTTP service that is asked before the backend is."""

    url: str
    path: str = ""
    """CEL that gives path and query of the question; empty: those of the request."""
    redirect: str = ""
    """CEL that gives where a refused browser is sent (302) when the service answers 401."""
    forward_headers: tuple[str, ...] = ("authorization", "cookie")
    add_headers: tuple[tuple[str, str], ...] = ()
    """Name and CEL."""
    copy_headers: tuple[str, ...] = ()
    """Headers of a positive answer that are added to the request."""
    body: int = 0
    """Bytes of the body that are sent along; a longer one is refused (413) unless ``partial``."""
    partial: bool = False
    metadata: tuple[tuple[str, str], ...] = ()
    """Name and CEL over the service's ``response``: what expressions read as ``extauthz.<name>``."""
    fail_open: bool = False
    deny_status: int = 403
    timeout: float = 2.0


class OAuthClient(Struct, frozen=True, omit_defaults=True):
    """The gateway as a client of an authorization server, for tokens it shows backends."""

    token_url: str
    client_id: str = ""
    client_secret: str = ""
    """With an id and a secret: HTTP Basic (RFC 6749 §2.3.1); with an id only: in the body."""
    scopes: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    requested_token_type: str = ""
    grant: Literal["token_exchange", "jwt_bearer"] = "token_exchange"
    """How a user's token is presented: RFC 8693, or as the assertion of RFC 7523."""
    subject_token_type: str = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type
    auth_method: AuthMethod = ""
    private_key: str = ""
    """PEM, for ``auth_method`` ``private_key_jwt`` (RFC 7523)."""
    issuer: str = ""
    """Whom assertions of the client are for; empty: the token endpoint."""
    assertion: OAuthClient | None = None
    """Whom the user's token is first exchanged with for what is presented here (cross-app access: an ID-JAG)."""


class BackendCredential(Struct, frozen=True, omit_defaults=True):
    """What the gateway shows a backend: a key, the caller's own token, or a token got for it (RFC 6749, RFC 8693)."""

    kind: Literal["key", "passthrough", "client_credentials", "token_exchange"]
    value: str = ""
    secret: bool = True
    location: Location = Location()
    oauth: OAuthClient | None = None


class Policies(Struct, frozen=True, omit_defaults=True):
    """Everything that may be attached. Order in which it is applied: see ``gateway/policy/chain.py``."""

    cors: Cors | None = None
    csrf: Csrf | None = None
    jwt: Jwt | None = None
    api_keys: ApiKeys | None = None
    basic: BasicUsers | None = None
    mcp_authentication: McpAuthentication | None = None
    open: bool = False
    """Callers beyond loopback need no credential (``--allow-anonymous``, or a cluster Gateway that says so)."""
    ext_auth: ExtAuth | None = None
    authorization: tuple[Authorization, ...] = ()
    """HTTP rules: a refusal is 403."""
    mcp_authorization: tuple[Authorization, ...] = ()
    """Rules about tools, prompts and resources: calls and lists."""
    rate_limits: tuple[RateLimit, ...] = ()
    concurrency: int = 0
    """Requests at a time; 0: no limit."""
    max_body: int = 4 * 1024 * 1024
    max_response: int = 0
    timeout: float = 0.0
    """Seconds for the whole request; 0: none."""
    backend_timeout: float = 0.0
    """Seconds for one attempt at a backend; 0: none."""
    retry: Retry | None = None
    breaker: Breaker | None = None
    transformation: Transformation | None = None
    request_headers: HeaderModifier | None = None
    response_headers: HeaderModifier | None = None
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    direct_response: DirectResponse | None = None
    credential: BackendCredential | None = None
