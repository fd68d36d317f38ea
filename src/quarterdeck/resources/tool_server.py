"""ToolServer (kagent.dev v1alpha1): kagent's first kind of MCP server; stored, not run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Json, Kind, Model, Status, Version, rules


class EnvValueSource(Model):
    type: Annotated[str, Field(json_schema_extra={"enum": ["ConfigMap", "Secret"]})] = Field(description="Kind.")
    key: str = Field(description="Key in the object.")
    value_ref: str | None = Field(None, description="Name of the object.")


class EnvValue(Model):
    name: str = Field(description="Name of the variable or header.")
    value: str | None = Field(None, description="The value in place.")
    value_from: EnvValueSource | None = Field(None, description="Where the value is read from.")


class StdioConfig(Model):
    command: str = Field(description="Command that starts the server.")
    args: list[str] | None = Field(None, description="Its arguments.")
    env: dict[str, str] | None = Field(None, description="Its environment.")
    env_from: list[EnvValue] | None = Field(None, description="Variables read from objects.")
    read_timeout_seconds: int = Field(10, description="Seconds to wait for an answer.")


class SseConfig(Model):
    url: str = Field(description="Address of the server.")
    headers: dict[str, Json] | None = Field(None, description="Headers of each request.")
    headers_from: list[EnvValue] | None = Field(None, description="Headers read from objects.")
    timeout: str | None = Field(None, description="Longest call, as a duration.")
    sse_read_timeout: str | None = Field(None, description="Longest silence of a stream, as a duration.")


class StreamableHttpConfig(SseConfig):
    terminate_on_close: bool | None = Field(None, description="End the session when done.")


class ToolServerConfig(Model):
    """Exactly one transport."""

    model_config = rules(
        (
            "[has(self.stdio), has(self.sse), has(self.streamableHttp)].filter(x, x).size() == 1",
            "exactly one of stdio, sse or streamableHttp must be specified",
        )
    )
    type: str | None = Field(None, description="stdio, sse or streamableHttp.")
    stdio: StdioConfig | None = Field(None, description="A server started as a process.")
    sse: SseConfig | None = Field(None, description="A server reached over SSE.")
    streamable_http: StreamableHttpConfig | None = Field(None, description="A server reached over Streamable HTTP.")


class ToolServerSpec(Model):
    description: str = Field(description="What the server offers.")
    config: ToolServerConfig = Field(description="Exactly one transport.")


class DiscoveredComponent(Model):
    name: str = Field(description="Name of the tool.")
    component: Json = Field(description="The tool as discovered.")


class ToolServerStatus(Status):
    discovered_tools: list[DiscoveredComponent] | None = Field(None, description="Tools of the server.")


class ToolServer(Model):
    """An MCP server in the first format. Stored only: use MCPServer or RemoteMCPServer."""

    spec: ToolServerSpec | None = Field(None, description="The server.")
    status: ToolServerStatus | None = Field(None, description="Observed state.")


_STORED_ONLY = "ToolServer is stored but not acted on by Quarterdeck; use MCPServer or RemoteMCPServer"
KIND = Kind(
    "ToolServer", "toolservers", (Version("v1alpha1", ToolServer, deprecated=_STORED_ONLY),), short_names=("ts",)
)
