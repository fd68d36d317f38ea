"""``qd tools``: list and call tools of MCP servers through the gateway."""

from __future__ import annotations

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
) -> None:
    """Call a tool and print its result; exit code 1 when the tool reports an error."""
    from .toolcalls import call_tool

    if not call_tool(server, tool, arg or [], args_json, namespace, output=output, timeout=timeout):
        raise typer.Exit(1)
