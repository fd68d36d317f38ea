"""``qd gateway revoke``, ``revocations`` and ``unrevoke``: the kill switch."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Admin = Annotated[
    str,
    typer.Option(
        "--admin", help="A gateway without control plane, by its admin port: HOST:PORT.", envvar="QUARTERDECK_ADMIN_URL"
    ),
]
_HEADER = ["ID", "KIND", "SUBJECT", "EXPIRES", "BY", "REASON"]


def register(group: typer.Typer) -> None:
    group.command("revoke")(revoke)
    group.command("revocations")(revocations)
    group.command("unrevoke")(unrevoke)


def revoke(
    agent: Annotated[
        str, typer.Option("--agent", help="NAMESPACE/NAME of an agent: it may call and be called by nobody.")
    ] = "",
    user: Annotated[str, typer.Option("--user", help="A person: the token's sub, or the name in audit records.")] = "",
    server: Annotated[str, typer.Option("--server", help="NAMESPACE/NAME of an MCP server.")] = "",
    duration: Annotated[str, typer.Option("--for", help="How long, e.g. 30m; default: until it is undone.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Told to whoever is refused, and recorded.")] = "",
    admin: Admin = "",
    output: Annotated[str, typer.Option("--output", "-o", help="json or yaml.")] = "",
) -> None:
    """Stop an agent, a user or a server within a second: calls, open sessions and streams."""
    from quarterdeck.errors import UsageError

    from .durations import seconds
    from .output import emit, formatted

    named = {"agent": agent, "user": user, "server": server}
    given = {kind: subject for kind, subject in named.items() if subject}
    if len(given) != 1:
        raise UsageError("give exactly one of --agent, --user and --server")
    body: dict[str, Any] = {**given, "reason": reason, "for": seconds(duration, "--for") if duration else 0}
    made = _ask(admin, "POST", "", body)
    if output:
        emit(formatted(made, output))
        return
    until = f" until {when(made.get('expires', 0))}" if made.get("expires") else ""
    emit(f"{made['kind']} {made['subject']} is revoked{until}; undo: qd gateway unrevoke {made['id']}\n")


def revocations(
    admin: Admin = "", output: Annotated[str, typer.Option("--output", "-o", help="json or yaml.")] = ""
) -> None:
    """Show who is revoked."""
    from .output import emit, formatted, note, table

    found: list[dict[str, Any]] = _ask(admin, "GET", "")["revocations"]
    if output:
        emit(formatted(found, output))
    elif found:
        emit(table([_row(one) for one in found], header=_HEADER))
    else:
        note("nobody is revoked")


def unrevoke(
    ids: Annotated[list[str], typer.Argument(help="Ids that 'qd gateway revocations' shows.")], admin: Admin = ""
) -> None:
    """Undo revocations."""
    from .output import emit

    for ident in ids:
        undone = _ask(admin, "DELETE", f"/{_part(ident)}")
        emit(f"{undone['kind']} {undone['subject']} is no longer revoked\n")


def _ask(admin: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    from . import rest

    if admin:
        return rest.admin(admin, method, f"/revocations{path}", body)
    return rest.control_plane(method, f"/v1/revocations{path}", body)


def _row(one: dict[str, Any]) -> list[str]:
    expires = when(one["expires"]) if one.get("expires") else "never"
    return [one["id"], one["kind"], one["subject"], expires, one.get("by") or "-", one.get("reason") or "-"]


def when(seconds: float) -> str:
    """Local time."""
    from datetime import datetime

    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _part(text: str) -> str:
    from .local import part

    return part(text)
