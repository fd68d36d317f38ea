"""From the policies of a file to those of the snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from quarterdeck.gateway.policy.providers import ProviderError, provider_of
from quarterdeck.snapshot import policies as s

from ..document import Path_
from ..fields import Model
from . import checks, credentials
from .context import Context
from .policies import (
    ApiKeyAuth,
    BasicAuth,
    Buffer,
    DenyWithStatus,
    DirectResponse,
    ExtAuthz,
    Health,
    HttpSettings,
    McpAuthentication,
    Retry,
    Transformations,
)
from .shared import (
    Authority,
    BackendAuth,
    CorsPolicy,
    CsrfPolicy,
    HeaderModifier,
    JwtAuth,
    RateLimitModel,
    RequestRedirect,
    RuleModel,
    RuleSet,
    TimeoutPolicy,
    Transform,
    UrlRewrite,
)

Changes = dict[str, Any]


def policies(context: Context, path: Path_, model: Model | None, where: str) -> s.Policies:
    """All policies of one attachment point; ``where`` names it in audit records.

    ``requestMirror`` and ``backendTLS`` are parts of routes and backends there, and not looked at here.
    """
    changes: Changes = {"open": True} if context.open else {}
    if model is not None:
        for name in model.__struct_fields__:
            value = getattr(model, name)
            if value is not None and name in _HANDLERS:
                changes.update(_HANDLERS[name](context, (*path, _written(model, name)), value, where))
    return s.Policies(**changes)


def _written(model: Model, attribute: str) -> str:
    return model.__struct_encode_fields__[model.__struct_fields__.index(attribute)]


def _pairs(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(values.items())


def _headers(context: Context, path: Path_, model: HeaderModifier) -> s.HeaderModifier:
    checks.headers(context, (*path, "add"), model.add)
    checks.headers(context, (*path, "set"), model.set)
    return s.HeaderModifier(_pairs(model.add), _pairs(model.set), tuple(model.remove))


def _redirect(context: Context, path: Path_, model: RequestRedirect, where: str) -> Changes:
    host, port, _ = _authority(context, (*path, "authority"), model.authority)
    full, prefix = (model.path.full, model.path.prefix) if model.path is not None else (None, None)
    if model.path is not None:
        context.one_of((*path, "path"), {"full": full, "prefix": prefix})
    status = model.status or 302
    if model.scheme not in (None, "http", "https"):
        context.error((*path, "scheme"), f"{model.scheme!r} must be http or https")
    checks.absolute(context, (*path, "path", "full"), full)
    checks.absolute(context, (*path, "path", "prefix"), prefix)
    if not 300 <= status <= 399:
        context.error((*path, "status"), f"{status} is no redirect; use 301, 302, 303, 307 or 308")
    return {"redirect": s.Redirect(model.scheme or "", host, port, full, prefix, status)}


def _rewrite(context: Context, path: Path_, model: UrlRewrite, where: str) -> Changes:
    host, port, auto = _authority(context, (*path, "authority"), model.authority)
    if port and not host:
        context.error((*path, "authority", "port"), "a port alone cannot be written into Host; use full")
    if port:
        host = f"{host}:{port}"
    full, prefix = (model.path.full, model.path.prefix) if model.path is not None else (None, None)
    if model.path is not None:
        context.one_of((*path, "path"), {"full": full, "prefix": prefix})
    checks.absolute(context, (*path, "path", "full"), full)
    checks.absolute(context, (*path, "path", "prefix"), prefix)
    return {"rewrite": s.Rewrite(host, auto, full, prefix)}


def _authority(context: Context, path: Path_, model: Authority | str | None) -> tuple[str, int, bool]:
    """Host, port and whether the backend's own name is meant."""
    if not isinstance(model, Authority):
        return "", 0, model == "auto"
    kind = context.one_of(path, {"full": model.full, "host": model.host, "port": model.port})
    if kind == "port":
        return "", model.port or 0, False
    text = (model.full if kind == "full" else model.host) or ""
    host, colon, port = text.rpartition(":")
    if kind == "full" and colon and port.isdigit():
        return host, int(port), False
    return text, 0, False


