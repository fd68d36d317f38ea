"""How a workload changes and rests: canaries and A/B tests of an Agent, Pods scaled to zero while nobody calls."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Model, rules

_DURATION = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"
Duration = Annotated[str, Field(max_length=32, pattern=_DURATION)]
"""A Go duration such as ``30s``, ``5m`` or ``1h30m``."""


class ValueMatch(Model):
    """What a header or claim must be."""

    model_config = rules(
        ("has(self.exact) != has(self.regex)", "exactly one of exact and regex must be specified"),
    )
    name: str = Field(min_length=1, max_length=256, description="Name of the header (any case) or claim (a.b: nested).")
    exact: str | None = Field(None, max_length=1024, description="The value, exactly.")
    regex: str | None = Field(
        None, min_length=1, max_length=1024, description="RE2 expression that the whole value must match."
    )


class RolloutMatch(Model):
    """Requests that meet all of these conditions."""

    model_config = rules(
        (
            "(has(self.headers) && size(self.headers) > 0) || (has(self.claims) && size(self.claims) > 0)",
            "match needs headers or claims",
        )
    )
    headers: list[ValueMatch] | None = Field(None, max_length=16, description="Headers of the request.")
    claims: list[ValueMatch] | None = Field(
        None, max_length=16, description="Claims of the caller's verified token; sub is always there."
    )


class RolloutStep(Model):
    """One share of the traffic, held for a time."""

    weight: int = Field(
        ge=0, le=100, json_schema_extra={"format": "int32"}, description="Percent of new conversations for the canary."
    )
    pause: Annotated[str, Field(max_length=32, pattern=rf"^$|{_DURATION}")] | None = Field(
        None, description="How long, as a duration; empty: until `qd rollout promote agent/NAME`."
    )


class Analysis(Model):
    """When a canary is given up."""

    max_error_rate: float = Field(
        0.05, ge=0, le=1, description="Share of the canary's requests in one step that may fail, 0 to 1."
    )
    min_requests: int = Field(
        20,
        ge=1,
        le=1_000_000,
        json_schema_extra={"format": "int32"},
        description="Requests of a step below which its error rate says nothing.",
    )
    require_traffic: bool = Field(
        False, description="Do not go on to the next step before minRequests have been answered in this one."
    )
    progress_deadline: Duration = Field(
        "10m", description="How long the canary's Pods may take to become ready before it is given up."
    )


class Rollout(Model):
    """How a new spec takes the place of the old one."""

    model_config = rules(
        (
            "self.strategy == 'Canary' || !(has(self.steps) || has(self.match) || has(self.analysis))",
            "steps, match and analysis need strategy Canary",
        ),
        (
            "self.strategy != 'Canary' || (has(self.steps) && size(self.steps) > 0) || "
            "(has(self.match) && size(self.match) > 0)",
            "strategy Canary needs steps or match",
        ),
        ("!has(self.steps) || self.steps.map(s, s.weight).isSorted()", "the weights of steps must not decrease"),
    )
    strategy: Annotated[str, Field(json_schema_extra={"enum": ["RollingUpdate", "Canary"]})] = Field(
        "RollingUpdate",
        description="RollingUpdate: Pods are replaced one by one. Canary: the new spec runs beside the old one, as "
        "Deployment and Service NAME-canary, until it has passed all steps.",
    )
    steps: list[RolloutStep] | None = Field(
        None, max_length=20, description="What share of the traffic the canary gets, one after the other."
    )
    match: list[RolloutMatch] | None = Field(
        None, max_length=16, description="Requests the canary gets whatever its weight is: any of these (A/B test)."
    )
    analysis: Analysis | None = Field(None, description="When the canary is given up by itself.")


class RolloutStatus(Model):
    """A canary, or how the last one ended."""

    phase: Annotated[
        str,
        Field(json_schema_extra={"enum": ["Stable", "Progressing", "Paused", "Promoting", "Aborted"]}),
    ] = Field(description="Stable, Progressing, Paused, Promoting or Aborted.")
    step: int | None = Field(None, json_schema_extra={"format": "int32"}, description="Index of the present step.")
    steps: int | None = Field(None, json_schema_extra={"format": "int32"}, description="Number of steps.")
    weight: int | None = Field(
        None, json_schema_extra={"format": "int32"}, description="Percent of new conversations the canary gets."
    )
    stable_revision: str | None = Field(None, description="ControllerRevision of the spec that is served.")
    canary_revision: str | None = Field(
        None, description="ControllerRevision of the spec that is on trial, or was given up."
    )
    started_at: str | None = Field(
        None, json_schema_extra={"format": "date-time"}, description="When the canary began."
    )
    step_started_at: str | None = Field(
        None, json_schema_extra={"format": "date-time"}, description="When the present step began."
    )
    waiting_since: str | None = Field(
        None, json_schema_extra={"format": "date-time"}, description="Since when the canary has no Pod that is ready."
    )
    ended_at: str | None = Field(
        None, json_schema_extra={"format": "date-time"}, description="When the last canary was over."
    )
    requests: int | None = Field(
        None, json_schema_extra={"format": "int64"}, description="Requests the canary answered in the present step."
    )
    errors: int | None = Field(None, json_schema_extra={"format": "int64"}, description="How many of them failed.")
    message: str | None = Field(None, description="What happens and what it waits for.")


class ScaleToZero(Model):
    """Rest while nobody calls. A call that comes then is held by the gateway until a Pod is up again."""

    after: Duration = Field(description="How long nobody must have called before the Pods are ended.")
    hold: Duration = Field("60s", description="How long the gateway holds a call while a Pod starts.")
