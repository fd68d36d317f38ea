"""AgentgatewayBackend (agentgateway.dev/v1alpha1)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from quarterdeck.resources.base import AGE, Json, Kind, Model, Version, condition_column, rules

from . import AGENTGATEWAY, CATEGORIES
from .agentgateway_policy import BackendPolicies
from .common import BackendStatus, McpTarget, choice


class Mcp(Model):
    """MCP servers behind one endpoint."""

    targets: list[McpTarget] = Field(min_length=1, max_length=32, description="The servers.")
    session_routing: Annotated[str, choice("Stateful", "Stateless")] = Field(
        "Stateful", description="Whether sessions are kept at the gateway."
    )
    prefix_mode: Annotated[str, choice("Always", "Conditional", "Never")] = Field(
        "Conditional", description="When tools are named TARGET_TOOL; Conditional: with more than one target."
    )
    failure_mode: Annotated[str, choice("FailClosed", "FailOpen")] = Field(
        "FailClosed", description="Whether a target that fails fails the whole list, or is left out of it."
    )


class Static(Model):
    model_config = rules(
        ("has(self.unixPath) || (has(self.host) && has(self.port))", "host and port, or unixPath, must be set"),
    )
    host: str | None = Field(None, min_length=1, description="Host name or IP address.")
    port: int | None = Field(None, ge=1, le=65535, description="Port.")
    unix_path: str | None = Field(None, description="Unix socket; not served.")


class A2a(Model):
    host: str = Field(min_length=1, description="Host name or IP address.")
    port: int = Field(ge=1, le=65535, description="Port.")


class AgentgatewayBackendSpec(Model):
    """Exactly one kind of destination."""

    model_config = rules(
        (
            "[has(self.ai), has(self.mcp), has(self.static), has(self.a2a), has(self.aws), "
            "has(self.dynamicForwardProxy)].filter(x, x).size() == 1",
            "exactly one of ai, mcp, static, a2a, aws or dynamicForwardProxy must be set",
        ),
    )
    ai: Json | None = Field(None, description="Model providers; not served yet.")
    mcp: Mcp | None = Field(None, description="MCP servers.")
    static: Static | None = Field(None, description="A host.")
    a2a: A2a | None = Field(None, alias="a2a", description="An A2A agent; not served yet.")
    aws: Json | None = Field(None, description="AWS services; not served.")
    dynamic_forward_proxy: Json | None = Field(None, description="Hosts named by the request; not served.")
    policies: BackendPolicies | None = Field(None, description="Policies of this backend.")


class AgentgatewayBackend(Model):
    """A destination of HTTPRoutes that is no Service."""

    spec: AgentgatewayBackendSpec | None = Field(None, description="Where requests go.")
    status: BackendStatus | None = Field(None, description="Observed state.")


KIND = Kind(
    "AgentgatewayBackend",
    "agentgatewaybackends",
    (Version("v1alpha1", AgentgatewayBackend, (condition_column("Accepted"), AGE)),),
    short_names=("agbe",),
    group=AGENTGATEWAY,
    categories=CATEGORIES,
)