def _direct(context: Context, path: Path_, model: DirectResponse, where: str) -> Changes:
    if model.status is None:
        context.error((*path, "status"), "is required")
        return {}
    checks.status(context, (*path, "status"), model.status)
    body = model.body
    if not isinstance(body, str):
        try:
            body = bytes(body).decode()
        except ValueError:  # UnicodeDecodeError is one
            context.error((*path, "body"), "the bytes are no text in UTF-8")
            body = ""
    return {"direct_response": s.DirectResponse(model.status, body)}


def _cors(context: Context, path: Path_, model: CorsPolicy, where: str) -> Changes:
    if model.allow_credentials and "*" in model.allow_origins:
        context.error(path, "allowCredentials with every origin would hand credentials to any page; list the origins")
    checks.origins(context, (*path, "allowOrigins"), model.allow_origins)
    return {
        "cors": s.Cors(
            tuple(model.allow_origins),
            tuple(model.allow_methods),
            tuple(model.allow_headers),
            tuple(model.expose_headers),
            model.allow_credentials,
            int(model.max_age or 0),
        )
    }


def _rules(context: Context, path: Path_, model: RuleSet, where: str) -> tuple[s.Authorization, ...]:
    rules: list[s.CelRule] = []
    for index, rule in enumerate(model.rules):
        if isinstance(rule, RuleModel):
            given = {"allow": rule.allow, "deny": rule.deny, "require": rule.require}
            effect = context.one_of((*path, "rules", index), dict(given))
            if effect:
                rules.append(s.CelRule(effect, given[effect] or ""))  # type: ignore[arg-type]  # one of the three
        else:
            rules.append(s.CelRule("allow", rule))
    if rules and all(rule.effect == "deny" for rule in rules):
        meaning = "everything is denied" if context.strict else "everything else is allowed"
        context.warn(path, f"only denials: {meaning}; add an allow rule to say what you mean")
    return (s.Authorization(tuple(rules), context.strict, where),) if rules else ()


def _timeout(context: Context, path: Path_, model: TimeoutPolicy, where: str) -> Changes:
    return {"timeout": model.request_timeout or 0.0, "backend_timeout": model.backend_request_timeout or 0.0}


def _retry(context: Context, path: Path_, model: Any, where: str) -> Changes:
    assert isinstance(model, Retry)
    if model.attempts < 1:
        context.error((*path, "attempts"), "must be at least 1")
    for index, code in enumerate(model.codes):
        checks.status(context, (*path, "codes", index), code)
    backoff = 0.025 if model.backoff is None else model.backoff
    return {
        "retry": s.Retry(
            model.attempts,
            tuple(model.codes),
            backoff,
            precondition=model.precondition or "",
            condition=model.condition or "",
        )
    }


def _jwt(context: Context, path: Path_, model: JwtAuth, where: str) -> Changes:
    if context.one_of(path, {"providers": model.providers, "issuer": model.issuer}) == "":
        return {}
    if model.providers is not None:
        providers = tuple(
            s.JwtProvider(
                one.issuer,
                tuple(one.audiences or ()),
                required_claims=tuple(one.jwt_validation_options.required_claims),
                **credentials.keys(context, (*path, "providers", index, "jwks"), one.jwks),
            )
            for index, one in enumerate(model.providers)
        )
    else:
        providers = (
            s.JwtProvider(
                model.issuer or "",
                tuple(model.audiences or ()),
                required_claims=tuple(model.jwt_validation_options.required_claims),
                **credentials.keys(context, (*path, "jwks"), model.jwks),
            ),
        )
    return {"jwt": s.Jwt(providers, model.mode, credentials.location(context, (*path, "location"), model.location))}


