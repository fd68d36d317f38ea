"""``qd memory``: what agents remember of their users."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .target import AllNamespaces, Namespace

group = typer.Typer(help="What agents remember of their users: look at it, delete it.", no_args_is_help=True)
Output = Annotated[str, typer.Option("--output", "-o", help="json or yaml.")]
Agent = Annotated[str, typer.Option("--agent", help="NAME, or NAMESPACE/NAME, of the agent that remembers.")]
User = Annotated[str, typer.Option("--user", help="The user of whom it is remembered.")]
Ident = Annotated[str, typer.Argument(help="ID, as 'qd memory list' shows.", show_default=False)]
_HEADER = ["ID", "AGENT", "USER", "SOURCE", "USES", "EXPIRES", "MEMORY"]
_SHOWN = 60


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="memory")


@group.command("list")
def list_(
    agent: Agent = "",
    user: User = "",
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=1000)] = 100,
    output: Output = "",
) -> None:
    """Show memories, most used first: of a namespace's agents, of one, of a user."""
    from .output import emit, formatted, note, table
    from .target import whose

    query = {**whose(agent, namespace, everywhere), "user": user, "limit": str(limit)}
    found: list[dict[str, Any]] = _ask("GET", "", query)["memories"]
    if output:
        emit(formatted(found, output))
    elif found:
        emit(table([_row(one) for one in found], header=_HEADER))
    else:
        note("nothing is remembered")


@group.command()
def show(ident: Ident, output: Output = "") -> None:
    """Show one memory in full."""
    from .output import emit, formatted

    emit(formatted(_ask("GET", f"/{_part(ident)}"), output or "yaml"))


@group.command()
def delete(
    idents: Annotated[list[str] | None, typer.Argument(help="IDs, as 'qd memory list' shows.")] = None,
    agent: Agent = "",
    user: User = "",
    namespace: Namespace = "",
    all_users: Annotated[bool, typer.Option("--all-users", help="All that the agent remembers, of everybody.")] = False,
) -> None:
    """Delete memories by their ids, or all that an agent remembers of a user (--agent, --user)."""
    from quarterdeck.errors import UsageError

    from .output import emit
    from .target import agent_name

    if idents and not agent and not user and not all_users:
        for ident in idents:
            _ask("DELETE", f"/{_part(ident)}")
            emit(f"memory {ident} deleted\n")
        return
    if idents or not agent or bool(user) == all_users:
        raise UsageError("give IDs; or --agent NAME with --user USER; or --agent NAME with --all-users")
    name = agent_name(agent, namespace)
    gone = _ask("DELETE", "", {"agent": name, "user": user})["deleted"]
    emit(f"{gone} memories of agent {name} deleted\n")


def _ask(method: str, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
    from urllib.parse import urlencode

    from . import rest

    given = {key: value for key, value in (query or {}).items() if value}
    return rest.control_plane(method, f"/v1/memories{path}{'?' + urlencode(given) if given else ''}")


def _part(ident: str) -> str:
    from .local import part

    return part(ident)


def _row(one: dict[str, Any]) -> list[str]:
    text = " ".join(one["content"].split())
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return [one["id"], one["agent"], one["user"], one["source"], str(one["uses"]), one["expiresAt"][:10], text]
