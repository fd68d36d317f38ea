"""``qd tools``: list and call tools of MCP servers through the gateway, and approve their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .complete import servers
from .target import Namespace

group = typer.Typer(help="List and call tools through the gateway.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="tools")


@group.command("list")
def list_tools(
    server: Annotated[str, typer.Argument(help="MCP server; none: the tools of all.", autocompletion=servers)] = "",
    namespace: Namespace = "",
    output: Annotated[str, typer.Option("--output", "-o", help="json, yaml or name.")] = "",
) -> None:
    """Show the tools of a server, or of all."""
    from .toolcalls import show_tools

    show_tools(server, namespace, output)


@group.command()
def call(
    server: Annotated[str, typer.Argument(help="MCP server.", autocompletion=servers)],
    tool: Annotated[str, typer.Argument(help="Tool of the server.")],
    arg: Annotated[list[str] | None, typer.Option("--arg", help="KEY=VALUE; again for more.")] = None,
    args_json: Annotated[str, typer.Option("--args-json", help="All arguments as one JSON object; - reads it.")] = "",
    namespace: Namespace = "",
    output: Annotated[str, typer.Option("--output", "-o", help="json: the whole result.")] = "",
    timeout: Annotated[str, typer.Option("--timeout", help="Longest time for the answer.")] = "60s",
    approval: Annotated[str, typer.Option("--approval", help="NAMESPACE/NAME of the call's approval.")] = "",
) -> None:
    """Call a tool and print its result; exit code 1 when the tool reports an error, 4 when people must approve."""
    from .toolcalls import call_tool

    given = arg or []
    if not call_tool(server, tool, given, args_json, namespace, output=output, timeout=timeout, approval=approval):
        raise typer.Exit(1)


Server = Annotated[str, typer.Argument(help="MCP server; with --file the name of a target.", autocompletion=servers)]
ConfigFile = Annotated[
    Path | None, typer.Option("--file", "-f", help="Configuration file of a gateway without control plane.")
]
Admin = Annotated[
    str, typer.Option("--admin", help="With --file: admin port of its gateway.", envvar="QUARTERDECK_ADMIN_URL")
]


@group.command()
def approve(
    server: Server,
    tool: Annotated[list[str] | None, typer.Option("--tool", help="Only this tool; again for more.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    accept_findings: Annotated[
        bool, typer.Option("--accept-findings", help="Also what 'qd tools scan' finds suspicious.")
    ] = False,
    namespace: Namespace = "",
    file: ConfigFile = None,
    admin: Admin = "",
) -> None:
    """Approve the definitions of a server's tools as they are now; others are then neither listed nor called."""
    from . import toolpins

    toolpins.approve(
        toolpins.source(server, namespace, file, admin), tool or [], yes=yes, accept_findings=accept_findings
    )


@group.command()
def diff(
    server: Server,
    namespace: Namespace = "",
    output: Annotated[str, typer.Option("--output", "-o", help="json.")] = "",
    file: ConfigFile = None,
    admin: Admin = "",
) -> None:
    """Show what differs from what was approved; exit code 1 when something does."""
    from . import toolpins

    if not toolpins.diff(toolpins.source(server, namespace, file, admin), output):
        raise typer.Exit(1)


@group.command()
def scan(server: Server, namespace: Namespace = "", file: ConfigFile = None, admin: Admin = "") -> None:
    """Look for hidden characters and instructions in the definitions; exit code 1 when there are some."""
    from . import toolpins

    if not toolpins.scan(toolpins.source(server, namespace, file, admin)):
        raise typer.Exit(1)


@group.command()
def withdraw(
    server: Server,
    tool: Annotated[str, typer.Option("--tool", help="Only this tool; default: all approvals of the server.")] = "",
    namespace: Namespace = "",
    file: ConfigFile = None,
    admin: Admin = "",
) -> None:
    """Forget approvals; a server without any is not pinned, unless its annotation says so."""
    from . import toolpins
    from .output import emit

    count = toolpins.source(server, namespace, file, admin).withdraw(tool)
    emit(f"{count} approvals withdrawn\n")
