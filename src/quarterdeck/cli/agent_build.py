"""``qd agent init|build|run|deploy``: an agent of one's own, on LangGraph, from nothing to the platform."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .target import Context, Kubeconfig, Namespace

if TYPE_CHECKING:
    from .agent_project import Project

ProjectDir = Annotated[Path, typer.Option("--project-dir", "-d", help="Folder of the project (with agent.yaml).")]


def register(group: typer.Typer) -> None:
    group.command()(init)
    group.command()(build)
    group.command()(run)
    group.command()(deploy)


def init(
    name: Annotated[str, typer.Argument(help="Name of the agent.")],
    directory: Annotated[str, typer.Option("--project-dir", "-d", help="Where to; default: a folder NAME.")] = "",
    description: Annotated[str, typer.Option("--description", help="What it is for, in one line.")] = "",
    namespace: Namespace = "",
    model_config: Annotated[str, typer.Option("--model-config", help="ModelConfig it uses.")] = "default-model-config",
    tool: Annotated[
        list[str] | None,
        typer.Option("--tool", help="MCP server it uses: NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME; again for more."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Write a new project: an agent on LangGraph that speaks A2A, its tests, and its Agent."""
    from .agent_project import Wanted, create
    from .target import agents_namespace

    place = Path(directory or name)
    wanted = Wanted(
        name, agents_namespace(namespace), description or f"The agent {name}.", model_config, tuple(tool or ())
    )
    for path in create(place, wanted, force=force):
        print(path)
    print(f"next: cd {place} && uv run pytest && qd agent run")


def build(
    project_dir: ProjectDir = Path("."),
    tag: Annotated[str, typer.Option("--tag", "-t", help="NAME:TAG of the image; default: agent.yaml's.")] = "",
    push: Annotated[bool, typer.Option("--push", help="Push it to the registry of its name, put on --base.")] = False,
    base: Annotated[str, typer.Option("--base", help="Image with Python to put it on.")] = "",
    username: Annotated[str, typer.Option("--username", help="Login at the registry; default: docker login's.")] = "",
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password.")] = False,
) -> None:
    """Build the project into an image of the local store, without Docker."""
    from . import mcp
    from .agent_project import load

    mcp.build(tag or load(project_dir).image, project_dir, push, base, username, password_stdin)


def run(
    project_dir: ProjectDir = Path("."),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1.")] = 8080,
    python: Annotated[
        str, typer.Option("--python", help="Interpreter that has the project's packages; default: uv installs them.")
    ] = "",
) -> None:
    """Run the project on this machine, with the model and tools of the platform, until Ctrl-C."""
    from .agent_project import load

    project = load(project_dir)
    environment = os.environ | local_environment(project, project_dir.absolute() / ".quarterdeck", port)
    command = [*_interpreter(project_dir, python), "src/main.py"]
    print(f"{project.name} speaks A2A on http://127.0.0.1:{port}/", flush=True)
    os.chdir(project_dir)
    os.execvpe(command[0], command, environment)  # noqa: S606 - in our place, so that it ends when we are told to


def local_environment(project: Project, scratch: Path, port: int) -> dict[str, str]:
    """What a Pod would be given: the configuration, in ``scratch``, and who we are to the gateway."""
    import json

    from .local import gateway_headers, gateway_url

    scratch.mkdir(exist_ok=True)
    (scratch / "config.json").write_text(json.dumps(project.config(gateway_url()), indent=2))
    found = {"CONFIG_DIR": str(scratch), "HOST": "127.0.0.1", "PORT": str(port)}
    for _, value in gateway_headers():
        found["QUARTERDECK_TOKEN"] = value.decode("latin-1").removeprefix("Bearer ")
    return found


def _interpreter(directory: Path, python: str) -> list[str]:
    """``--python``, else the project's own environment, else uv, which makes one."""
    from quarterdeck.oci.build import find_uv

    own = directory / ".venv" / "bin" / "python"
    if python:
        return [os.path.abspath(python) if "/" in python else python]
    return [str(own.absolute())] if own.exists() else [*find_uv(), "run", "--no-dev", "python"]


def deploy(
    project_dir: ProjectDir = Path("."),
    namespace: Namespace = "",
    image: Annotated[str, typer.Option("--image", help="Image instead of agent.yaml's.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be applied.")] = False,
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Apply the project's Agent with its image."""
    from dataclasses import replace

    from .agent_project import MANIFEST, load
    from .apply import Options, apply_all
    from .manifests import read
    from .target import connect
    from .target import run as work

    project = load(project_dir)
    body: dict[str, Any] = project.manifest
    body["metadata"]["namespace"] = namespace or project.namespace
    if image:
        body.setdefault("spec", {}).setdefault("byo", {}).setdefault("deployment", {})["image"] = image
    if dry_run:
        import yaml

        print(yaml.safe_dump(body, sort_keys=False), end="")
        return

    async def applied() -> bool:
        async with connect(kubeconfig, context, "", namespace) as client:
            manifests = [replace(manifest, body=body) for manifest in read([str(project_dir / MANIFEST)])]
            return await apply_all(client, manifests, Options("none", "Strict", False, ""), namespace)

    if not work(applied()):
        raise typer.Exit(1)
    print(f'next: qd agent invoke {project.name} "What can you do?"')
