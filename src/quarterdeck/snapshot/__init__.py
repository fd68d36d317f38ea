"""The gateway's configuration: what ``translate`` writes and the gateway reads. Plain data, one JSON document.

The control plane streams one :class:`Snapshot` a line (NDJSON). It is compiled identically by every replica, so
``version`` is a digest of the rest. Secrets travel inside (the stream is authenticated and TLS-protected); a dump for
people must go through :func:`redacted`.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec
from msgspec import Struct

from .consent import ApprovalRule
from .pins import Mode, ServerPins
from .redaction import redacted as redacted
from .revocations import Revocation
from .routing import Child, Listener
from .routing import Endpoint as Endpoint
from .sign_in import SignIn
from .virtual import VirtualServer

SCHEMA = 1
FRAMING = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers, in lower case, by which a request begins and ends: the gateway's alone to say, as requests for other
resources go over the same connections."""


class HeaderValue(Struct, frozen=True, omit_defaults=True):
    """A header the gateway attaches towards an upstream; ``secret`` ones are never shown."""

    name: str
    value: str
    secret: bool = False


class McpServer(Struct, frozen=True, omit_defaults=True):
    """An MCP backend: an MCPServer, a RemoteMCPServer, a labelled Service, or a target of an MCP backend."""

    namespace: str
    name: str
    kind: Literal["MCPServer", "RemoteMCPServer", "Service", "Target"]
    """A Target is reached through the routes that name it only: it has no path of its own below ``/mcp``."""
    path: str
    """Path on the upstream, e.g. ``/mcp``."""
    protocol: Literal["STREAMABLE_HTTP", "SSE"] = "STREAMABLE_HTTP"
    tls: bool = False
    tls_insecure: bool = False
    tls_ca: str = ""
    """PEM bundle; empty means the system's."""
    tls_system: bool = False
    """Whether the system's authorities are trusted beside ``tls_ca``."""
    authority: str = ""
    """Host header and TLS server name; empty means the endpoint's address."""
    endpoints: tuple[Endpoint, ...] = ()
    """Ready addresses; empty means: nothing runs there now."""
    headers: tuple[HeaderValue, ...] = ()
    timeout: float = 30.0
    """Seconds a tool call may take without any byte from the server."""
    prefixed: bool = True
    """Whether the server is part of the multiplexed ``/mcp``."""
    wake: float = 0.0
    """Seconds a call may be held while the control plane starts a Pod of a server scaled to zero; 0: it is not."""
    openapi: dict[str, Any] | None = None
    """OpenAPI 3 document: the upstream is a REST API whose operations are the tools."""
    sign_in: SignIn | None = None
    """Every user signs in there for herself (``auth: oauth``)."""
    pin: Mode = ""
    """What happens to tools whose definition is not the approved one (annotation ``quarterdeck.dev/pin``)."""


class ModelAccess(Struct, frozen=True, omit_defaults=True):
    """How the gateway proves itself to a provider that wants more than a key in a header."""

    kind: Literal["google", "gdch", "client_credentials", "aws"]
    """A service account's signed JWT for a token (Vertex AI), the same by token exchange (Google Distributed Cloud),
    OAuth client credentials, or a signature of each request (SigV4)."""
    id: str = ""
    """Account, client id or access key id."""
    secret: str = ""
    """Private key (PEM), client secret or secret access key."""
    url: str = ""
    """Token endpoint."""
    key_id: str = ""
    audience: str = ""
    """Scope or audience of the token; for ``aws`` the region."""
    session: str = ""
    """AWS session token."""


ModelFormat = Literal["openai", "responses", "anthropic", "gemini", "ollama", "converse", "orchestration"]


