# ruff: noqa: RUF012 - msgspec copies what stands as a default
"""``virtual:`` of an MCP backend, of ours: its targets' tools chosen, renamed and narrowed, as one server.

Fields and meaning are those of the VirtualServer resource; servers are called by their targets' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from quarterdeck.snapshot import virtual as v
from quarterdeck.snapshot.routing import McpTarget

from ..document import Path_
from ..fields import Model
from .context import Context

NAMESPACE = "file"


class ChoiceModel(Model):
    """Names by glob."""

    proof: ClassVar[str] = "test_virtual.py::test_every_field"
    include: list[str] | None = None
    exclude: list[str] = []


class ServerModel(Model):
    """One target. Prompts and resources are shown when they are named."""

    proof: ClassVar[str] = "test_virtual.py::test_every_field"
    name: str
    tools: ChoiceModel | None = None
    prompts: ChoiceModel | None = None
    resources: ChoiceModel | None = None


class ToolModel(Model):
    """One way in which a tool is exposed."""

    proof: ClassVar[str] = "test_virtual.py::test_every_field"
    server: str
    tool: str
    name: str | None = None
    title: str | None = None
    description: str | None = None
    annotations: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    hidden: list[str] = []


class Virtual(Model):
    """Without ``servers`` all targets, with all of their tools."""

    proof: ClassVar[str] = "test_virtual.py::test_every_field"
    title: str | None = None
    instructions: str | None = None
    servers: list[ServerModel] = []
    tools: list[ToolModel] = []


def virtual_server(
    context: Context,
    path: Path_,
    model: Virtual,
    name: str,
    targets: Sequence[McpTarget],
    prefix: Literal["conditional", "always", "never"],
    fail_open: bool,
) -> v.VirtualServer:
    """``path`` is that of ``virtual``; problems go to the report."""
    behind = {target.name: target.server for target in targets}
    chosen = model.servers or [ServerModel(name=target.name) for target in targets]
    servers: dict[str, v.ChosenServer] = {}
    for index, one in enumerate(chosen):
        here = (*path, "servers", index, "name")
        if one.name not in behind:
            context.error(here, f"no target of that name; there are {', '.join(behind)}")
        elif one.name in servers:
            context.error(here, f"{one.name} is there already")
        else:
            tools, prompts, resources = _choice(one.tools, v.Choice()), _choice(one.prompts), _choice(one.resources)
            servers[one.name] = v.ChosenServer(one.name, behind[one.name], tools, prompts, resources)
    names: set[str] = set()
    for index, tool in enumerate(model.tools):
        here = (*path, "tools", index)
        if tool.server not in servers:
            context.error((*here, "server"), f"no such server here; there are {', '.join(servers)}")
        if tool.name is not None and (not tool.name or tool.name in names):
            context.error(
                (*here, "name"), f"{tool.name!r} is {'the name of another tool, too' if tool.name else 'empty'}"
            )
        names.add(tool.name or "")
    return v.VirtualServer(
        NAMESPACE,
        name,
        tuple(servers.values()),
        tuple(_tool(tool) for tool in model.tools),
        prefixed=prefix == "always" or (prefix == "conditional" and len(servers) != 1),
        fail_open=fail_open,
        title=model.title or "",
        instructions=model.instructions or "",
    )


def _choice(model: ChoiceModel | None, default: v.Choice = v.NOTHING) -> v.Choice:
    if model is None:
        return default
    return v.Choice(None if model.include is None else tuple(model.include), tuple(model.exclude))


def _tool(model: ToolModel) -> v.ChosenTool:
    return v.ChosenTool(
        model.server,
        model.tool,
        model.name or "",
        model.title or "",
        model.description or "",
        model.annotations,
        model.defaults,
        model.fixed,
        tuple(model.hidden),
    )
