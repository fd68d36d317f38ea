"""Where credentials are in a request, keys that verify them, and what is shown to backends."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.snapshot import policies as s

from ..document import Path_
from .context import Context
from .shared import BackendAuth, ExpressionLocation, KeySource, LocationModel, TokenExchange


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
    return {"jwks": found}


def backend(context: Context, path: Path_, model: BackendAuth) -> s.BackendCredential | None:
    """What a backend is shown; None after an error."""
    kind = context.one_of(
        path,
        {"key": model.key, "passthrough": model.passthrough, "oauthTokenExchange": model.oauth_token_exchange},
    )
    if kind == "passthrough" and model.passthrough is not None:
        where = location(context, (*path, "passthrough", "location"), model.passthrough.location or model.location)
        return s.BackendCredential("passthrough", location=where)
    if kind == "oauthTokenExchange" and model.oauth_token_exchange is not None:
        return _exchange(context, (*path, "oauthTokenExchange"), model.oauth_token_exchange)
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
    if not model.host:
        context.error((*path, "host"), "is required: the token endpoint's address")
        return None
    base = model.host
    if "://" not in base:
        base = f"{'https' if base.endswith(':443') else 'http'}://{base}"
    client = model.client_auth
    oauth = s.OAuthClient(
        base.rstrip("/") + "/" + model.path.lstrip("/"),
        client.client_id if client is not None else "",
        (client.client_secret or "") if client is not None else "",
        tuple(model.scopes),
        tuple(model.audiences),
        tuple(model.resources),
        model.requested_token_type or "",
    )
    where = location(context, (*path, "authorizationLocation"), model.authorization_location)
    return s.BackendCredential("token_exchange", location=where, oauth=oauth)