class Model(Struct, frozen=True, omit_defaults=True):
    """A model behind ``/llm/{namespace}/{name}/v1``, from a ModelConfig."""

    namespace: str
    name: str
    provider: str
    model: str
    base_url: str
    """``http(s)://host[:port][/path]`` below which the format's paths are; empty when the model cannot be called."""
    headers: tuple[HeaderValue, ...] = ()
    """Credentials and ``defaultHeaders``."""
    defaults: dict[str, Any] = {}
    """Request fields set when the caller leaves them out (temperature, max_tokens, …)."""
    passthrough: bool = False
    """Forward the caller's own key (``X-Quarterdeck-Forward-Authorization``) instead of one of ours."""
    tls_insecure: bool = False
    tls_ca: str = ""
    timeout: float = 300.0
    """Seconds the provider may stay silent."""
    error: str = ""
    """Why the model cannot be called; answered as 503 with this text."""
    format: ModelFormat = "openai"
    """What its provider speaks; callers always speak OpenAI's chat completions."""
    query: str = ""
    """Of every request, such as ``api-version=2024-10-21``."""
    extra: dict[str, Any] = {}
    """Members of every request in the provider's own format."""
    cache: Literal["", "5m", "1h"] = ""
    """How long the provider shall cache the beginning of requests, where that has to be asked for."""
    key_header: str = "Authorization"
    """Where ``passthrough`` puts the key; without the word ``Bearer`` in any other."""
    access: ModelAccess | None = None
    tls_system: bool = False
    """Whether the system's authorities are trusted beside ``tls_ca``."""
    connect_timeout: float = 0.0
    """Seconds to wait for a connection; 0: the gateway's own limit."""


class ValueMatch(Struct, frozen=True, omit_defaults=True):
    """What one header or claim must be: ``exact``, else the RE2 expression ``regex`` over the whole value."""

    source: Literal["header", "claim"]
    name: str
    """Header in lower case, or claim (``a.b``: nested)."""
    exact: str | None = None
    regex: str = ""


class Backend(Struct, frozen=True, omit_defaults=True):
    """One of several destinations of a route, e.g. a track of an agent. Weights are relative (Gateway API)."""

    name: str
    endpoints: tuple[Endpoint, ...] = ()
    weight: int = 1
    """0: no request but those of ``matches`` and of conversations that began here."""
    matches: tuple[tuple[ValueMatch, ...], ...] = ()
    """Requests that meet all conditions of any of these come here whatever the weights are."""
    tag: int = 0
    """Mark of the conversations that began here (``snapshot.conversation``); 0 marks those of no other backend."""
    epoch: str = ""
    """When set, requests and errors are counted and reported under this name."""


class Split(Struct, frozen=True, omit_defaults=True):
    """Traffic of one route over several backends."""

    backends: tuple[Backend, ...]
    sticky: bool = False
    """Whether a conversation stays with the backend it began on."""
    strict: bool = False
    """Whether a backend without endpoints keeps its share, as Gateway API's weights want. Else others take it over."""


class Agent(Struct, frozen=True, omit_defaults=True):
    """An agent behind ``/a2a/{namespace}/{name}``."""

    namespace: str
    name: str
    endpoints: tuple[Endpoint, ...] = ()
    description: str = ""
    split: Split | None = None
    """Its tracks while a canary runs; ``endpoints`` are the stable track's."""
    wake: float = 0.0
    """Seconds a call may be held while the control plane starts a Pod of an agent scaled to zero; 0: it is not."""
    byo: bool = False
    """Somebody else's image: the gateway opens its conversations, and translates for one of A2A 0.3."""
    forward: tuple[str, ...] = ()
    """Headers of users' requests, in lower case, that it passes on to its tools."""


class ToolGrant(Struct, frozen=True, omit_defaults=True):
    """What an agent may call on one MCP server."""

    namespace: str
    name: str
    kind: str
    tools: tuple[str, ...] | None = None
    """None: all tools of the server. A tuple: these and no other (the upstream's names)."""
    approval: tuple[str, ...] = ()
    """Tools that need a person's approval first."""
    headers: tuple[HeaderValue, ...] = ()
    """The tool reference's ``headersFrom``; they win over the server's."""
    allowed_headers: tuple[str, ...] = ()
    """Client headers that may be forwarded (lower case)."""


