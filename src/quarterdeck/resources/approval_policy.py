"""ApprovalPolicy (quarterdeck.dev v1alpha1): which tool calls wait for people, and for whom."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import AGE, Column, Kind, Model, Status, Version, condition_column, rules
from .rollout import Duration

Text = Annotated[str, Field(min_length=1, max_length=253)]
EVERYWHERE = "quarterdeck-system"
"""Policies of this namespace hold for the servers of all namespaces."""


class GovernedServer(Model):
    """An MCP server whose calls are looked at."""

    name: Text = Field(description="Name of the server.")
    kind: (
        Annotated[str, Field(json_schema_extra={"enum": ["MCPServer", "RemoteMCPServer", "Service", "Target"]})] | None
    ) = Field(None, description="Kind of the server; any when absent.")
    namespace: Text | None = Field(
        None, description="Namespace of the server; only policies of quarterdeck-system may name another than theirs."
    )


class Approvers(Model):
    """Who may approve. Nobody named: all who may approve by Kubernetes RBAC (verb approve on approvals)."""

    users: list[Text] | None = Field(None, max_length=100, description="Users by name, as the API server knows them.")
    groups: list[Text] | None = Field(None, max_length=100, description="Groups, as the API server knows them.")


class SecretKey(Model):
    name: Text = Field(description="Name of a Secret in the policy's namespace.")
    key: Text = Field(description="The key in it.")


class Webhook(Model):
    """Told of every request for approval, and of what became of it."""

    url: str = Field(
        min_length=1, max_length=2048, pattern=r"^https?://", description="Where a Slack-compatible message is posted."
    )
    secret_ref: SecretKey | None = Field(
        None, description="Key of the HMAC-SHA256 in header X-Quarterdeck-Signature (sha256=HEX over TIMESTAMP.BODY)."
    )


class Notify(Model):
    webhook: Webhook = Field(description="A webhook.")


class ApprovalPolicySpec(Model):
    """Calls of these tools are executed only after people have approved that very call."""

    model_config = rules(
        (
            "!has(self.approvers) || !has(self.approvers.users) || (has(self.approvers.groups) && "
            "self.approvers.groups.size() > 0) || self.approvers.users.size() >= self.required",
            "required is more than there are approvers",
        ),
    )
    description: str | None = Field(None, max_length=1024, description="What it is for; approvers are shown it.")
    servers: list[GovernedServer] | None = Field(
        None, max_length=100, description="The MCP servers; all of the policy's namespace when empty."
    )
    tools: list[Text] | None = Field(
        None,
        max_length=200,
        description="Names of tools as their server has them, * at the end for any rest; all when empty.",
    )
    when: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="CEL over arguments, tool, server, agent and user; calls for which it is false need no approval. "
        "If it cannot be evaluated, the call needs one.",
    )
    approvers: Approvers | None = Field(None, description="Who may approve.")
    required: int = Field(
        1, ge=1, le=10, json_schema_extra={"format": "int32"}, description="How many different people must approve."
    )
    requester_may_approve: bool = Field(
        False, description="Whether the user for whom the call is made counts as an approver, in the conversation too."
    )
    expires_after: Duration = Field("1h", description="How long a request for approval is open, and an approval good.")
    notify: Notify | None = Field(None, description="Who is told.")


class ApprovalPolicy(Model):
    """Which tool calls wait for people, and for whom. The gateway holds everybody to it, agents and people alike."""

    spec: ApprovalPolicySpec = Field(description="What needs approval, and whose.")
    status: Status | None = Field(None, description="Observed state.")


KIND = Kind(
    "ApprovalPolicy",
    "approvalpolicies",
    (
        Version(
            "v1alpha1",
            ApprovalPolicy,
            (
                Column("Required", ".spec.required", "integer"),
                Column("Tools", ".spec.tools", priority=1),
                condition_column("Ready"),
                AGE,
            ),
        ),
    ),
    group="quarterdeck.dev",
    categories=("quarterdeck",),
)
