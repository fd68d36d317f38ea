"""How authorization servers differ from what MCP clients expect, by product (as agentgateway adapts them).

None was run against the real service: URL layouts and adaptations follow the vendors' and agentgateway's documentation.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

_ENTRA_GRANTS = frozenset({"authorization_code", "refresh_token"})
_PKCE = ["S256"]


class ProviderError(ValueError):
    """The provider has no such endpoint, or its issuer is not of the form it must be."""


def rfc8414_url(issuer: str) -> str:
    """Where the metadata of an issuer is: the well-known part before its path."""
    parts = urlsplit(issuer)
    path = "" if parts.path == "/" else parts.path
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}"


def openid_url(issuer: str) -> str:
    """Where OpenID Connect Discovery puts it: after the path."""
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


class Provider:
    """An authorization server that needs no adaptation: clients are sent to it."""

    rewrites_issuer = False
    """Whether clients see the gateway as the authorization server, so that they read the adapted metadata."""
    dispensable = False
    """Whether clients that are no web pages get along without the adaptation."""

    def __init__(self, issuer: str) -> None:
        parts = urlsplit(issuer)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ProviderError(f"the issuer {issuer!r} must be an http(s) URL")
        self.issuer = issuer
        self.base = issuer.rstrip("/")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.segments = [s for s in parts.path.split("/") if s]

    @property
    def metadata_url(self) -> str:
        return rfc8414_url(self.issuer)

    @property
    def jwks_url(self) -> str:
        return f"{self.base}/.well-known/jwks.json"

    @property
    def registration_url(self) -> str:
        raise ProviderError("this authorization server registers its clients itself")

    @property
    def authorize_url(self) -> str:
        raise ProviderError("this authorization server is asked directly")

    @property
    def token_url(self) -> str:
        raise ProviderError("this authorization server is asked directly")

    def token_request(self, body: bytes, client_id: str, client_secret: str) -> bytes:
        """The body for the token endpoint."""
        del client_id, client_secret
        return body

    def is_issuer(self, told: Any) -> bool:
        """Whether metadata that names this issuer is the one asked for (RFC 8414 §3.3)."""
        return told == self.issuer

    def stands_aside(self, metadata: dict[str, Any]) -> bool:
        """Whether clients are better sent to the issuer itself: it names itself in authorization responses, so those
        that check that (RFC 9207) would refuse them from another issuer."""
        return self.dispensable and metadata.get("authorization_response_iss_parameter_supported") is True

    def adapt(self, metadata: dict[str, Any], issuer: str, url: str, audience: str) -> dict[str, Any]:
        """The metadata as clients get it from ``url``, for the issuer that is ours."""
        adapted = dict(metadata)
        if self.rewrites_issuer:
            adapted["issuer"] = issuer
            adapted.pop("authorization_response_iss_parameter_supported", None)  # it would name the other issuer
        self._adapt(adapted, url, audience)
        return adapted

    def _adapt(self, metadata: dict[str, Any], url: str, audience: str) -> None:
        del metadata, url, audience


def _with_audience(metadata: dict[str, Any], audience: str) -> None:
    """Servers that know no ``resource`` parameter (RFC 8707) take the audience of tokens from a query parameter."""
    endpoint = _required(metadata, "authorization_endpoint")
    if audience:
        joint = "&" if "?" in endpoint else "?"
        metadata["authorization_endpoint"] = f"{endpoint}{joint}audience={quote(audience, safe='')}"


def _required(metadata: dict[str, Any], name: str) -> str:
    value = metadata.get(name)
    if not isinstance(value, str):
        raise ProviderError(f"the metadata has no {name}")
    return value


class Auth0(Provider):
    rewrites_issuer = True

    @property
    def registration_url(self) -> str:
        return f"{self.base}/oidc/register"

    def _adapt(self, metadata: dict[str, Any], url: str, audience: str) -> None:
        _with_audience(metadata, audience)


class Keycloak(Provider):
    """Registration goes through the gateway: Keycloak lets no browser do it (its issue 39629)."""

    rewrites_issuer = True
    dispensable = True

    @property
    def metadata_url(self) -> str:
        return openid_url(self.issuer)

    @property
    def jwks_url(self) -> str:
        return f"{self.base}/protocol/openid-connect/certs"

    @property
    def registration_url(self) -> str:
        return f"{self.base}/clients-registrations/openid-connect"

    def _adapt(self, metadata: dict[str, Any], url: str, audience: str) -> None:
        _required(metadata, "registration_endpoint")
        metadata["registration_endpoint"] = f"{url}/client-registration"


class Okta(Provider):
    rewrites_issuer = True

    @property
    def metadata_url(self) -> str:
        return openid_url(self.issuer)

    @property
    def jwks_url(self) -> str:
        return f"{self.base}/v1/keys" if self.segments[:1] == ["oauth2"] else f"{self.base}/oauth2/v1/keys"

    @property
    def registration_url(self) -> str:
        return f"{self.origin}/oauth2/v1/clients"

    def _adapt(self, metadata: dict[str, Any], url: str, audience: str) -> None:
        _with_audience(metadata, audience)
        if "registration_endpoint" in metadata:
            metadata["registration_endpoint"] = f"{url}/client-registration"


class Descope(Provider):
    """``https://api.descope.com/v1/apps/agentic/PROJECT/SERVER`` (agentic), or ``…/PROJECT``."""

    rewrites_issuer = True
    dispensable = True

    @property
    def _agentic(self) -> bool:
        return len(self.segments) >= 5 and self.segments[:3] == ["v1", "apps", "agentic"]

    @property
    def metadata_url(self) -> str:
        return openid_url(self.issuer)

    @property
    def jwks_url(self) -> str:
        base = f"{self.origin}/{self.segments[3]}" if self._agentic else self.base
        return f"{base}/.well-known/jwks.json"

    @property
    def registration_url(self) -> str:
        if not self._agentic:
            raise ProviderError("clients can be registered at an agentic issuer of Descope only; set clientId")
        return f"{self.origin}/v1/mgmt/mcp/client/{self.segments[3]}/{self.segments[4]}/register"

    def _adapt(self, metadata: dict[str, Any], url: str, audience: str) -> None:
        if "registration_endpoint" in metadata:
            metadata["registration_endpoint"] = f"{url}/client-registration"


