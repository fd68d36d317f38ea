"""Approval (quarterdeck.dev v1alpha1): a tool call that waits for people, or waited.

The object mirrors what the control plane keeps in its database, for ``kubectl get``. Nothing is decided by it: what
somebody writes into it has no effect and is put right again.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import AGE, Column, Kind, Model, Status, Version

PHASES = ("Pending", "Approved", "Denied", "Expired", "Consumed", "Void")


class ApprovalSpec(Model):
    """The one call that is asked for."""

    server: str = Field("", description="KIND/NAMESPACE/NAME of the MCP server.")
    tool: str = Field("", description="Name of the tool, as its server has it.")
    arguments_hash: str = Field("", description="sha256: and the hash of the canonical arguments (RFC 8785).")
    agent: str | None = Field(None, description="NAMESPACE/NAME of the agent that wants to call.")
    requester: str | None = Field(None, description="The user for whom it is called.")
    run: str | None = Field(None, description="The run the call belongs to.")
    step: int | None = Field(None, json_schema_extra={"format": "int64"}, description="The step of that run.")
    policies: list[str] | None = Field(None, description="What demands the approval.")
    expires_at: str | None = Field(None, description="Until when it can be approved and used (RFC 3339).")


class ApprovalDecision(Model):
    """What one person said."""

    by: str = Field(description="Who.")
    verdict: Annotated[str, Field(json_schema_extra={"enum": ["Approve", "Deny"]})] = Field(description="Which way.")
    reason: str | None = Field(None, description="Why.")
    at: str = Field(json_schema_extra={"format": "date-time"}, description="When.")


class ApprovalStatus(Status):
    phase: Annotated[str, Field(json_schema_extra={"enum": list(PHASES)})] | None = Field(
        None,
        description="Pending; Approved: may be used once; Denied; Expired; Consumed: the call was sent; Void: the "
        "policy or its approvers have changed.",
    )
    message: str | None = Field(None, description="What it waits for, or what became of it.")
    decisions: list[ApprovalDecision] | None = Field(None, description="Who said what.")


class Approval(Model):
    """A tool call that waits for people. Decide with qd approvals approve or deny; editing this object decides
    nothing."""

    spec: ApprovalSpec | None = Field(None, description="The call.")
    status: ApprovalStatus | None = Field(None, description="What was said of it.")


KIND = Kind(
    "Approval",
    "approvals",
    (
        Version(
            "v1alpha1",
            Approval,
            (
                Column("Tool", ".spec.tool"),
                Column("Server", ".spec.server", priority=1),
                Column("Agent", ".spec.agent"),
                Column("Requester", ".spec.requester"),
                Column("Phase", ".status.phase"),
                Column("Expires", ".spec.expiresAt"),
                AGE,
            ),
        ),
    ),
    group="quarterdeck.dev",
    categories=("quarterdeck",),
)
