"""``qd approvals``: tool calls that wait for people."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .target import AllNamespaces, Namespace

group = typer.Typer(help="Tool calls that wait for people: look at them, approve or deny.", no_args_is_help=True)
Output = Annotated[str, typer.Option("--output", "-o", help="json or yaml.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; recorded, and told to the agent when it is a no.")]
Names = Annotated[list[str], typer.Argument(help="NAME, or NAMESPACE/NAME, as 'qd approvals list' shows.")]
_HEADER = ["NAMESPACE", "NAME", "TOOL", "SERVER", "AGENT", "REQUESTER", "STATE", "EXPIRES", "MESSAGE"]
_ENDED = {"Denied": 3, "Expired": 5, "Void": 3}


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="approvals")


@group.command("list")
def list_(
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    every: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    output: Output = "",
) -> None:
    """Show what waits, newest first."""
    from .local import part
    from .output import emit, formatted, note, table

    query = [] if everywhere else [f"namespace={part(_namespace(namespace))}"]
    query += [] if every else ["state=pending,approved"]
    found: list[dict[str, Any]] = _ask("GET", "?" + "&".join(query))["approvals"]
    if output:
        emit(formatted(found, output))
    elif found:
        emit(table([_row(one) for one in found], header=_HEADER))
    else:
        note("nothing waits for approval")


@group.command()
def show(
    name: Annotated[str, typer.Argument(help="NAME, or NAMESPACE/NAME.")],
    namespace: Namespace = "",
    output: Output = "",
) -> None:
    """Show one with the arguments of its call."""
    from .output import emit, formatted

    found = _ask("GET", f"/{_place(name, namespace)}")
    emit(formatted(found, output) if output else _described(found))


@group.command()
def approve(names: Names, namespace: Namespace = "", reason: Reason = "") -> None:
    """Approve calls, each for one time, with the very arguments that 'show' prints.

    Exit code 4 while more people must approve.
    """
    states = _decide(names, namespace, "approve", reason)
    if "Pending" in states:
        raise typer.Exit(4)


@group.command()
def deny(names: Names, namespace: Namespace = "", reason: Reason = "") -> None:
    """Deny calls; the agent is told why."""
    _decide(names, namespace, "deny", reason)


@group.command()
def wait(
    name: Annotated[str, typer.Argument(help="NAME, or NAMESPACE/NAME.")],
    namespace: Namespace = "",
    timeout: Annotated[str, typer.Option("--timeout", help="How long, e.g. 10m.")] = "1h",
) -> None:
    """Wait until somebody has decided: exit code 0 when approved, 3 when denied, 5 when time ran out."""
    import time

    from quarterdeck.errors import TimedOut

    from .durations import seconds
    from .output import emit

    until = time.monotonic() + seconds(timeout, "--timeout")
    place = _place(name, namespace)
    while (found := _ask("GET", f"/{place}"))["state"] == "Pending":
        if time.monotonic() > until:
            raise TimedOut(f"nobody decided about {place} within {timeout}")
        time.sleep(1)
    emit(f"{place}: {_said(found)}\n")
    if found["state"] in _ENDED:
        raise typer.Exit(_ENDED[found["state"]])


def _decide(names: list[str], namespace: str, verdict: str, reason: str) -> set[str]:
    from .output import emit

    states: set[str] = set()
    for name in names:
        place = _place(name, namespace)
        found = _ask("POST", f"/{place}/{verdict}", {"reason": reason} if reason else {})
        states.add(found["state"])
        emit(f"{place}: {_said(found)}\n")
    return states


def _said(found: dict[str, Any]) -> str:
    """The state with what there is to say about it, once."""
    state, message = found["state"].lower(), found["message"]
    return message if message.startswith(state) else f"{state}: {message}" if message else state


def _ask(method: str, path: str, body: Any = None) -> dict[str, Any]:
    from . import rest

    return rest.control_plane(method, f"/v1/approvals{path}", body)


def _place(name: str, namespace: str) -> str:
    from .local import part

    where, slash, rest = name.removeprefix("approval/").partition("/")
    return f"{part(where)}/{part(rest)}" if slash else f"{part(_namespace(namespace))}/{part(where)}"


def _namespace(namespace: str) -> str:
    from .target import agents_namespace

    return agents_namespace(namespace)


def _row(one: dict[str, Any]) -> list[str]:
    requester = one.get("requester") or {}
    return [
        one["namespace"], one["name"], one["tool"], one["server"], one.get("agent") or "-", requester.get("id") or "-",
        one["state"], one["expiresAt"], one["message"] or "-",
    ]  # fmt: skip


def _described(found: dict[str, Any]) -> str:
    from .output import to_yaml

    requester = found.get("requester") or {}
    lines = [
        f"Approval:   {found['namespace']}/{found['name']}",
        f"State:      {found['state']} ({found['message']})",
        f"Tool:       {found['tool']} of {found['kind']} {found['namespace']}/{found['server']}",
        f"Caller:     {found.get('agent') or found['principal']}",
        f"Requester:  {requester.get('id') or 'not known'}",
        f"Demanded:   {', '.join(found.get('rules') or ())}",
        f"Expires:    {found['expiresAt']}",
    ]
    if found.get("run"):
        lines.append(f"Run:        {found['run']}, step {found.get('step', 0)}")
    lines.append(f"Hash:       {found['argumentsHash']}")
    lines += [
        f"Decision:   {d['verdict']} by {d['by']} at {d['at']} {d['reason']}".rstrip() for d in found["decisions"]
    ]
    arguments = to_yaml(found["arguments"]) if found["arguments"] else "{}\n"
    return "\n".join([*lines, "Arguments:", *(f"  {line}" for line in arguments.splitlines()), ""])
