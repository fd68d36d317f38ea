"""VirtualServer (quarterdeck.dev v1alpha1): other servers' tools, chosen, renamed and narrowed, as one server."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import AGE, Column, Json, Kind, LabelSelector, Model, Status, Version, condition_column, rules
from .remote_mcp_server import DiscoveredTool

Text = Annotated[str, Field(min_length=1, max_length=253)]
Glob = Annotated[str, Field(min_length=1, max_length=512)]
Parameter = Annotated[str, Field(min_length=1, max_length=128)]
_KINDS = ("MCPServer", "RemoteMCPServer", "Service")


class Selection(Model):
    """Names by glob (``*``: any text, ``?``: one character)."""

    include: list[Glob] | None = Field(None, max_length=500, description="What is taken in; an empty list is nothing.")
    exclude: list[Glob] | None = Field(None, max_length=500, description="What is left out of that.")


class ServerRef(Model):
    """An MCP server."""

    api_group: Annotated[str, Field(json_schema_extra={"enum": ["", "kagent.dev", "core"]})] | None = Field(
        None, description="kagent.dev, or empty for a Service."
    )
    kind: Annotated[str, Field(json_schema_extra={"enum": list(_KINDS)})] = Field(
        "MCPServer", description="MCPServer, RemoteMCPServer, or a Service labelled kagent.dev/mcp-service."
    )
    name: Text = Field(description="Its name.")
    namespace: Text | None = Field(
        None, description="Its namespace; another than this one only for a RemoteMCPServer that allows it."
    )


class ServerChoice(Model):
    """One server, or those with some labels, and what of them is shown."""

    model_config = rules(
        ("has(self.ref) != has(self.selector)", "exactly one of ref and selector must be set"),
        ("!(has(self.name) && has(self.selector))", "servers found by selector are called by their own names"),
    )
    name: Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$")] | None = Field(
        None, description="Its prefix, and what tools[].server names; the server's own name when absent."
    )
    ref: ServerRef | None = Field(None, description="One server.")
    selector: LabelSelector | None = Field(None, description="MCP servers of this namespace by their labels.")
    tools: Selection | None = Field(
        None, description="Tools by the server's own names; all when absent. What tools[] names is taken in anyway."
    )
    prompts: Selection | None = Field(None, description="Prompts by the server's own names; none when absent.")
    resources: Selection | None = Field(None, description="Resources by URI or URI template; none when absent.")


class ToolChoice(Model):
    """How one tool is exposed. A tool may be named by several of these, under different names."""

    server: Text = Field(description="The server, as servers[] calls it.")
    tool: Annotated[str, Field(min_length=1, max_length=256)] = Field(description="The tool, as its server calls it.")
    name: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_./-]+$")] | None = Field(
        None, description="Its whole exposed name, without a prefix; unchanged when absent."
    )
    title: Annotated[str, Field(max_length=256)] | None = Field(None, description="Its title for people.")
    description: Annotated[str, Field(max_length=8192)] | None = Field(None, description="What models are told of it.")
    annotations: Json | None = Field(None, description="Annotations, e.g. readOnlyHint; over the server's own.")
    defaults: Json | None = Field(None, description="Arguments that are filled in where a caller leaves them out.")
    fixed: Json | None = Field(None, description="Arguments that are always these. Callers neither see nor send them.")
    hidden: list[Parameter] | None = Field(
        None, max_length=100, description="Parameters that callers neither see nor send; one of defaults is filled in."
    )


class VirtualServerSpec(Model):
    """The servers, and what of them is shown how."""

    description: str | None = Field(None, max_length=1024, description="What it is for.")
    title: Annotated[str, Field(max_length=256)] | None = Field(None, description="Its name for people.")
    instructions: Annotated[str, Field(max_length=32768)] | None = Field(
        None, description="What clients are told of its use. The servers' own instructions are not passed on."
    )
    servers: list[ServerChoice] = Field(min_length=1, max_length=64, description="The servers behind it.")
    tools: list[ToolChoice] | None = Field(
        None, max_length=500, description="Tools under other names, descriptions or with other arguments."
    )
    prefix_mode: Annotated[str, Field(json_schema_extra={"enum": ["Always", "Conditional", "Never"]})] = Field(
        "Conditional",
        description="When tools are named SERVER_TOOL; Conditional: where servers has several entries, or a selector.",
    )
    failure_mode: Annotated[str, Field(json_schema_extra={"enum": ["FailClosed", "FailOpen"]})] = Field(
        "FailClosed", description="Whether a server that fails fails the whole list, or is left out of it."
    )


class ExposedTool(DiscoveredTool):
    server: str | None = Field(None, description="The server it is of, as spec.servers calls it.")
    tool: str | None = Field(None, description="What that server calls it.")


class VirtualServerStatus(Status):
    discovered_tools: list[ExposedTool] | None = Field(None, description="The exposed tools.")
    tools: int | None = Field(None, json_schema_extra={"format": "int32"}, description="How many there are.")
    servers: int | None = Field(None, json_schema_extra={"format": "int32"}, description="Servers behind it.")
    path: str | None = Field(None, description="Where the gateway serves it.")


class VirtualServer(Model):
    """A choice of other MCP servers' tools as a server of its own, at /mcp/NAMESPACE/virtualserver.NAME."""

    spec: VirtualServerSpec | None = Field(None, description="The servers, and what of them is shown how.")
    status: VirtualServerStatus | None = Field(None, description="Observed state.")


KIND = Kind(
    "VirtualServer",
    "virtualservers",
    (
        Version(
            "v1alpha1",
            VirtualServer,
            (
                condition_column("Ready"),
                Column("Servers", ".status.servers", "integer"),
                Column("Tools", ".status.tools", "integer"),
                Column("Prefix", ".spec.prefixMode", priority=1),
                AGE,
            ),
        ),
    ),
    short_names=("vmcp",),
    group="quarterdeck.dev",
)
