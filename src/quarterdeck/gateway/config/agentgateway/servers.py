"""MCP servers behind a file's targets, and the children that the gateway runs for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot import Child, Endpoint, McpServer
from quarterdeck.snapshot.sign_in import AuthMethod, SignIn

from ..decode import generic
from ..document import Document, Path_
from . import now
from .context import Context
from .shared import BackendTls, McpHost, OpenApi, SchemaSource, Stdio

NAMESPACE = "file"
_METHODS: dict[str | None, AuthMethod] = {
    None: "", "clientSecretBasic": "client_secret_basic", "clientSecretPost": "client_secret_post",
    "privateKeyJwt": "private_key_jwt",
}  # fmt: skip
SILENCE = 300.0
"""Seconds a server of a file may be silent during a call; agentgateway waits for ever."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where ``host`` (and ``port``, ``path``) lead."""

    host: str
    port: int
    path: str
    tls: bool


@dataclass(slots=True)
class Servers:
    """Collects what the targets of a file need. Targets that say the same share one server."""

    context: Context
    backends: dict[str, now.NamedBackend]
    found: dict[str, McpServer] = field(default_factory=dict[str, McpServer])
    children: dict[str, Child] = field(default_factory=dict[str, Child])

    def add(self, path: Path_, target: now.McpTarget, tls: BackendTls | None, timeout: float) -> str:
        """``kind/namespace/name`` of the server that serves ``target``; "" after an error."""
        given = {"sse": target.sse, "mcp": target.mcp, "stdio": target.stdio, "openapi": target.openapi}
        kind = self.context.one_of(path, dict(given))
        if not kind:
            return ""
        bare = McpServer("", target.name, "Target", "/mcp", timeout=timeout or SILENCE)
        here = (*path, kind)
        if target.stdio is not None:
            if target.auth is not None:
                self.context.error((*path, "auth"), "nobody signs in at a process; give it credentials in stdio.env")
            return self._child(here, bare, target.stdio)
        if target.openapi is not None:
            server = self._with_sign_in(path, target, self._openapi(here, bare, target.openapi, tls))
            return self._register(here, server, None)
        spec = target.sse or target.mcp
        assert spec is not None
        server = self._http(here, bare, spec, tls)
        if target.sse is not None and server is not None:
            server = msgspec.structs.replace(server, protocol="SSE")
        return self._register(here, self._with_sign_in(path, target, server), None)

    def _with_sign_in(self, path: Path_, target: now.McpTarget, server: McpServer | None) -> McpServer | None:
        """The server with what ``auth: oauth`` says."""
        given = target.oauth
        if target.auth is None:
            if given is not None:
                self.context.error((*path, "oauth"), "says how users sign in: write auth: oauth beside it")
            return server
        if target.policies is not None and target.policies.backend_auth is not None:
            text = "users show credentials of their own: remove policies.backendAuth"
            self.context.error((*path, "auth"), text)
        if server is None:
            return None
        settings = given or now.SignInSettings()
        if settings.client_id is None and (settings.client_secret or settings.signing_key):
            self.context.error((*path, "oauth", "clientId"), "is required beside clientSecret or signingKey")
        sign_in = SignIn(
            _url_of(server), settings.client_id or "", settings.client_secret or "", settings.signing_key or "",
            _METHODS[settings.method], settings.issuer or "", tuple(settings.scopes),
            tuple(settings.trusted_hosts), settings.name or target.name,
        )  # fmt: skip
        return msgspec.structs.replace(server, sign_in=sign_in)

    def _http(self, path: Path_, bare: McpServer, spec: McpHost | OpenApi, tls: BackendTls | None) -> McpServer | None:
        default = "" if isinstance(spec, OpenApi) else "/sse" if path[-1] == "sse" else "/mcp"
        if spec.backend is not None:
            backend = self.backends.get(spec.backend)
            if spec.host is not None or spec.port is not None:
                self.context.error(path, "give backend and path, or host")
                return None
            if backend is None or backend.host is None:
                self.context.error((*path, "backend"), f"{spec.backend!r} is no backend of this file with a host")
                return None
            at = address(self.context, (*path, "backend"), backend.host)
            if at is None:
                return None
            at = Address(at.host, at.port, spec.path or at.path or default, at.tls)
            tls = tls or (backend.policies.backend_tls if backend.policies is not None else None)
        else:
            at = self._host(path, spec)
            if at is None:
                return None
        server = msgspec.structs.replace(
            bare, path=at.path, tls=at.tls or tls is not None, endpoints=(Endpoint(at.host, at.port),)
        )
        if tls is None:
            return server
        if tls.cert is not None or tls.key is not None:
            self.context.error(path, "MCP servers are shown no client certificate; leave cert and key out")
        return msgspec.structs.replace(
            server, tls_insecure=tls.insecure, tls_ca=tls.root or "", authority=tls.hostname or ""
        )

    def _host(self, path: Path_, spec: McpHost | OpenApi) -> Address | None:
        if spec.host is None:
            self.context.error(path, "host is required")
            return None
        alone = spec.port is None and (spec.path is None or isinstance(spec, OpenApi))
        if alone:
            at = address(self.context, (*path, "host"), spec.host)
            return at if at is None or spec.path is None else Address(at.host, at.port, spec.path, at.tls)
        if spec.port is None or (spec.path is None and not isinstance(spec, OpenApi)):
            self.context.error(path, "give host as a URL alone, or host, port and path together")
            return None
        if "/" in spec.host:
            self.context.error((*path, "host"), "a URL stands alone: leave port and path out")
            return None
        if not 0 < spec.port < 65536:
            self.context.error((*path, "port"), f"{spec.port} is no port")
            return None
        return Address(spec.host.strip("[]"), spec.port, spec.path or "", False)

    def _openapi(self, path: Path_, bare: McpServer, spec: OpenApi, tls: BackendTls | None) -> McpServer | None:
        if isinstance(spec.schema, SchemaSource):
            text = spec.schema.file
            if text is None:
                self.context.error((*path, "schema"), "give {file: PATH} or the document itself")
                return None
        else:
            text = spec.schema
        try:
            document = plain(text, "schema")
        except ConfigError as error:
            self.context.error((*path, "schema"), str(error))
            return None
        if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3."):
            self.context.error((*path, "schema"), "is not an OpenAPI 3 document")
            return None
        server = self._http(path, bare, spec, tls)
        return None if server is None else msgspec.structs.replace(server, openapi=document)

    def _child(self, path: Path_, bare: McpServer, spec: Stdio) -> str:
        if not spec.cmd:
            self.context.error((*path, "cmd"), "is empty")
            return ""
        child = Child("", spec.cmd, tuple(spec.args), tuple(sorted(spec.env.items())), spec.clear_env)
        return self._register(path, bare, child)

    def _register(self, path: Path_, server: McpServer | None, child: Child | None) -> str:
        if server is None:
            return ""
        number = 1
        while True:
            namespace = NAMESPACE if number == 1 else f"{NAMESPACE}-{number}"
            key = f"Target/{namespace}/{server.name}"
            named = msgspec.structs.replace(server, namespace=namespace)
            own = None if child is None else msgspec.structs.replace(child, server=key)
            if key not in self.found:
                self.found[key] = named
                if own is not None:
                    self.children[key] = own
                return key
            if self.found[key] == named and self.children.get(key) == own:
                return key
            number += 1