class Authentik(Provider):
    """``https://HOST/application/o/SLUG/``; it registers no clients, so ``clientId`` answers for all."""

    rewrites_issuer = True

    @property
    def metadata_url(self) -> str:
        return openid_url(self.issuer)

    @property
    def jwks_url(self) -> str:
        return f"{self.base}/jwks/"

    @property
    def registration_url(self) -> str:
        raise ProviderError("authentik registers no clients; set clientId to one made there")

    def _adapt(self, metadata: dict[str, Any], url: str, audience: str) -> None:
        metadata["registration_endpoint"] = f"{url}/client-registration"


class Entra(Provider):
    """``https://login.microsoftonline.com/TENANT/v2.0`` or ``https://sts.windows.net/TENANT/``.

    It refuses the ``resource`` parameter (AADSTS9010010), so clients authorize and fetch tokens through the gateway.
    """

    rewrites_issuer = True

    def __init__(self, issuer: str) -> None:
        super().__init__(issuer)
        if not self.segments:
            raise ProviderError(f"the issuer {issuer!r} names no tenant")
        host = urlsplit(issuer).hostname or ""
        login = "https://login.microsoftonline.com" if host == "sts.windows.net" else self.origin
        self._tenant = f"{login}/{self.segments[0]}"

    @property
    def metadata_url(self) -> str:
        return f"{self._tenant}/v2.0/.well-known/openid-configuration"

    @property
    def jwks_url(self) -> str:
        return f"{self._tenant}/discovery/v2.0/keys"

    @property
    def registration_url(self) -> str:
        raise ProviderError("Entra ID registers no clients (RFC 7591); set clientId to an app registration")

    @property
    def authorize_url(self) -> str:
        return f"{self._tenant}/oauth2/v2.0/authorize"

    @property
    def token_url(self) -> str:
        return f"{self._tenant}/oauth2/v2.0/token"

    def is_issuer(self, told: Any) -> bool:
        return isinstance(told, str) and told in (self.issuer, f"{self._tenant}/v2.0")

    def token_request(self, body: bytes, client_id: str, client_secret: str) -> bytes:
        """Without ``resource``; with the gateway's secret for grants of a user, and for its own client only."""
        try:
            pairs = [(k, v) for k, v in parse_qsl(body.decode("ascii"), keep_blank_values=True) if k != "resource"]
        except UnicodeDecodeError as error:
            raise ProviderError("the request is no form") from error
        fields = dict(pairs)
        ours = fields.get("client_id") == client_id and "client_secret" not in fields
        if client_secret and ours and fields.get("grant_type") in _ENTRA_GRANTS:
            pairs.append(("client_secret", client_secret))
        return urlencode(pairs).encode()

    def _adapt(self, metadata: dict[str, Any], url: str, audience: str) -> None:
        for name in ("authorization_endpoint", "token_endpoint"):
            _required(metadata, name)
        metadata["authorization_endpoint"] = f"{url}/authorize"
        metadata["token_endpoint"] = f"{url}/token"
        metadata["registration_endpoint"] = f"{url}/client-registration"
        metadata.setdefault("code_challenge_methods_supported", _PKCE)


_PRODUCTS: dict[str, type[Provider]] = {
    "": Provider, "auth0": Auth0, "keycloak": Keycloak, "okta": Okta, "descope": Descope, "authentik": Authentik,
    "entra": Entra,
}  # fmt: skip


def provider_of(name: str, issuer: str) -> Provider:
    """The adaptation for a product. Raises ProviderError when the issuer cannot be one of it."""
    return _PRODUCTS[name](issuer)
