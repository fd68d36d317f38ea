"""SandboxAgent and AgentHarness (kagent.dev v1alpha2): accepted and stored; no controller acts on them yet."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .agent import AgentSpec, AgentStatus
from .base import AGE, Column, Env, Json, Kind, Model, Status, Version, condition_column, rules


class SandboxAgentSpec(AgentSpec):
    """An Agent's spec; kagent's substrate settings are kept and not used."""

    model_config = rules()
    platform: Annotated[str, Field(json_schema_extra={"enum": ["agent-sandbox", "substrate"]})] | None = Field(
        None, description="kagent 0.9: where the sandbox runs; kept, not used."
    )
    substrate: Json | None = Field(None, description="kagent 0.10: worker pool and snapshots; kept, not used.")


class SandboxAgent(Model):
    """An agent for a stricter sandbox. Stored only."""

    spec: SandboxAgentSpec | None = Field(None, description="What the agent is.")
    status: AgentStatus | None = Field(None, description="Observed state.")


class AgentHarnessSpec(Model):
    """A ready-made agent program."""

    backend: Annotated[str, Field(json_schema_extra={"enum": ["openclaw", "hermes", "nemoclaw"]})] = Field(
        description="Which program."
    )
    model_config_ref: str | None = Field(None, description="ModelConfig it uses.")
    description: str | None = Field(None, description="What it is for.")
    image: str | None = Field(None, description="Image to run.")
    env: Env | None = Field(None, description="Its environment.")
    runtime: str | None = Field(None, description="kagent 0.9: openshell or substrate.")
    network: Json | None = Field(None, description="kagent 0.9: allowed domains.")
    substrate: Json | None = Field(None, description="Worker pool, snapshots and gateway token.")
    channels: list[Json] | None = Field(None, max_length=1024, description="Chat channels it answers in.")


class AgentHarnessStatus(Status):
    backend_ref: Json | None = Field(None, description="What runs it.")
    connection: Json | None = Field(None, description="How to reach it.")


class AgentHarness(Model):
    """A ready-made agent program. Stored only."""

    spec: AgentHarnessSpec | None = Field(None, description="A ready-made agent program.")
    status: AgentHarnessStatus | None = Field(None, description="Observed state.")


SANDBOX_AGENT = Kind(
    "SandboxAgent",
    "sandboxagents",
    (
        Version(
            "v1alpha2",
            SandboxAgent,
            (condition_column("Ready"), condition_column("Accepted")),
            deprecated="SandboxAgent is stored but not acted on by Quarterdeck; use Agent",
        ),
    ),
)
AGENT_HARNESS = Kind(
    "AgentHarness",
    "agentharnesses",
    (
        Version(
            "v1alpha2",
            AgentHarness,
            (
                Column("Backend", ".spec.backend"),
                condition_column("Ready"),
                Column("ID", ".status.backendRef.id"),
                AGE,
            ),
            deprecated="AgentHarness is stored but not acted on by Quarterdeck; use Agent with type BYO",
        ),
    ),
    short_names=("ahr",),
)
