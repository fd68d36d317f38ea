"""Run (quarterdeck.dev v1alpha1), and what an Agent says about its runs.

A Run object tells of a run that somebody or something started in the background. It mirrors what the control plane
keeps in its database, for ``kubectl get``; the journal itself, and the turns of chats, are behind ``/v1/runs``.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from .base import AGE, Column, Kind, Model, Status, Version
from .rollout import Duration

_NUMBER = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
Number = Annotated[str, Field(max_length=20, pattern=_NUMBER)]
"""A number of at least 0 as text: ``0.5``."""
PHASES = ("Pending", "Running", "Waiting", "Completed", "Failed", "Canceled")
_LONG: dict[str, Any] = {"format": "int64"}


class TokenPrice(Model):
    input: Number = Field("0", description="Of a million tokens that the model reads.")
    output: Number = Field("0", description="Of a million tokens that it writes.")


class RunBudget(Model):
    """What one run may use; it then ends as failed, budget_exceeded, and says what was used."""

    steps: int | None = Field(None, ge=1, description="Model calls and tool calls together.")
    tool_calls: int | None = Field(None, ge=0, description="Tool calls.")
    tokens: int | None = Field(None, ge=1, json_schema_extra=_LONG, description="Read and written by the models.")
    cost: Number | None = Field(None, description="In the currency of price, a number as text.")
    wall_time: Duration | None = Field(None, description="From its beginning, waiting included, as a duration.")
    price: TokenPrice | None = Field(None, description="What tokens cost; without it cost is not limited.")


class RunSettings(Model):
    """How the runs of an agent are made."""

    budget: RunBudget | None = Field(None, description="What one run may use.")
    on_unknown_outcome: Annotated[str, Field(json_schema_extra={"enum": ["Ask", "Repeat", "Skip", "Fail"]})] = Field(
        "Ask",
        description="What happens when a process died during a tool call, and nobody knows whether it was carried "
        "out: ask the user, repeat it, go on without it, or fail. Tools with readOnlyHint or idempotentHint are "
        "always repeated.",
    )
    repeat_tools: list[str] | None = Field(
        None, max_length=100, description="Tools that may be repeated though they do not say so themselves."
    )


class RunSpec(Model):
    """What was asked."""

    agent: str = Field("", description="Name of the agent.")
    user: str | None = Field(None, description="For whom it works.")
    source: str | None = Field(None, description="What started it: background, retry, fork, or a trigger.")
    message: str | None = Field(None, description="The beginning of the request.")


class RunStatus(Status):
    phase: Annotated[str, Field(json_schema_extra={"enum": list(PHASES)})] | None = Field(
        None, description="Pending: no replica works on it now; Waiting: for somebody's answer."
    )
    run: str | None = Field(None, description="Its id; see: qd run show.")
    reason: str | None = Field(None, description="Why it waits or failed, in one word.")
    steps: int | None = Field(None, description="Steps so far.")
    tool_calls: int | None = Field(None, description="Tool calls so far.")
    tokens: int | None = Field(None, json_schema_extra=_LONG, description="Tokens so far.")
    started_at: str | None = Field(None, json_schema_extra={"format": "date-time"}, description="When it began.")
    ended_at: str | None = Field(None, json_schema_extra={"format": "date-time"}, description="When it ended.")


class Run(Model):
    """A run of an agent that was started in the background. Editing this object changes nothing: use qd run."""

    spec: RunSpec | None = Field(None, description="What was asked.")
    status: RunStatus | None = Field(None, description="What became of it.")


KIND = Kind(
    "Run",
    "runs",
    (
        Version(
            "v1alpha1",
            Run,
            (
                Column("Agent", ".spec.agent"),
                Column("Source", ".spec.source"),
                Column("Phase", ".status.phase"),
                Column("Reason", ".status.reason"),
                Column("Steps", ".status.steps", "integer"),
                Column("User", ".spec.user", priority=1),
                AGE,
            ),
        ),
    ),
    group="quarterdeck.dev",
    categories=("quarterdeck",),
)
