"""RemoteMCPServers at which every user signs in."""

from __future__ import annotations

from quarterdeck.errors import ConfigError
from quarterdeck.resources.remote_mcp_server import RemoteMCPServerSpec
from quarterdeck.snapshot.sign_in import AuthMethod, SignIn

from .values import SecretReader

_METHODS: dict[str | None, AuthMethod] = {
    None: "",
    "clientSecretBasic": "client_secret_basic",
    "clientSecretPost": "client_secret_post",
    "privateKeyJwt": "private_key_jwt",
}


def sign_in(name: str, spec: RemoteMCPServerSpec, read_secret: SecretReader) -> SignIn | None:
    """None for a server without ``auth: oauth``. Raises ConfigError for a reference that leads nowhere."""
    if spec.auth is None:
        return None
    if any(header.name.lower() == "authorization" for header in spec.headers_from or ()):
        raise ConfigError("spec.headersFrom sets Authorization, which users show for themselves where auth is oauth")
    given = spec.oauth
    if given is None:
        return SignIn(_resource(spec.url), label=name)
    return SignIn(
        _resource(spec.url),
        given.client_id or "",
        read_secret(given.client_secret_ref, given.client_secret_key) if given.client_secret_ref else "",
        read_secret(given.signing_key_secret_ref, given.signing_key_secret_key) if given.signing_key_secret_ref else "",
        _METHODS[given.method],
        given.issuer or "",
        tuple(given.scopes or ()),
        tuple(given.trusted_hosts or ()),
        name,
    )


def _resource(url: str) -> str:
    """The URL that tokens are asked for: without query and fragment."""
    return url.partition("#")[0].partition("?")[0]
