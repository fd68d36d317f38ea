"""``qd mcp``: MCP server projects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

group = typer.Typer(help="Build MCP servers.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="mcp")


@group.command()
def build(
    tag: Annotated[str, typer.Option("--tag", "-t", help="NAME:TAG of the image.")],
    project_dir: Annotated[
        Path, typer.Option("--project-dir", "-d", help="Folder with pyproject.toml or package.json.")
    ] = Path("."),
) -> None:
    """Build a project into an image of the local store, without Docker."""
    from quarterdeck.oci.build import build as build_image
    from quarterdeck.oci.layout import Layout
    from quarterdeck.oci.reference import parse

    from .home import home

    store = Layout(home() / "node" / "images")
    built = build_image(project_dir, parse(tag), store, lambda line: print(f"  {line}"))
    print(
        f"{built.reference} {built.digest[:19]} {built.size / 1e6:.1f} MB, "
        f"command: {' '.join(built.command) or '(none)'}"
    )
    if built.dockerfile is not None:
        print(f"for clusters: {built.dockerfile} was written; build it with docker or podman")
