"""TrafficPolicy (gateway.kgateway.dev/v1alpha1): kgateway 2.1 and 2.2."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from quarterdeck.resources.base import AGE, Json, Kind, Model, Version

from . import CATEGORIES, KGATEWAY
from .common import POLICY_ACCEPTED, Authorization, IntOrString, PolicyStatus, TargetRef, TargetSelector, choice


class TokenBucket(Model):
    max_tokens: int = Field(ge=1, description="Requests that may come at once.")
    tokens_per_fill: int = Field(1, ge=1, description="Requests added at each fill.")
    fill_interval: str = Field(description="Time between fills, as a duration.")


class LocalRateLimit(Model):
    token_bucket: TokenBucket | None = Field(None, description="How many requests; none: no limit.")


class RateLimit(Model):
    local: LocalRateLimit | None = Field(None, description="Counted by the gateway itself.")
    global_: Json | None = Field(None, alias="global", description="A rate limit service; not served.")


class HeaderValue(Model):
    name: str = Field(description="Name of the header.")
    value: str = Field(description="Its value: CEL in a transformation, plain text in a modifier.")


class TransformBody(Model):
    parse_as: Annotated[str, choice("AsString", "AsJson")] = Field("AsString", description="How a body is read.")
    value: str | None = Field(None, description="CEL that gives the body.")


class Transform(Model):
    set: list[HeaderValue] | None = Field(None, description="Headers that are set.")
    add: list[HeaderValue] | None = Field(None, description="Headers that are added.")
    remove: list[str] | None = Field(None, description="Headers that are taken out.")
    body: TransformBody | None = Field(None, description="The body.")


class Transformation(Model):
    request: Transform | None = Field(None, description="Of requests.")
    response: Transform | None = Field(None, description="Of answers.")


class HeaderChange(Model):
    set: list[HeaderValue] | None = Field(None, description="Headers that are set.")
    add: list[HeaderValue] | None = Field(None, description="Headers that are added.")
    remove: list[str] | None = Field(None, description="Headers that are taken out.")


class HeaderModifiers(Model):
    request: HeaderChange | None = Field(None, description="Of requests.")
    response: HeaderChange | None = Field(None, description="Of answers.")


class Cors(Model):
    allow_origins: list[str] | None = Field(None, description="Origins; * stands for any part.")
    allow_methods: list[str] | None = Field(None, description="Methods.")
    allow_headers: list[str] | None = Field(None, description="Request headers.")
    expose_headers: list[str] | None = Field(None, description="Answer headers that scripts may read.")
    allow_credentials: bool | None = Field(None, description="Whether cookies and credentials may be sent.")
    max_age: int | None = Field(None, description="Seconds a preflight answer is kept.")
    disable: Json | None = Field(None, description="Switches CORS of an outer policy off; not served.")


class Csrf(Model):
    additional_origins: list[Json] | None = Field(None, description="Origins besides the own one: exact or prefix.")
    percentage_enabled: int | None = Field(None, description="Share of requests that is checked.")
    percentage_shadowed: int | None = Field(None, description="Share of requests that is only counted.")


class Buffer(Model):
    max_request_size: IntOrString | None = Field(None, description="Largest request body.")
    disable: Json | None = Field(None, description="Switches the limit of an outer policy off; not served.")


class Timeouts(Model):
    request: str | None = Field(None, description="For the whole request, as a duration.")
    stream_idle: str | None = Field(None, description="Longest silence of a stream, as a duration; not served.")


class Retry(Model):
    attempts: int = Field(1, ge=0, description="Tries after the first.")
    retry_on: list[str] | None = Field(None, description="What is tried again: 5xx, gateway-error, connect-failure …")
    status_codes: list[int] | None = Field(None, description="Status codes that are tried again.")
    per_try_timeout: str | None = Field(None, description="For one try, as a duration.")
    backoff_base_interval: str = Field("25ms", description="Pause before the first repetition, as a duration.")


class TrafficPolicySpec(Model):
    """Rules for what the targets serve."""

    target_refs: list[TargetRef] | None = Field(None, max_length=16, description="What it is attached to.")
    target_selectors: list[TargetSelector] | None = Field(None, description="What it is attached to, by labels.")
    rbac: Authorization | None = Field(None, description="Who may call which tools.")
    rate_limit: RateLimit | None = Field(None, description="How many requests.")
    transformation: Transformation | None = Field(None, description="Headers and bodies computed by CEL.")
    header_modifiers: HeaderModifiers | None = Field(None, description="Headers changed.")
    cors: Cors | None = Field(None, description="Which web pages may call.")
    csrf: Csrf | None = Field(None, description="Which web pages may change something.")
    ext_auth: Json | None = Field(None, description="A service that is asked first; refused: needs a GatewayExtension.")
    ext_proc: Json | None = Field(None, description="A service that sees requests; refused.")
    ai: Json | None = Field(None, description="Rules for models; not served yet.")
    buffer: Buffer | None = Field(None, description="Largest request body.")
    auto_host_rewrite: bool | None = Field(None, description="Whether the Host header becomes the backend's.")
    timeouts: Timeouts | None = Field(None, description="Time limits.")
    retry: Retry | None = Field(None, description="Repetitions.")


class TrafficPolicy(Model):
    """Rules that Gateways, routes and Backends are given."""

    spec: TrafficPolicySpec | None = Field(None, description="The rules and their targets.")
    status: PolicyStatus | None = Field(None, description="Observed state.")


KIND = Kind(
    "TrafficPolicy",
    "trafficpolicies",
    (Version("v1alpha1", TrafficPolicy, (POLICY_ACCEPTED, AGE)),),
    group=KGATEWAY,
    categories=CATEGORIES,
)
