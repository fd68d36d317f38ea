"""Parts of policies that need Secrets, ConfigMaps and addresses: who calls, and what a backend is shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.errors import ConfigError
from quarterdeck.kube.quantity import parse_quantity
from quarterdeck.kube.resource import Object
from quarterdeck.resources.kgateway import AGENTGATEWAY, KGATEWAY
from quarterdeck.resources.kgateway import agentgateway_policy as agw
from quarterdeck.resources.kgateway.agentgateway_backend import AgentgatewayBackendSpec
from quarterdeck.resources.kgateway.backend import BackendSpec
from quarterdeck.snapshot.policies import (
    ApiKey,
    ApiKeys,
    BackendCredential,
    BasicUsers,
    ExtAuth,
    Jwt,
    JwtProvider,
    Location,
    McpAuthentication,
)
from quarterdeck.snapshot.routing import Tls
from quarterdeck.translate.objects import duration
from quarterdeck.translate.resolve import resolve
from quarterdeck.translate.snapshot import secret_value

from .world import GatewayWorld, key_of

_SECRET_KEY = "Authorization"  # noqa: S105 - the name of a Secret's key
_PASSWORDS = ".htaccess"
_HTTPS = 443
_JWKS_PATHS = {"keycloak": "/protocol/openid-connect/certs", "okta": "/v1/keys"}
_JWKS_DEFAULT = "/.well-known/jwks.json"


@dataclass(slots=True)
class Credentials:
    """All raise ConfigError naming what is missing or cannot be enforced."""

    world: GatewayWorld
    grants: Callable[[str, Mapping[str, Any]], bool]
    """Whether policies of a namespace may refer to a backend (group, kind, namespace, name)."""

    def jwt(self, wanted: agw.JwtAuthentication, namespace: str) -> tuple[Jwt, McpAuthentication | None]:
        """Issuers; and MCP's metadata, where that is asked for too."""
        providers = tuple(
            JwtProvider(each.issuer, tuple(each.audiences or ()), **self._keys(each.jwks, namespace))
            for each in wanted.providers
        )
        jwt = Jwt(providers, _mode(wanted.mode), _location(wanted.location))
        if wanted.mcp is None:
            return jwt, None
        provider = str(wanted.mcp.get("provider") or "").lower()
        return jwt, McpAuthentication(
            jwt,
            providers[0].issuer,
            _provider(provider),
            wanted.mcp.get("resourceMetadata") or {},
            client_id=str(wanted.mcp.get("clientId") or ""),
        )

    def mcp(self, wanted: agw.McpAuthentication, namespace: str) -> McpAuthentication:
        """MCP authorization of a backend."""
        if not wanted.issuer:
            raise ConfigError("mcp.authentication: issuer must be set")
        provider = (wanted.provider or "").lower()
        if wanted.jwks is not None:
            ref = wanted.jwks.backend_ref
            url = self._url(ref, wanted.jwks.jwks_path or "", namespace) if ref else ""
            cache = duration(wanted.jwks.cache_duration, 300.0)
        else:
            url, cache = "", 300.0
        url = url or wanted.issuer.rstrip("/") + _JWKS_PATHS.get(provider, _JWKS_DEFAULT)
        jwt = Jwt(
            (JwtProvider(wanted.issuer, tuple(wanted.audiences or ()), jwks_url=url, cache=cache),), _mode(wanted.mode)
        )
        return McpAuthentication(
            jwt,
            wanted.issuer,
            _provider(provider),
            wanted.resource_metadata or {},
            client_id=wanted.client_id or "",
        )

    def api_keys(self, wanted: agw.ApiKeyAuthentication, namespace: str) -> ApiKeys:
        """Keys by their hashes; the keys themselves go nowhere."""
        names: Sequence[str]
        if wanted.secret_ref is not None:
            names = [wanted.secret_ref.name]
        elif wanted.secret_selector is not None:
            names = self.world.secrets(namespace, wanted.secret_selector.get("matchLabels") or {})
        else:
            raise ConfigError("apiKeyAuthentication: secretRef or secretSelector must be set")
        keys: list[ApiKey] = []
        for name in sorted(names):
            obj = self._secret(namespace, name)
            keys += [_api_key(secret_value(obj, entry)) for entry in sorted(obj.get("data") or {})]
        return ApiKeys(tuple(keys), _mode(wanted.mode), _location(wanted.location))

    def basic(self, wanted: agw.BasicAuthentication, namespace: str) -> BasicUsers:
        """Users of an htpasswd file."""
        if wanted.location:
            raise ConfigError("basicAuthentication.location cannot be enforced here")
        if wanted.secret_ref is not None:
            lines = secret_value(self._secret(namespace, wanted.secret_ref.name), _PASSWORDS)
        else:
            lines = "\n".join(wanted.users or ())
        return BasicUsers(lines, wanted.realm or "Restricted", _mode(wanted.mode))

    def shown(self, wanted: agw.BackendAuth, namespace: str) -> BackendCredential:
        """What a backend is shown."""
        location = _location(wanted.location)
        if wanted.passthrough is not None:
            return BackendCredential("passthrough", location=location)
        if wanted.secret_ref is not None:
            value = secret_value(self._secret(namespace, wanted.secret_ref.name), _SECRET_KEY)
        elif wanted.key is not None:
            value = wanted.key
        else:
            given = [name for name in agw.BackendAuth.model_fields if getattr(wanted, name) is not None]
            raise ConfigError(f"auth.{given[0] if given else 'key'} cannot be enforced here; use key or secretRef")
        prefix = location.prefix
        bare = value[len(prefix) :] if prefix and value.lower().startswith(prefix.lower()) else value
        return BackendCredential("key", bare, location=location)

    def tls(self, wanted: agw.BackendTls, namespace: str) -> Tls:
        """TLS towards a backend."""
        if wanted.verify_subject_alt_names:
            raise ConfigError("tls.verifySubjectAltNames cannot be enforced here; use sni")
        if wanted.insecure_skip_verify == "Hostname":
            raise ConfigError("tls.insecureSkipVerify: Hostname cannot be enforced here; use sni")
        names = [str(ref.get("name") or "") for ref in wanted.ca_certificate_refs or ()]
        ca = "\n".join(self.world.values.config_map(namespace, name, "ca.crt") for name in names)
        certificate = key = ""
        for ref in wanted.mtls_certificate_ref or ():
            obj = self._secret(namespace, str(ref.get("name") or ""))
            certificate, key = secret_value(obj, "tls.crt"), secret_value(obj, "tls.key")
        return Tls(wanted.insecure_skip_verify == "All", ca, wanted.sni or "", certificate, key)

    def ext_auth(self, wanted: agw.ExtAuth, http: agw.ExtAuthHttp, namespace: str) -> ExtAuth:
        """A service that is asked first, over HTTP."""
        if wanted.backend_ref is None:
            raise ConfigError("extAuth: backendRef must be set")
        body = (wanted.forward_body or {}).get("maxSize")
        allowed = http.allowed_request_headers
        return ExtAuth(
            self._url(wanted.backend_ref, "", namespace),
            http.path or "",
            redirect=http.redirect or "",
            forward_headers=tuple(name.lower() for name in allowed) if allowed is not None else ("authorization",),
            add_headers=tuple(sorted((http.add_request_headers or {}).items())),
            copy_headers=tuple(name.lower() for name in http.allowed_response_headers or ()),
            body=int(parse_quantity(str(body))) if body is not None else 0,
            metadata=tuple(sorted((str(k), str(v)) for k, v in (http.response_metadata or {}).items())),
            fail_open=wanted.failure_mode == "FailOpen",
        )

    def _secret(self, namespace: str, name: str) -> Object:
        obj = self.world.secret(namespace, name)
        if obj is None:
            raise ConfigError(f"Secret {namespace}/{name} not found")
        return obj

    def _keys(self, wanted: agw.Jwks, namespace: str) -> dict[str, Any]:
        if wanted.inline is not None:
            try:
                found: Any = json.loads(wanted.inline)
            except ValueError as error:
                raise ConfigError(f"jwks.inline is no JSON: {error}") from error
            if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
                raise ConfigError("jwks.inline is no key set: it must be an object with keys")
            return {"jwks": found}
        remote = wanted.remote
        if remote is None or remote.backend_ref is None:
            raise ConfigError("jwks: inline, or remote with backendRef, must be set")
        url = self._url(remote.backend_ref, remote.jwks_path or _JWKS_DEFAULT, namespace)
        return {"jwks_url": url, "cache": duration(remote.cache_duration, 300.0)}

    def _url(self, ref: Mapping[str, Any], path: str, namespace: str) -> str:
        """Where a policy's own service answers: an address, as a gateway knows no names of Services."""
        home, name = str(ref.get("namespace") or namespace), str(ref.get("name") or "")
        kind = str(ref.get("kind") or "Service")
        if home != namespace and not self.grants(namespace, ref):
            raise ConfigError(
                f"{kind} {home}/{name} is in another namespace, and no ReferenceGrant permits the reference"
            )
        host, port = self._host(kind, home, name, ref)
        found = resolve(f"http://{host}:{port}/", self.world.endpoints, namespace)
        if not found.endpoints:
            raise ConfigError(f"{kind} {home}/{name} has no ready endpoints")
        first = found.endpoints[0]
        scheme = "https" if port == _HTTPS else "http"
        where = first.host if scheme == "http" or found.service is None else host
        return f"{scheme}://{where}:{first.port if scheme == 'http' else port}/{path.lstrip('/')}".rstrip("/")

    def _host(self, kind: str, namespace: str, name: str, ref: Mapping[str, Any]) -> tuple[str, int]:
        if kind == "Service":
            if not ref.get("port"):
                raise ConfigError(f"backendRef to Service {namespace}/{name} names no port")
            return f"{name}.{namespace}.svc.cluster.local", int(ref["port"])
        objects = {"Backend": self.world.backends, "AgentgatewayBackend": self.world.agentgateway_backends}.get(
            kind, ()
        )
        obj = next((each for each in objects if key_of(each) == (namespace, name)), None)
        if obj is None:
            raise ConfigError(f"{kind} {namespace}/{name} not found")
        if kind == "Backend":
            static = self.world.spec(BackendSpec, obj).static
            host = static.hosts[0] if static else None
        else:
            host = self.world.spec(AgentgatewayBackendSpec, obj).static
        if host is None or not host.host or not host.port:
            raise ConfigError(f"{kind} {namespace}/{name} is no static backend")
        return host.host, host.port


