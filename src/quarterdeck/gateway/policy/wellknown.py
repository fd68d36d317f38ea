"""Metadata of MCP authorization: the protected resource (RFC 9728) and its authorization server (RFC 8414).

URLs in it are made from the public URL, or from what the client asked for (see :meth:`Services.base_url`).
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import msgspec

from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot.policies import McpAuthentication
from quarterdeck.wire.http import Header

from .admission import Admission
from .credentials import quotable
from .providers import Provider, ProviderError, provider_of
from .refusal import Refusal
from .services import Services

Kind = Literal["resource", "server", "registration", "authorize", "token"]

RESOURCE = "/.well-known/oauth-protected-resource"
SERVER = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
_ENDPOINTS: dict[str, Kind] = {"client-registration": "registration", "authorize": "authorize", "token": "token"}
_DOCUMENTS: tuple[tuple[str, Kind], ...] = ((RESOURCE, "resource"), (SERVER, "server"), (OPENID, "server"))
_LONGEST = 64 * 1024
_URL = re.compile(r"https?://[^\s\x00-\x20\x7f\"<>\\]+", re.IGNORECASE)
_REDIRECT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x20\x7f#\"<>\\]+")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ACTIVE = frozenset({"javascript", "vbscript", "data", "file", "blob", "about", "filesystem", "ftp", "ws", "wss"})
"""Schemes that make a browser run or open something instead of handing a code to an application."""
_CACHED = 300.0

CORS: tuple[Header, ...] = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"content-type, mcp-protocol-version"),
)
_JSON: tuple[Header, ...] = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


def parse(path: str) -> tuple[Kind, str] | None:
    """What a path asks for, and the path of the resource it is about; None when it is no such path.

    The well-known part comes first (RFC 8414 §3.1) or, from older clients, last; ``…/client-registration``,
    ``…/authorize`` and ``…/token`` follow the path of the server's metadata.
    """
    for prefix, kind in _DOCUMENTS:
        if path == prefix or path.startswith(prefix + "/"):
            return _with_endpoint(kind, path[len(prefix) :])
        before, found, after = path.partition(prefix)
        if found and before and (not after or after.startswith("/")):
            endpoint = _ENDPOINTS.get(after[1:])
            if not after or endpoint is not None:
                return endpoint or kind, before
    return None


def _with_endpoint(kind: Kind, rest: str) -> tuple[Kind, str]:
    if kind == "server":
        resource, _, last = rest.rpartition("/")
        if last in _ENDPOINTS:
            return _ENDPOINTS[last], resource or "/"
    return kind, rest or "/"


class WellKnown:
    """The metadata of one route."""

    def __init__(self, mcp: McpAuthentication, services: Services, where: str) -> None:
        """Raises ConfigError when the issuer is no URL the provider can have."""
        self._mcp = mcp
        self._services = services
        self._rule = f"{where}/mcpAuthentication"
        self._extra = {_snake(key): value for key, value in mcp.resource_metadata.items()}
        try:
            self._provider: Provider = provider_of(mcp.provider, mcp.issuer)
        except ProviderError as error:
            raise ConfigError(f"{where}: mcpAuthentication: {error}") from error
        self._metadata: tuple[dict[str, Any], float] | None = None

    # -- challenges
    def challenge(self, admission: Admission, error: str, description: str) -> Header:
        """The WWW-Authenticate header of a 401 (RFC 9728 §5.1)."""
        return self._challenge(admission, error, description, self._mcp.scopes)

    def step_up(self, admission: Admission, scopes: tuple[str, ...]) -> Refusal:
        """403 that asks the client to come back with these scopes."""
        text = f"the token was not granted: {' '.join(scopes)}"
        header = self._challenge(admission, "insufficient_scope", text, scopes)
        return Refusal(403, text, (header,), f"{self._rule}/scopes")

    def _challenge(self, admission: Admission, error: str, description: str, scopes: tuple[str, ...]) -> Header:
        parts = [f'resource_metadata="{self.metadata_url(admission)}"']
        if error:
            parts += [f'error="{error}"', f'error_description="{quotable(description)}"']
        if scopes:
            parts.append(f'scope="{quotable(" ".join(scopes))}"')
        return b"www-authenticate", f"Bearer {', '.join(parts)}".encode("ascii", "replace")

    def metadata_url(self, admission: Admission) -> str:
        """Where the metadata of the resource of this request is."""
        configured = self._extra.get("resource")
        if isinstance(configured, str) and "://" in configured:
            scheme, _, rest = configured.partition("://")
            host, slash, path = rest.partition("/")
            return quotable(f"{scheme}://{host}{RESOURCE}{slash}{path}".rstrip("/"))
        path = admission.path if admission.path is not None else admission.exchange.raw_path.decode("latin-1")
        base, below = self._base(admission)
        return quotable(f"{base}{RESOURCE}{below}{'' if path == '/' else path}")

    def _base(self, admission: Admission) -> tuple[str, str]:
        """Scheme and host, and the path below which the gateway is public."""
        url = self._services.base_url(admission.exchange, admission.headers)
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host}", f"{slash}{path}".rstrip("/")

    # -- documents
    def answer(self, admission: Admission, kind: Kind, resource_path: str) -> Refusal | Coroutine[Any, Any, Refusal]:
        """The document, or what becomes of a request to an endpoint."""
        method = admission.exchange.method
        if method == "OPTIONS":
            return Refusal(204, "", CORS, self._rule, b"", "ok")
        if kind in ("registration", "token"):
            if method != "POST":
                return self._refuse(405, "POST it", ((b"allow", b"POST, OPTIONS"),))
            if len(admission.exchange.body) > _LONGEST:
                return self._refuse(413, f"more than {_LONGEST} bytes")
            return self._register(admission) if kind == "registration" else self._token(admission)
        if method not in ("GET", "HEAD"):
            return self._refuse(405, "GET it", ((b"allow", b"GET, HEAD, OPTIONS"),))
        base, below = self._base(admission)
        resource = f"{base}{below}{'' if resource_path == '/' else resource_path}"
        if kind == "resource":
            if self._provider.dispensable and not self._mcp.client_id:
                return self._resource(resource)
            return self._document(self.resource(resource))
        if kind == "authorize":
            return self._authorize(admission)
        return self._server(base, f"{below}{'' if resource_path == '/' else resource_path}")

    async def _resource(self, resource: str) -> Refusal:
        """The resource, once it is known whether its clients can do without the adaptation."""
        try:
            aside = self._provider.stands_aside(await self._fetched())
        except (UpstreamError, TimedOut):
            aside = False
        return self._document(self.resource(resource, aside=aside))

    def resource(self, resource: str, *, aside: bool = False) -> dict[str, Any]:
        """The protected resource metadata; what the configuration says wins. ``aside``: clients go to the issuer."""
        issuer = resource if self._provider.rewrites_issuer and not aside else self._mcp.issuer
        document: dict[str, Any] = {
            "resource": resource,
            "authorization_servers": [issuer],
            "bearer_methods_supported": ["header"],
        }
        if self._mcp.scopes:
            document["scopes_supported"] = [s for s in self._mcp.scopes if s != "offline_access"]
        return document | self._extra

    async def _server(self, base: str, path: str) -> Refusal:
        try:
            metadata = await self._fetched()
            adapted = self._provider.adapt(metadata, f"{base}{path}", f"{base}{SERVER}{path}", self._audience())
        except (UpstreamError, TimedOut, ProviderError) as error:
            return self._refuse(502, f"metadata of the authorization server: {error}")
        return self._document(adapted)

    def _audience(self) -> str:
        return next((a for p in self._mcp.jwt.providers for a in p.audiences), "")

    async def _fetched(self) -> dict[str, Any]:
        now = self._services.clock()
        if self._metadata is not None and now < self._metadata[1]:
            return self._metadata[0]
        body = await self._services.fetcher.get_json(self._provider.metadata_url)
        try:
            document = msgspec.json.decode(body, type=dict[str, Any])
        except MALFORMED as error:
            raise UpstreamError(f"{self._provider.metadata_url} is no JSON object: {error}") from error
        if not self._provider.is_issuer(document.get("issuer")):
            raise UpstreamError(f"{self._provider.metadata_url} is the metadata of another issuer")
        wrong = no_web_address(document)
        if wrong:
            raise UpstreamError(f"{wrong} in {self._provider.metadata_url} is no http(s) URL")
        self._metadata = (document, now + _CACHED)
        return document

    # -- endpoints of the issuer that the gateway stands in for
    async def _register(self, admission: Admission) -> Refusal:
        body = admission.exchange.body
        if self._mcp.client_id:
            try:
                return self._document(registered(body, self._mcp.client_id), 201)
            except (ValueError, RecursionError) as error:
                return self._refuse(400, f"invalid client metadata: {error}")
        try:
            url = self._provider.registration_url
            answer = await self._services.fetcher.request("POST", url, [(b"content-type", b"application/json")], body)
        except (UpstreamError, TimedOut, ProviderError) as error:
            return self._refuse(502, f"client registration: {error}")
        outcome = "ok" if answer.status < 400 else "error"
        return Refusal(answer.status, "", (*_JSON, *CORS), self._rule, answer.body, outcome)

    def _authorize(self, admission: Admission) -> Refusal:
        """On to the issuer, without the parameter that it does not understand."""
        from .location import without_parameters

        try:
            url = self._provider.authorize_url
        except ProviderError as error:
            return self._refuse(404, str(error))
        target = without_parameters(admission.exchange.target, frozenset({"resource"}))
        query = target.partition(b"?")[2]
        location = url.encode() + (b"?" + query if query else b"")
        return Refusal(302, "", ((b"location", location), *CORS), self._rule, b"", "ok")

    async def _token(self, admission: Admission) -> Refusal:
        try:
            url = self._provider.token_url
            body = self._provider.token_request(admission.exchange.body, self._mcp.client_id, self._mcp.client_secret)
            headers: list[Header] = [(b"content-type", b"application/x-www-form-urlencoded")]
            given = admission.headers.get(b"authorization")
            if given is not None:
                headers.append((b"authorization", given))
            answer = await self._services.fetcher.request("POST", url, headers, body)
        except ProviderError as error:
            return self._refuse(404, str(error))
        except (UpstreamError, TimedOut) as error:
            return self._refuse(502, f"token endpoint: {error}")
        outcome = "ok" if answer.status < 400 else "error"
        return Refusal(answer.status, "", (*_JSON, *CORS), self._rule, answer.body, outcome)

    def _document(self, document: dict[str, Any], status: int = 200) -> Refusal:
        return Refusal(status, "", (*_JSON, *CORS), self._rule, msgspec.json.encode(document), "ok")

    def _refuse(self, status: int, message: str, headers: tuple[Header, ...] = ()) -> Refusal:
        return Refusal(status, message, (*headers, *CORS), self._rule, outcome="error")


def registered(body: bytes, client_id: str) -> dict[str, Any]:
    """The answer to a registration (RFC 7591 §3.2.1) that gives everybody the same public client.

    Raises ValueError for redirect URIs that no client can have, msgspec.DecodeError.
    """
    asked = msgspec.json.decode(body, type=dict[str, Any])
    uris = asked.get("redirect_uris", [])
    if not isinstance(uris, list) or not all(map(_is_a_clients, uris)):
        raise ValueError("redirect_uris: https, http on this machine, or a scheme of the application's own")
    kept = {
        k: v
        for k, v in asked.items()
        if k in ("client_name", "redirect_uris", "grant_types", "response_types", "scope")
    }
    return {**kept, "client_id": client_id, "token_endpoint_auth_method": "none"}


def no_web_address(metadata: dict[str, Any]) -> str:
    """The member that should be a web address and is something that browsers would run or open; empty when none is."""
    for name, value in metadata.items():
        if name == "mtls_endpoint_aliases" and isinstance(value, dict):
            wrong = no_web_address(cast(dict[str, Any], value))
            if wrong:
                return wrong
        elif name.endswith(("_endpoint", "_uri")) and value and not (isinstance(value, str) and _URL.fullmatch(value)):
            return name
    return ""


def _is_a_clients(uri: object) -> bool:
    """Whether codes may be sent there (RFC 8252 §7): a scheme of its own, https, or http on the person's machine."""
    if not isinstance(uri, str) or not _REDIRECT.fullmatch(uri):
        return False
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    if parts.scheme in ("http", "https"):
        local = parts.scheme == "http"
        return bool(parts.hostname) and "@" not in parts.netloc and (not local or parts.hostname in _LOOPBACK)
    return parts.scheme not in _ACTIVE


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