def _url_of(server: McpServer) -> str:
    """The server's own URL: what tokens for it are asked for."""
    endpoint = server.endpoints[0]
    host = server.authority or (f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host)
    port = "" if server.authority or endpoint.port == (443 if server.tls else 80) else f":{endpoint.port}"
    return f"{'https' if server.tls else 'http'}://{host}{port}{server.path.partition('?')[0]}"


def address(context: Context, path: Path_, text: str, *, tls: bool = False) -> Address | None:
    """``HOST:PORT`` or a URL; None after an error. ``tls`` decides the port that is left out."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        port = parts.port
    except ValueError as error:
        context.error(path, f"{text!r} is no address: {error}")
        return None
    scheme = parts.scheme
    if parts.username is not None:
        context.error(path, "must not hold a name and password; use backendAuth")
        return None
    if scheme not in ("", "http", "https") or not parts.hostname or parts.fragment:
        context.error(path, f"{text!r} must be HOST:PORT or http(s)://HOST[:PORT][/PATH]")
        return None
    secure = scheme == "https" or (tls and not scheme)
    query = f"?{parts.query}" if parts.query else ""
    return Address(parts.hostname, port or (443 if secure else 80), (parts.path + query) or "", scheme == "https")


def plain(text: str, name: str) -> Any:
    """YAML or JSON as plain data. Raises ConfigError."""
    return generic(Document(text, name))