def reference_of(ref: Mapping[str, Any], namespace: str) -> tuple[str, str, str, str]:
    """Group, kind, namespace and name of a policy's backendRef."""
    kind = str(ref.get("kind") or "Service")
    group = {"Backend": KGATEWAY, "AgentgatewayBackend": AGENTGATEWAY}.get(kind, "")
    return group, kind, str(ref.get("namespace") or namespace), str(ref.get("name") or "")


def _mode(text: str) -> Any:
    return text.lower()


def _provider(name: str) -> Any:
    return name


def _location(wanted: agw.CredentialLocation | None) -> Location:
    if wanted is None:
        return Location()
    if wanted.header is not None:
        return Location("header", str(wanted.header.get("name", "")).lower(), str(wanted.header.get("prefix") or ""))
    if wanted.query_parameter is not None:
        return Location("query", str(wanted.query_parameter.get("name", "")), "")
    if wanted.cookie is not None:
        return Location("cookie", str(wanted.cookie.get("name", "")), "")
    if wanted.expression is not None:
        return Location("expression", wanted.expression, "")
    return Location()


def _api_key(text: str) -> ApiKey:
    """A key as it is, or JSON of key (or keyHash) and metadata."""
    metadata: dict[str, Any] = {}
    if text.lstrip().startswith("{"):
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise ConfigError("an API key that begins with { must be JSON with key and metadata") from error
        metadata = found.get("metadata") or {}
        given = str(found.get("keyHash") or "").removeprefix("sha256:")
        if given:
            return ApiKey(given, metadata)
        text = str(found.get("key") or "")
    if not text:
        raise ConfigError("an API key is empty")
    return ApiKey(hashlib.sha256(text.encode()).hexdigest(), metadata)
