"""Backend (gateway.kgateway.dev/v1alpha1): kgateway 2.0 and 2.1."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from quarterdeck.resources.base import AGE, Column, Json, Kind, Model, Version, condition_column

from . import CATEGORIES, KGATEWAY
from .common import BackendStatus, McpTarget, choice

_TYPES = ("AI", "AWS", "Static", "DynamicForwardProxy", "MCP", "ai", "aws", "static", "dynamicForwardProxy", "mcp")
"""kgateway 2.0 wrote them in lower case."""


class Host(Model):
    host: str = Field(min_length=1, description="Host name or IP address.")
    port: int = Field(ge=1, le=65535, description="Port.")


class Static(Model):
    """Hosts that all serve the same."""

    hosts: list[Host] = Field(min_length=1, description="Where requests go.")
    app_protocol: str | None = Field(None, description="Protocol of the hosts; HTTP/1.1 is spoken.")


class Mcp(Model):
    targets: list[McpTarget] = Field(min_length=1, max_length=32, description="MCP servers behind one endpoint.")


class BackendSpec(Model):
    """Where requests can be routed to besides Services."""

    type: (
        Annotated[
            str,
            choice(
                "AI", "AWS", "Static", "DynamicForwardProxy", "MCP", "ai", "aws", "static", "dynamicForwardProxy", "mcp"
            ),
        ]
        | None
    ) = Field(None, description="Which of the blocks is set; told by the block when left out.")
    ai: Json | None = Field(None, description="Model providers; not served yet.")
    aws: Json | None = Field(None, description="AWS Lambda; not served.")
    static: Static | None = Field(None, description="Hosts by name or address.")
    dynamic_forward_proxy: Json | None = Field(None, description="Hosts named by the request; not served.")
    mcp: Mcp | None = Field(None, description="MCP servers.")


class Backend(Model):
    """A destination of HTTPRoutes that is no Service."""

    spec: BackendSpec | None = Field(None, description="Where requests go.")
    status: BackendStatus | None = Field(None, description="Observed state.")


KIND = Kind(
    "Backend",
    "backends",
    (Version("v1alpha1", Backend, (Column("Type", ".spec.type"), condition_column("Accepted"), AGE)),),
    short_names=("be",),
    group=KGATEWAY,
    categories=CATEGORIES,
)