class AgentPolicy(Struct, frozen=True, omit_defaults=True):
    """What one agent may reach through the gateway. Anything not listed is denied."""

    namespace: str
    name: str
    tools: tuple[ToolGrant, ...] = ()
    models: tuple[str, ...] = ()
    """``namespace/name`` of the ModelConfigs it may call."""
    agents: tuple[str, ...] = ()
    """``namespace/name`` of the agents it may call."""
    hosted: bool = False
    """Whether our host runs it: then its tool calls need a permit (``snapshot.permits``)."""


class Identities(Struct, frozen=True, omit_defaults=True):
    """How callers are known."""

    issuer: str = ""
    audiences: tuple[str, ...] = ("quarterdeck",)
    jwks: dict[str, Any] = {}
    """JWK Set of the ServiceAccount token issuer."""
    pods: dict[str, str] = {}
    """Pod UID → ``namespace/agent`` that owns the Pod; the principal is the agent, not the ServiceAccount."""
    local_token_hashes: tuple[str, ...] = ()
    """SHA-256 (hex) of the bearer tokens people on this machine may use on the local listener."""
    anonymous_local: bool = False
    """Whether the local listener accepts callers without a token (only while Pods cannot reach it)."""


class Snapshot(Struct, frozen=True, omit_defaults=True):
    """Everything one Gateway serves."""

    version: str = ""
    schema: int = SCHEMA
    gateway: str = "quarterdeck-system/quarterdeck"
    replicas: int = 1
    """Replicas of the gateway: each grants its share of rate limits and concurrency."""
    default_namespace: str = "kagent"
    """Its servers' tools are listed as ``{server}_{tool}`` on ``/mcp``, others as ``{namespace}-{server}_{tool}``."""
    mcp: tuple[McpServer, ...] = ()
    virtual: tuple[VirtualServer, ...] = ()
    """Servers made of those in ``mcp``."""
    models: tuple[Model, ...] = ()
    agents: tuple[Agent, ...] = ()
    policies: tuple[AgentPolicy, ...] = ()
    identities: Identities = Identities()
    listeners: tuple[Listener, ...] = ()
    """Ports besides the built-in ones, with the routes of Gateway API or of a file."""
    children: tuple[Child, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    """Who may not take part; kept with the last good snapshot, so enforced without the control plane, too."""
    pins: tuple[ServerPins, ...] = ()
    """The approved tools."""
    approvals: tuple[ApprovalRule, ...] = ()
    """Which calls people must approve one by one."""
    permit_keys: tuple[str, ...] = ()
    """Public keys of the permits for tool calls of hosted agents."""
    hooks: tuple[str, ...] = ()
    """``namespace/name`` of the Triggers that requests to ``/hooks/`` fire; each says who may."""
    closed: tuple[str, ...] = ()
    """Addresses of agents, MCP servers and models, Pods' and Services', that no DNS name of others may lead to."""


def encode(snapshot: Snapshot) -> bytes:
    """One NDJSON line without the newline, with ``version`` filled in from the content."""
    bare = msgspec.structs.replace(snapshot, version="")
    digest = hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()[:16]
    return msgspec.json.encode(msgspec.structs.replace(snapshot, version=digest), order="deterministic")


def decode(line: bytes) -> Snapshot:
    """Raises msgspec.ValidationError when the document is not a Snapshot of a schema we know."""
    try:
        snapshot = msgspec.json.decode(line, type=Snapshot)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"the snapshot is not UTF-8: {error.reason}") from None
    if snapshot.schema != SCHEMA:
        raise msgspec.ValidationError(
            f"snapshot schema {snapshot.schema} is not supported, this gateway reads {SCHEMA}"
        )
    return snapshot
