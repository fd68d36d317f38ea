"""What backends and policies of both groups share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from quarterdeck.resources.base import Column, Conditions, Json, LabelSelector, Model, rules


def choice(*values: str) -> Any:
    """Field annotation: one of these words."""
    return Field(json_schema_extra={"enum": list(values)})


POLICY_ACCEPTED = Column("Accepted", ".status.ancestors[*].conditions[?(@.type=='Accepted')].status")
IntOrString = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]
Action = Annotated[str, choice("Allow", "Deny", "Require")]


class TargetRef(Model):
    """What a policy is attached to, in its own namespace."""

    group: str = Field("gateway.networking.k8s.io", description="API group of the target.")
    kind: str = Field(description="Gateway, HTTPRoute, Backend, AgentgatewayBackend, Service or an MCP server's kind.")
    name: str = Field(description="Name of the target.")
    section_name: str | None = Field(
        None, description="One part of it: a Gateway's listener, a route's rule, a backend's target, a Service's port."
    )
    port: int | None = Field(None, description="A port of the target, where the kind has ports.")


class TargetSelector(Model):
    """Targets of a policy by their labels."""

    group: str = Field("gateway.networking.k8s.io", description="API group of the targets.")
    kind: str = Field(description="Kind of the targets.")
    match_labels: dict[str, str] = Field(description="Labels that the targets carry.")
    section_name: str | None = Field(None, description="One part of each, as in targetRefs.")


class MatchExpressions(Model):
    match_expressions: list[str] = Field(
        min_length=1, description="CEL expressions over request, jwt, source, mcp.tool.name and others."
    )


class Authorization(Model):
    """Who may do what."""

    action: Action = Field("Allow", description="What holds when an expression is true.")
    policy: MatchExpressions = Field(description="The expressions.")


class SecretRef(Model):
    name: str = Field(description="Name of the Secret, in the same namespace.")


class McpStaticTarget(Model):
    """A server at a known place."""

    model_config = rules(
        ("has(self.host) != has(self.backendRef)", "exactly one of host or backendRef must be set"),
    )
    host: str | None = Field(None, min_length=1, description="Host name or IP address, also of a Service.")
    backend_ref: Json | None = Field(None, description="A Service instead of a host: its name.")
    port: int = Field(ge=1, le=65535, description="Port.")
    path: str | None = Field(None, description="Path of the endpoint; /mcp unless set, /sse with protocol SSE.")
    protocol: Annotated[str, choice("StreamableHTTP", "SSE")] | None = Field(
        None, description="Transport the server speaks; StreamableHTTP unless set."
    )
    policies: Json | None = Field(None, description="Policies of this target: auth, tls and mcp.authorization.")


class McpSelector(Model):
    """Services by label whose ports say that they speak MCP (appProtocol)."""

    service: LabelSelector | None = Field(None, description="Labels of the Services (kgateway).")
    services: LabelSelector | None = Field(None, description="Labels of the Services (agentgateway).")
    namespace: LabelSelector | None = Field(None, description="Labels of their namespaces (kgateway).")
    namespaces: LabelSelector | None = Field(
        None, description="Labels of their namespaces (agentgateway); the backend's own namespace unless set."
    )


class McpTarget(Model):
    """One MCP server, or those that a selector finds."""

    model_config = rules(("has(self.static) != has(self.selector)", "exactly one of static or selector must be set"))
    name: str = Field(min_length=1, max_length=253, description="Prefix of its tools when there are several targets.")
    static: McpStaticTarget | None = Field(None, description="A server at a known place.")
    selector: McpSelector | None = Field(None, description="Services by label.")


class PolicyAncestor(Model):
    """What the policy says of one thing it is attached to."""

    ancestor_ref: Json = Field(description="The target.")
    controller_name: str = Field(description="Who wrote the entry.")
    conditions: Conditions | None = Field(None, description="Accepted and Attached.")


class PolicyStatus(Model):
    """Observed state, in the form that Gateway API gives policies (GEP-713)."""

    ancestors: list[PolicyAncestor] | None = Field(None, max_length=16, description="By target.")


class BackendStatus(Model):
    """Observed state."""

    conditions: Conditions | None = Field(None, description="Accepted: whether the backend can be served.")
