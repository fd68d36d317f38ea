"""``qd audit``: the decisions the gateway took."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

group = typer.Typer(help="Decisions of the gateway: who called what, and what came of it.", no_args_is_help=True)
File = Annotated[Path | None, typer.Option("--file", help="An audit file; default: that of this platform.")]


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="audit")


@group.command()
def tail(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the newest.")] = 20,
    output: Annotated[str, typer.Option("--output", "-o", help="json: the records as they are, one a line.")] = "",
    agent: Annotated[str, typer.Option("--agent", help="Only of this agent: NAME or NAMESPACE/NAME.")] = "",
    tool: Annotated[str, typer.Option("--tool", help="Only of this tool.")] = "",
    decision: Annotated[str, typer.Option("--decision", help="Only allow, or only deny.")] = "",
    file: File = None,
) -> None:
    """Show the newest records."""
    from .records import Filter, show

    show(file, Filter(agent, tool, decision), lines=lines, follow=follow, output=output)


@group.command()
def verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Audit files, oldest first; what was rotated out of one is found."),
    ] = None,
    file: File = None,
    checkpoints: Annotated[
        str,
        typer.Option(
            "--checkpoints",
            help="A file (--audit-anchor) or 'control-plane', the default for this platform's own file.",
        ),
    ] = "",
    gateway: Annotated[
        str, typer.Option("--gateway", help="NAMESPACE/NAME whose checkpoints the control plane gives.")
    ] = "quarterdeck-system/quarterdeck",
    replica: Annotated[
        list[str] | None, typer.Option("--replica", help="Only checkpoints of this replica (Pod); again for more.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="json or yaml.")] = "",
) -> None:
    """Check that no record was changed, removed, reordered or cut off; exit code 1 when one was."""
    from .records import Checkpoints, check

    given = [*(files or []), *([file] if file else [])]
    if not check(given, Checkpoints(checkpoints, gateway, tuple(replica or ())), output):
        raise typer.Exit(1)
