"""Where credentials are in a request, keys that verify them, and what is shown to backends."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.snapshot import policies as s
from quarterdeck.snapshot.sign_in import AuthMethod

from ...policy.jwks import parse_keys
from ..document import Path_
from .context import Context
from .shared import (
    BackendAuth,
    ClientAuth,
    CrossAppAccess,
    ExpressionLocation,
    KeySource,
    LocationModel,
    TokenEndpoint,
    TokenExchange,
)

_METHODS: dict[str, AuthMethod] = {
    "clientSecretBasic": "client_secret_basic",
    "clientSecretPost": "client_secret_post",
    "privateKeyJwt": "private_key_jwt",
}
_ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - the name of a type


def location(context: Context, path: Path_, model: LocationModel | None) -> s.Location:
    """Default: ``Authorization: Bearer …``."""
    if model is None:
        return s.Location()
    given = {
        "header": model.header,
        "queryParameter": model.query_parameter,
        "cookie": model.cookie,
        "expression": model.expression,
    }
    kind = context.one_of(path, dict(given))
    if kind == "header" and model.header is not None:
        return s.Location("header", model.header.name.lower(), model.header.prefix or "")
    if kind == "queryParameter" and model.query_parameter is not None:
        return s.Location("query", model.query_parameter.name, "")
    if kind == "cookie" and model.cookie is not None:
        return s.Location("cookie", model.cookie.name, "")
    expression = model.expression
    text = expression.expression if isinstance(expression, ExpressionLocation) else expression
    return s.Location("expression", text or "", "")


def keys(context: Context, path: Path_, source: str | KeySource | None) -> dict[str, Any]:
    """``jwks`` or ``jwks_url`` of a JwtProvider."""
    if source is None:
        context.error(path, "is required: {file: PATH}, {url: URL} or the key set as text")
        return {}
    if isinstance(source, KeySource):
        if context.one_of(path, {"file": source.file, "url": source.url}) == "url":
            url = source.url or ""
            if not url.startswith(("http://", "https://")):
                context.error((*path, "url"), "must begin with https:// or http://")
            return {"jwks_url": url}
        text = source.file or ""
    else:
        text = source
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        context.error(path, f"is not a JSON Web Key Set: {error}")
        return {}
    if isinstance(found, dict) and "kty" in found:
        found = {"keys": [found]}
    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
        context.error(path, 'is not a JSON Web Key Set: {"keys": […]}')
        return {}
    usable = len(parse_keys(found))
    if found["keys"] and not usable:
        context.error(path, "no key of it can verify tokens: public keys of type RSA, EC or OKP are wanted")
    elif usable < len(found["keys"]):
        context.warn(path, f"{usable} of {len(found['keys'])} keys can verify tokens; the others are left out")
    return {"jwks": found}


def backend(context: Context, path: Path_, model: BackendAuth) -> s.BackendCredential | None:
    """What a backend is shown; None after an error."""
    kind = context.one_of(
        path,
        {
            "key": model.key,
            "passthrough": model.passthrough,
            "oauthTokenExchange": model.oauth_token_exchange,
            "crossAppAccess": model.cross_app_access,
        },
    )
    if kind == "passthrough" and model.passthrough is not None:
        where = location(context, (*path, "passthrough", "location"), model.passthrough.location or model.location)
        return s.BackendCredential("passthrough", location=where)
    if kind == "oauthTokenExchange" and model.oauth_token_exchange is not None:
        return _exchange(context, (*path, "oauthTokenExchange"), model.oauth_token_exchange)
    if kind == "crossAppAccess" and model.cross_app_access is not None:
        return _cross_app(context, (*path, "crossAppAccess"), model.cross_app_access)
    key = model.key
    if key is None:
        return None
    if isinstance(key, str):
        return s.BackendCredential("key", key, location=location(context, (*path, "location"), model.location))
    if not context.one_of((*path, "key"), {"value": key.value, "file": key.file}):
        return None
    where = location(context, (*path, "key", "location"), key.location or model.location)
    value = key.value if key.value is not None else (key.file or "").rstrip("\r\n")
    return s.BackendCredential("key", value, location=where)


def _exchange(context: Context, path: Path_, model: TokenExchange) -> s.BackendCredential | None:
    url = _endpoint(context, path, model)
    if url is None:
        return None
    oauth = s.OAuthClient(
        url,
        scopes=tuple(model.scopes),
        audiences=tuple(model.audiences),
        resources=tuple(model.resources),
        requested_token_type=model.requested_token_type or "",
        grant="jwt_bearer" if model.grant_type == "jwtBearer" else "token_exchange",
        **_client(context, (*path, "clientAuth"), model.client_auth),
    )
    where = location(context, (*path, "authorizationLocation"), model.authorization_location)
    return s.BackendCredential("token_exchange", location=where, oauth=oauth)


def _cross_app(context: Context, path: Path_, model: CrossAppAccess) -> s.BackendCredential | None:
    """ID-JAG: the scopes are asked of both, audience and resources of the identity provider."""
    first, second = (*path, "identityProvider"), (*path, "resourceAuthorizationServer")
    urls = (
        _endpoint(context, first, model.identity_provider),
        _endpoint(context, second, model.resource_authorization_server),
    )
    if not model.audience:
        context.error((*path, "audience"), "is empty; name the resource's authorization server")
    if urls[0] is None or urls[1] is None:
        return None
    assertion = s.OAuthClient(
        urls[0],
        scopes=tuple(model.scopes),
        audiences=(model.audience,),
        resources=tuple(model.resources),
        requested_token_type=_ID_JAG,
        subject_token_type=_ID_TOKEN,
        **_client(context, (*first, "clientAuth"), model.identity_provider.client_auth),
    )
    oauth = s.OAuthClient(
        urls[1],
        scopes=tuple(model.scopes if model.access_token_scopes is None else model.access_token_scopes),
        grant="jwt_bearer",
        assertion=assertion,
        **_client(context, (*second, "clientAuth"), model.resource_authorization_server.client_auth),
    )
    return s.BackendCredential("token_exchange", oauth=oauth)


def _endpoint(context: Context, path: Path_, model: TokenExchange | TokenEndpoint) -> str | None:
    """URL of a token endpoint; None after an error."""
    if not model.host:
        context.error((*path, "host"), "is required: the token endpoint's address")
        return None
    base = model.host
    if "://" not in base:
        base = f"{'https' if base.endswith(':443') else 'http'}://{base}"
    return base.rstrip("/") + "/" + model.path.lstrip("/")


def _client(context: Context, path: Path_, model: ClientAuth | None) -> dict[str, Any]:
    """What an OAuthClient says of itself."""
    if model is None:
        return {}
    if model.method == "privateKeyJwt" or model.signing_key is not None:
        if model.signing_key is None or model.client_secret is not None or model.method != "privateKeyJwt":
            context.error(path, "method: privateKeyJwt goes with signingKey, the others with clientSecret")
        return {"client_id": model.client_id, "auth_method": "private_key_jwt", "private_key": model.signing_key or ""}
    if model.method is not None and model.client_secret is None:
        context.error((*path, "clientSecret"), f"is required for {model.method}")
    method = _METHODS[model.method] if model.method is not None else ""
    return {"client_id": model.client_id, "client_secret": model.client_secret or "", "auth_method": method}