def _mcp_authentication(context: Context, path: Path_, model: McpAuthentication, where: str) -> Changes:
    given = [name for name in model.provider.__struct_fields__ if getattr(model.provider, name) is not None] if (
        model.provider is not None
    ) else []  # fmt: skip
    if len(given) > 1:
        context.error((*path, "provider"), f"give one provider, not {', '.join(given)}")
    provider: Any = given[0] if given else ""
    keys: Changes = {}
    if model.jwks is not None:
        keys = credentials.keys(context, (*path, "jwks"), model.jwks)
    else:
        try:
            keys = {"jwks_url": provider_of(provider, model.issuer).jwks_url}
        except ProviderError as error:
            context.error((*path, "issuer"), str(error))
    jwt = s.Jwt(
        (
            s.JwtProvider(
                model.issuer,
                tuple(model.audiences),
                required_claims=tuple(model.jwt_validation_options.required_claims),
                **keys,
            ),
        ),
        model.mode,
        credentials.location(context, (*path, "authorizationLocation"), model.authorization_location),
    )
    metadata = {_snake(name): value for name, value in model.resource_metadata.items()}
    return {
        "mcp_authentication": s.McpAuthentication(
            jwt,
            model.issuer,
            provider,
            metadata,
            tuple(model.scopes),
            {tool: tuple(scopes) for tool, scopes in model.tool_scopes.items()},
            client_id=model.client_id or "",
            client_secret=model.client_secret or "",
        )
    }


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _api_keys(context: Context, path: Path_, model: ApiKeyAuth, where: str) -> Changes:
    keys: list[s.ApiKey] = []
    for index, one in enumerate(model.keys):
        here = (*path, "keys", index)
        kind = context.one_of(here, {"key": one.key, "keyHash": one.key_hash})
        if kind == "key":
            keys.append(s.ApiKey(hashlib.sha256((one.key or "").encode()).hexdigest(), one.metadata))
        elif kind:
            scheme, _, digest = (one.key_hash or "").partition(":")
            if scheme != "sha256" or len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
                context.error((*here, "keyHash"), "write sha256: and 64 hexadecimal digits")
            keys.append(s.ApiKey(digest.lower(), one.metadata))
    where_ = credentials.location(context, (*path, "location"), model.location)
    return {"api_keys": s.ApiKeys(tuple(keys), model.mode, where_)}


def _basic(context: Context, path: Path_, model: BasicAuth, where: str) -> Changes:
    return {"basic": s.BasicUsers(model.htpasswd, model.realm or "Restricted", model.mode)}


def _rate_limits(context: Context, path: Path_, model: Any, where: str) -> Changes:
    if not isinstance(model, list):
        return {}
    limits: list[s.RateLimit] = []
    for index, one in enumerate(model):
        assert isinstance(one, RateLimitModel)
        if one.type == "tokens":
            context.error((*path, index, "type"), "tokens of models are not counted from a file yet; use requests")
        if one.fill_interval <= 0:
            context.error((*path, index, "fillInterval"), "must be longer than nothing")
        for name, number, told in (
            ("maxTokens", one.max_tokens, "every request is refused"),
            ("tokensPerFill", one.tokens_per_fill, "what was used up never comes back"),
        ):
            if number < 0:
                context.error((*path, index, name), "must not be negative")
            elif not number:
                context.warn((*path, index), f"{name} is 0: {told}")
        rate = (one.max_tokens, one.tokens_per_fill, one.fill_interval)
        limits.append(s.RateLimit(*rate, one.type, one.key or ""))
    return {"rate_limits": tuple(limits)} if limits else {}


