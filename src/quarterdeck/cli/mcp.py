"""``qd mcp``: MCP server projects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quarterdeck.oci.layout import Layout
    from quarterdeck.oci.reference import Reference

group = typer.Typer(help="Build MCP servers.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="mcp")


@group.command()
def build(
    tag: Annotated[str, typer.Option("--tag", "-t", help="NAME:TAG of the image.")],
    project_dir: Annotated[
        Path, typer.Option("--project-dir", "-d", help="Folder with pyproject.toml or package.json.")
    ] = Path("."),
    push: Annotated[bool, typer.Option("--push", help="Push it to the registry of its name, put on --base.")] = False,
    base: Annotated[str, typer.Option("--base", help="Image with Python or Node to put it on.")] = "",
    username: Annotated[str, typer.Option("--username", help="Login at the registry; default: docker login's.")] = "",
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password.")] = False,
) -> None:
    """Build a project into an image of the local store, without Docker."""
    from quarterdeck.errors import UsageError
    from quarterdeck.node.images.oci import LocalImages
    from quarterdeck.oci.build import build as build_image
    from quarterdeck.oci.layout import Layout
    from quarterdeck.oci.reference import parse
    from quarterdeck.server.directory import close_to_others

    from .home import home

    reference = parse(tag)
    if push and not base:
        raise UsageError(
            "--push needs --base: the image carries no operating system; for example --base python:3.11-slim"
        )
    if push and not reference.registry:
        raise UsageError(f"--push: {tag} names no registry; write -t REGISTRY/NAME:TAG")
    if bool(username) != password_stdin:
        raise UsageError("--username and --password-stdin go together")
    close_to_others(home())
    store = Layout(home() / "node" / "images")
    built = build_image(project_dir, reference, store, _say)
    _say("unpacking")
    images = LocalImages(store.root, store.root.parent / "extracted")
    found = images.find(str(reference))
    assert found is not None, "the image was stored just now"
    images.load(found)  # the node would do it at the first start, while somebody waits
    print(
        f"{built.reference} {built.digest[:19]} {built.size / 1e6:.1f} MB, "
        f"command: {' '.join(built.command) or '(none)'}"
    )
    if push:
        _push(store, reference, base, username)
    elif built.dockerfile is not None:
        print(f"for clusters: {built.dockerfile} was written; build it with docker or podman")


def _push(store: Layout, reference: Reference, base: str, username: str) -> None:
    import asyncio
    import sys

    from quarterdeck.oci.push import push
    from quarterdeck.oci.reference import parse
    from quarterdeck.oci.registry import Credentials

    credentials = Credentials(username, sys.stdin.readline().rstrip("\n")) if username else None
    digest = asyncio.run(push(store, reference, parse(base), credentials, _say))
    print(f"pushed {reference} {digest[:19]}")


def _say(line: str) -> None:
    print(f"  {line}")
