"""Policies of kgateway and agentgateway as the rules a snapshot carries.

What is written and cannot be enforced, though leaving it out would weaken security or change what is routed, is a
problem: whatever the policy is attached to is refused (500) until it is corrected. The rest is a note in its status.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from quarterdeck.cel.errors import CompileError
from quarterdeck.cel.parser import parse as parse_cel
from quarterdeck.errors import ConfigError
from quarterdeck.kube.quantity import parse_quantity
from quarterdeck.resources.kgateway import agentgateway_policy as agw
from quarterdeck.resources.kgateway import traffic_policy as tp
from quarterdeck.resources.kgateway.common import Authorization as WantedAuthorization
from quarterdeck.snapshot.merge import merged
from quarterdeck.snapshot.policies import (
    Authorization,
    CelRule,
    Cors,
    Csrf,
    DirectResponse,
    HeaderModifier,
    Policies,
    RateLimit,
    Retry,
    Rewrite,
    Transform,
    Transformation,
)
from quarterdeck.snapshot.routing import Tls
from quarterdeck.translate.objects import duration

from .credentials import Credentials
from .status import Problem

_NODES, _DEPTH = 10_000, 200
"""Of an expression's tree."""
_UNITS = {"Seconds": 1.0, "Minutes": 60.0, "Hours": 3600.0}
_RETRY_ON = {
    "5xx": (500, 502, 503, 504),
    "gateway-error": (502, 503, 504),
    "retriable-4xx": (409,),
    "connect-failure": (),
    "refused-stream": (),
    "reset": (),
    "reset-before-request": (),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What one attachment point carries."""

    policies: Policies = field(default_factory=Policies)
    pre: Policies = field(default_factory=Policies)
    """What applies before a route is found."""
    tls: Tls | None = None
    """TLS towards the backend."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def within(self, inner: Rules) -> Rules:
        """These, with ``inner`` attached below them."""
        return Rules(
            merged(self.policies, inner.policies),
            merged(self.pre, inner.pre),
            inner.tls or self.tls,
            self.problems + inner.problems,
            self.notes + inner.notes,
        )

    def problem(self, kind: str, namespace: str, name: str) -> Problem | None:
        """Why what carries these cannot be served; None when it can."""
        if not self.problems:
            return None
        return Problem("Invalid", f"policies of {kind} {namespace}/{name}: {'; '.join(self.problems)}")


NONE = Rules()


class _Found:
    """Collects the fields of one policy, its problems and notes."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []

    def refuse(self, *given: tuple[str, Any]) -> None:
        """Fields that are set and cannot be enforced."""
        self.problems += [f"{name} cannot be enforced here" for name, value in given if value]

    def note(self, *given: tuple[str, Any]) -> None:
        self.notes += [f"{name} has no effect" for name, value in given if value]

    def set(self, name: str, value: Any) -> None:
        if value is not None:
            self.fields[name] = value


def traffic_rules(spec: tp.TrafficPolicySpec, where: str, *, mcp: bool) -> Rules:
    """Of a TrafficPolicy (October 2025: a set of denials denies the rest, too). ``mcp``: attached to an MCP backend."""
    found = _Found()
    found.refuse(("extAuth", spec.ext_auth), ("extProc", spec.ext_proc))
    found.note(("ai", spec.ai))
    if spec.rbac is not None:
        _authorize(found, spec.rbac, where, mcp=mcp, strict=True)
    try:
        if spec.rate_limit is not None:
            found.refuse(("rateLimit.global", spec.rate_limit.global_))
            bucket = spec.rate_limit.local.token_bucket if spec.rate_limit.local else None
            if bucket is not None:
                limit = RateLimit(bucket.max_tokens, bucket.tokens_per_fill, duration(bucket.fill_interval))
                found.set("rate_limits", (limit,))
        if spec.transformation is not None:
            found.set("transformation", _transformation(found, spec.transformation))
        if spec.csrf is not None:
            found.set("csrf", _csrf_of_kgateway(found, spec.csrf))
        if spec.buffer is not None:
            found.refuse(("buffer.disable", spec.buffer.disable))
            if spec.buffer.max_request_size is not None:
                found.set("max_body", int(parse_quantity(str(spec.buffer.max_request_size))))
        if spec.timeouts is not None:
            found.note(("timeouts.streamIdle", spec.timeouts.stream_idle))
            found.set("timeout", duration(spec.timeouts.request) if spec.timeouts.request else None)
        if spec.retry is not None:
            found.set("retry", _retry_of_kgateway(found, spec.retry))
    except (ConfigError, ValueError) as error:
        found.problems.append(str(error))
    if spec.auto_host_rewrite:
        found.set("rewrite", Rewrite(auto_host=True))
    _shared(found, spec.cors, spec.header_modifiers)
    return Rules(Policies(**found.fields), problems=tuple(found.problems), notes=tuple(found.notes))


def policy_rules(
    spec: agw.AgentgatewayPolicySpec, namespace: str, where: str, credentials: Credentials, *, mcp: bool
) -> Rules:
    """Of an AgentgatewayPolicy."""
    rules = NONE
    frontend: dict[str, Any] = spec.frontend or {}
    strict = [name for name in ("networkAuthorization", "proxyProtocol", "connect", "tls") if frontend.get(name)]
    light = [name for name in frontend if name not in strict]
    if spec.traffic is not None:
        rules = rules.within(_traffic(spec.traffic, namespace, where, credentials, mcp=mcp))
    if spec.backend is not None:
        rules = rules.within(backend_rules(spec.backend, namespace, where, credentials))
    return replace(
        rules,
        problems=rules.problems + tuple(f"frontend.{name} cannot be enforced here" for name in strict),
        notes=rules.notes + tuple(f"frontend.{name} has no effect" for name in light),
    )


def _traffic(traffic: agw.Traffic, namespace: str, where: str, credentials: Credentials, *, mcp: bool) -> Rules:
    found = _Found()
    found.refuse(("traffic.extProc", traffic.ext_proc))
    found.note(("traffic.delay", traffic.delay))
    if traffic.authorization is not None:
        _authorize(found, traffic.authorization, where, mcp=mcp, strict=False)
    try:
        _authenticate(found, traffic, namespace, credentials)
        if traffic.rate_limit is not None:
            found.refuse(
                ("rateLimit.global", traffic.rate_limit.global_),
                ("rateLimit.conditional", traffic.rate_limit.conditional),
            )
            found.set("rate_limits", tuple(_limit(each) for each in traffic.rate_limit.local or ()) or None)
        if traffic.ext_auth is not None:
            found.set("ext_auth", _ext_auth(found, traffic.ext_auth, namespace, credentials))
        if traffic.timeouts is not None and traffic.timeouts.request:
            found.set("timeout", duration(traffic.timeouts.request))
        if traffic.retry is not None:
            backoff = duration(traffic.retry.backoff, 0.025) if traffic.retry.backoff else 0.025
            found.set("retry", Retry(traffic.retry.attempts, tuple(traffic.retry.codes or ()), backoff))
        if traffic.buffer is not None:
            _buffer(found, traffic.buffer)
    except (ConfigError, ValueError) as error:
        found.problems.append(str(error))
    if traffic.transformation is not None:
        found.set("transformation", _cel_transformation(found, traffic.transformation))
    if traffic.csrf is not None:
        found.set("csrf", Csrf(tuple(traffic.csrf.additional_origins or ())))
    if traffic.host_rewrite is not None and traffic.host_rewrite.mode == "Auto":
        found.set("rewrite", Rewrite(auto_host=True))
    if traffic.direct_response is not None:
        found.set("direct_response", _direct(found, traffic.direct_response))
    _shared(found, traffic.cors, traffic.header_modifiers)
    policies = Policies(**found.fields)
    early = traffic.phase == "PreRouting"
    return Rules(
        Policies() if early else policies,
        policies if early else Policies(),
        problems=tuple(found.problems),
        notes=tuple(found.notes),
    )


def backend_rules(backend: agw.BackendPolicies, namespace: str, where: str, credentials: Credentials) -> Rules:
    """Of what goes to a backend."""
    found = _Found()
    found.refuse(("backend.tunnel", backend.tunnel))
    found.note(("backend.ai", backend.ai), ("backend.tcp", backend.tcp), ("backend.health", backend.health))
    tls: Tls | None = None
    try:
        if backend.auth is not None:
            found.set("credential", credentials.shown(backend.auth, namespace))
        if backend.tls is not None:
            tls = credentials.tls(backend.tls, namespace)
        if backend.mcp is not None:
            found.refuse(("mcp.guardrails", backend.mcp.guardrails), ("mcp.extMcp", backend.mcp.ext_mcp))
            if backend.mcp.authorization is not None:
                _authorize(found, backend.mcp.authorization, where, mcp=True, strict=False)
            if backend.mcp.authentication is not None:
                wanted = credentials.mcp(backend.mcp.authentication, namespace)
                found.set("mcp_authentication", wanted)
        if backend.ext_auth is not None:
            found.set("ext_auth", _ext_auth(found, backend.ext_auth, namespace, credentials))
        http: dict[str, Any] = backend.http or {}
        if http.get("requestTimeout"):
            found.set("backend_timeout", duration(str(http["requestTimeout"])))
        found.note(*((f"backend.http.{name}", value) for name, value in http.items() if name != "requestTimeout"))
    except (ConfigError, ValueError) as error:
        found.problems.append(str(error))
    if backend.transformation is not None:
        found.set("transformation", _cel_transformation(found, backend.transformation))
    return Rules(Policies(**found.fields), tls=tls, problems=tuple(found.problems), notes=tuple(found.notes))


def _authenticate(found: _Found, traffic: agw.Traffic, namespace: str, credentials: Credentials) -> None:
    """Raises ConfigError."""
    if traffic.jwt_authentication is not None:
        jwt, mcp = credentials.jwt(traffic.jwt_authentication, namespace)
        found.set("jwt", jwt if mcp is None else None)
        found.set("mcp_authentication", mcp)
    if traffic.api_key_authentication is not None:
        found.set("api_keys", credentials.api_keys(traffic.api_key_authentication, namespace))
    if traffic.basic_authentication is not None:
        found.set("basic", credentials.basic(traffic.basic_authentication, namespace))


def _authorize(found: _Found, wanted: WantedAuthorization, where: str, *, mcp: bool, strict: bool) -> None:
    """Rules about tools judge calls and lists; others the HTTP request. One set is never split: its parts are or-ed."""
    effects = {"Deny": "deny", "Require": "require"}
    effect: Any = effects.get(wanted.action, "allow")
    rules = tuple(CelRule(effect, " ".join(text.split("\n"))) for text in wanted.policy.match_expressions)
    for rule in rules:
        try:
            parse_cel(rule.expression, _NODES, _DEPTH)
        except CompileError as error:
            found.problems.append(f"{rule.expression!r} is no CEL expression: {error}")
    about_tools = mcp or any("mcp." in rule.expression for rule in rules)
    name = "mcp_authorization" if about_tools else "authorization"
    found.set(name, (*found.fields.get(name, ()), Authorization(rules, strict, where)))


def _shared(found: _Found, cors: tp.Cors | None, headers: tp.HeaderModifiers | None) -> None:
    if cors is not None:
        found.refuse(("cors.disable", cors.disable))
        found.set(
            "cors",
            Cors(
                tuple(cors.allow_origins or ()),
                tuple(cors.allow_methods or ()),
                tuple(cors.allow_headers or ()),
                tuple(cors.expose_headers or ()),
                bool(cors.allow_credentials),
                cors.max_age or 0,
            ),
        )
    if headers is not None:
        found.set("request_headers", _headers(headers.request))
        found.set("response_headers", _headers(headers.response))


def _headers(change: tp.HeaderChange | None) -> HeaderModifier | None:
    if change is None:
        return None
    return HeaderModifier(
        add=tuple((h.name, h.value) for h in change.add or ()),
        set=tuple((h.name, h.value) for h in change.set or ()),
        remove=tuple(change.remove or ()),
    )


def _transformation(found: _Found, wanted: tp.Transformation) -> Transformation:
    def side(part: tp.Transform | None) -> Transform | None:
        if part is None:
            return None
        body = part.body.value if part.body else None
        return Transform(
            add=tuple((h.name, h.value) for h in part.add or ()),
            set=tuple((h.name, h.value) for h in part.set or ()),
            remove=tuple(part.remove or ()),
            body=body or "",
        )

    if any(part and part.body and part.body.parse_as == "AsJson" for part in (wanted.request, wanted.response)):
        found.notes.append("transformation.body.parseAs has no effect: expressions read bodies with json()")
    return Transformation(side(wanted.request), side(wanted.response))


def _cel_transformation(found: _Found, wanted: agw.Transformation) -> Transformation:
    found.refuse(("transformation.conditional", wanted.conditional))

    def side(part: agw.Transform | None) -> Transform | None:
        if part is None:
            return None
        found.refuse(("transformation.metadata", part.metadata))
        return Transform(
            add=tuple((h.name, h.value) for h in part.add or ()),
            set=tuple((h.name, h.value) for h in part.set or ()),
            remove=tuple(part.remove or ()),
            body=part.body or "",
        )

    return Transformation(side(wanted.request), side(wanted.response))


def _csrf_of_kgateway(found: _Found, wanted: tp.Csrf) -> Csrf | None:
    if wanted.percentage_enabled is not None and wanted.percentage_enabled < 100:
        found.notes.append("csrf.percentageEnabled has no effect: all requests are checked")
    origins: list[str] = []
    for each in wanted.additional_origins or ():
        if list(each) == ["exact"]:
            origins.append(str(each["exact"]))
        else:
            found.problems.append("csrf.additionalOrigins: only exact origins are understood")
    return Csrf(tuple(origins))


def _retry_of_kgateway(found: _Found, wanted: tp.Retry) -> Retry:
    """Raises ConfigError."""
    codes = list(wanted.status_codes or ())
    for word in wanted.retry_on or ():
        if word not in _RETRY_ON:
            found.notes.append(f"retry.retryOn {word} has no effect")
        codes += _RETRY_ON.get(word, ())
    return Retry(
        wanted.attempts,
        tuple(dict.fromkeys(codes)),
        duration(wanted.backoff_base_interval, 0.025),
        duration(wanted.per_try_timeout) if wanted.per_try_timeout else 0.0,
    )


def _limit(wanted: agw.LocalRateLimit) -> RateLimit:
    """Raises ConfigError."""
    if (wanted.requests is None) == (wanted.tokens is None):
        raise ConfigError("rateLimit.local: exactly one of requests and tokens must be set")
    amount = wanted.requests or wanted.tokens or 0
    kind: Any = "requests" if wanted.requests is not None else "tokens"
    return RateLimit(amount + (wanted.burst or 0), amount, _UNITS[wanted.unit], kind)


def _ext_auth(found: _Found, wanted: agw.ExtAuth, namespace: str, credentials: Credentials) -> Any:
    """Raises ConfigError."""
    http = wanted.http
    found.refuse(
        ("extAuth.grpc", wanted.grpc),
        ("extAuth.cache", wanted.cache),
        ("extAuth.conditional", wanted.conditional),
    )
    return (
        credentials.ext_auth(wanted, http or agw.ExtAuthHttp.model_construct(), namespace) if not wanted.grpc else None
    )


def _buffer(found: _Found, wanted: agw.Buffer) -> None:
    """Raises ConfigError."""
    for side, name in ((wanted.request, "max_body"), (wanted.response, "max_response")):
        if side and side.get("maxBytes") is not None:
            found.set(name, int(parse_quantity(str(side["maxBytes"]))))


def _direct(found: _Found, wanted: agw.DirectResponse) -> DirectResponse | None:
    found.refuse(
        ("directResponse.bodyExpression", wanted.body_expression),
        ("directResponse.headers", wanted.headers),
        ("directResponse.conditional", wanted.conditional),
    )
    return DirectResponse(wanted.status, wanted.body or "") if wanted.status is not None else None