def _ext_authz(context: Context, path: Path_, model: ExtAuthz, where: str) -> Changes:
    http = model.protocol.http if model.protocol is not None else None
    if http is None:
        context.error((*path, "protocol"), "gRPC authorizers (the default) cannot be asked; write protocol: {http: {}}")
        return {}
    if model.host is None:
        context.error((*path, "host"), "is required: the address of the HTTP service")
        return {}
    url = model.host if "://" in model.host else f"http://{model.host}"
    deny = model.failure_mode.deny_with_status if isinstance(model.failure_mode, DenyWithStatus) else 403
    forward = ("authorization",) if model.include_request_headers is None else tuple(model.include_request_headers)
    body = model.include_request_body
    return {
        "ext_auth": s.ExtAuth(
            url,
            http.path or "",
            http.redirect or "",
            tuple(name.lower() for name in forward),
            _pairs(http.add_request_headers),
            tuple(name.lower() for name in http.include_response_headers),
            body.max_request_bytes or 8192 if body is not None else 0,
            body is not None and body.allow_partial_message,
            _pairs(http.metadata),
            model.failure_mode == "allow",
            deny,
        )
    }


def _transform(model: Transform | None) -> s.Transform | None:
    if model is None:
        return None
    return s.Transform(_pairs(model.add), _pairs(model.set), tuple(model.remove), model.body or "")


def _transformation(context: Context, path: Path_, model: Transformations, where: str) -> Changes:
    return {"transformation": s.Transformation(_transform(model.request), _transform(model.response))}


def _buffer(context: Context, path: Path_, model: Buffer, where: str) -> Changes:
    changes: Changes = {}
    for name, side, field in (("request", model.request, "max_body"), ("response", model.response, "max_response")):
        if side is not None:
            if side.max_bytes <= 0:
                context.error((*path, name, "maxBytes"), "must be at least 1")
            changes[field] = side.max_bytes
    return changes


def _concurrency(context: Context, path: Path_, model: int, where: str) -> Changes:
    if model < 1:
        context.error(path, "must be at least 1")
    return {"concurrency": model}


def _health(context: Context, path: Path_, model: Health, where: str) -> Changes:
    eviction = model.eviction
    if eviction is None:
        return {"breaker": s.Breaker()}
    default = s.Breaker()
    return {
        "breaker": s.Breaker(
            eviction.consecutive_failures or default.failures,
            default.open_for if eviction.duration is None else eviction.duration,
        )
    }


def _http(context: Context, path: Path_, model: HttpSettings, where: str) -> Changes:
    return {"backend_timeout": model.request_timeout} if model.request_timeout is not None else {}


def _csrf(context: Context, path: Path_, model: CsrfPolicy, where: str) -> Changes:
    checks.origins(context, (*path, "additionalOrigins"), model.additional_origins)
    return {"csrf": s.Csrf(tuple(model.additional_origins))}


def _auth(context: Context, path: Path_, model: BackendAuth, where: str) -> Changes:
    credential = credentials.backend(context, path, model)
    return {"credential": credential} if credential is not None else {}


_HANDLERS: dict[str, Callable[[Context, Path_, Any, str], Changes]] = {
    "request_header_modifier": lambda c, p, m, w: {"request_headers": _headers(c, p, m)},
    "response_header_modifier": lambda c, p, m, w: {"response_headers": _headers(c, p, m)},
    "request_redirect": _redirect,
    "url_rewrite": _rewrite,
    "direct_response": _direct,
    "cors": _cors,
    "mcp_authorization": lambda c, p, m, w: {"mcp_authorization": _rules(c, p, m, w)},
    "authorization": lambda c, p, m, w: {"authorization": _rules(c, p, m, w)},
    "mcp_authentication": _mcp_authentication,
    "backend_auth": _auth,
    "local_rate_limit": _rate_limits,
    "jwt_auth": _jwt,
    "basic_auth": _basic,
    "api_key": _api_keys,
    "ext_authz": _ext_authz,
    "transformations": _transformation,
    "csrf": _csrf,
    "timeout": _timeout,
    "retry": _retry,
    "buffer": _buffer,
    "concurrency": _concurrency,
    "health": _health,
    "http": _http,
}

HANDLED = frozenset(_HANDLERS) | {"request_mirror", "backend_tls"}
"""Names of policies that come to something here or in ``targets``."""
