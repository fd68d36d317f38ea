"""``qd gateway tokens``: at which servers users have signed in through a gateway, and how to end that."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from .revoke import Admin

group = typer.Typer(help="Users' sign-ins at MCP servers (auth: oauth).", no_args_is_help=True)
User = Annotated[str, typer.Option("--user", help="As audit records name the user.")]
Server = Annotated[str, typer.Option("--server", help="NAMESPACE/NAME of the MCP server, or KIND/NAMESPACE/NAME.")]
Output = Annotated[str, typer.Option("--output", "-o", help="json or yaml.")]
_HEADER = ["USER", "SERVER", "ISSUER", "SCOPES", "GRANTED", "EXPIRES"]


def register(parent: typer.Typer) -> None:
    group.command("list")(tokens)
    group.command("revoke")(revoke)
    parent.add_typer(group, name="tokens")


def tokens(user: User = "", server: Server = "", admin: Admin = "", output: Output = "") -> None:
    """Show who has signed in where; without the right to see all, your own."""
    from .output import emit, formatted, note, table

    found: list[dict[str, Any]] = _ask(admin, "GET", user, server)["tokens"]
    if output:
        emit(formatted(found, output))
    elif found:
        emit(table([_row(one) for one in found], header=_HEADER))
    else:
        note("nobody has signed in at a server")


def revoke(user: User = "", server: Server = "", admin: Admin = "", output: Output = "") -> None:
    """Forget sign-ins at once: calls in flight end, the next one asks the user to sign in again."""
    from quarterdeck.errors import UsageError

    from .output import emit, formatted, note

    if not user and not server:
        raise UsageError("give --user, --server, or both; see: qd gateway tokens list")
    gone: list[dict[str, Any]] = _ask(admin, "DELETE", user, server)["revoked"]
    if output:
        emit(formatted(gone, output))
        return
    for one in gone:
        emit(f"{one['user']} is no longer signed in at {_server(one)}\n")
    if not gone:
        note("there was no such sign-in")


def _ask(admin: str, method: str, user: str, server: str) -> dict[str, Any]:
    from . import rest

    query = urlencode({name: value for name, value in (("user", user), ("server", server)) if value})
    path = f"/user-tokens?{query}" if query else "/user-tokens"
    return rest.admin(admin, method, path) if admin else rest.control_plane(method, f"/v1{path}")


def _row(one: dict[str, Any]) -> list[str]:
    from .revoke import when

    expires = "refreshed" if one.get("refreshable") else when(one.get("expires", 0))
    return [one["user"], _server(one), one.get("issuer", "-"), one.get("scope") or "-", when(one["granted"]), expires]


def _server(one: dict[str, Any]) -> str:
    return str(one["server"]).partition("/")[2]
