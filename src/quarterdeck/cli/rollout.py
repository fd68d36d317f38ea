"""``qd rollout``: status, history, undo, pause, resume and restart of Agents and MCPServers, as kubectl has them of
Deployments. Every change is written to the resource itself, with the caller's own credentials."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .complete import kinds as complete_kinds
from .complete import objects as complete_objects
from .target import As, Context, Kubeconfig, Namespace, connect, run

if TYPE_CHECKING:
    from .rollouts import Subject

group = typer.Typer(help="Roll-outs of agents and MCP servers: status, history, undo.", no_args_is_help=True)
KindWord = Annotated[str, typer.Argument(help="KIND or KIND/NAME.", autocompletion=complete_kinds)]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=complete_objects)]
Output = Annotated[str, typer.Option("--output", "-o", help="json, yaml, name, jsonpath=….")]
DryRun = Annotated[str, typer.Option("--dry-run", help="none, server or client.")]


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="rollout")


@group.command()
def status(
    kind: KindWord,
    names: Names = None,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", "-w", help="Wait until it is finished.")] = True,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait; 0: until it is finished.")] = "0",
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Say how far a roll-out is."""
    from .durations import seconds

    limit = seconds(timeout, "--timeout")

    async def one(subject: Subject) -> None:
        from .rollouts import follow

        await follow(subject, watch=watch, limit=limit)

    on_each(kind, names, one, (kubeconfig, context, as_user, namespace))


@group.command()
def history(
    kind: KindWord,
    names: Names = None,
    revision: Annotated[int, typer.Option("--revision", min=0, help="Show this revision's spec.")] = 0,
    output: Output = "",
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """List the accepted specs, or show one."""

    async def one(subject: Subject) -> None:
        from .output import emit
        from .rollouts import shown_history

        emit(await shown_history(subject, revision, output))

    on_each(kind, names, one, (kubeconfig, context, as_user, namespace))


@group.command()
def undo(
    kind: KindWord,
    names: Names = None,
    to_revision: Annotated[int, typer.Option("--to-revision", min=0, help="The revision; 0: the previous one.")] = 0,
    dry_run: DryRun = "none",
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Write an earlier spec back. Numbers of Pods and the way of rolling out stay as they are."""

    async def one(subject: Subject) -> None:
        from .rollouts import undo as work

        say(subject, await work(subject, to_revision, is_dry(dry_run)), dry_run)

    on_each(kind, names, one, (kubeconfig, context, as_user, namespace))


@group.command()
def pause(
    kind: KindWord,
    names: Names = None,
    dry_run: DryRun = "none",
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Accept changes without rolling them out until resumed."""

    async def one(subject: Subject) -> None:
        from .rollouts import pause as work

        await work(subject, True, is_dry(dry_run))
        say(subject, "paused", dry_run)

    on_each(kind, names, one, (kubeconfig, context, as_user, namespace))


@group.command()
def resume(
    kind: KindWord,
    names: Names = None,
    dry_run: DryRun = "none",
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Roll out what was held back."""

    async def one(subject: Subject) -> None:
        from .rollouts import pause as work

        await work(subject, False, is_dry(dry_run))
        say(subject, "resumed", dry_run)

    on_each(kind, names, one, (kubeconfig, context, as_user, namespace))


@group.command()
def restart(
    kind: KindWord,
    names: Names = None,
    dry_run: DryRun = "none",
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Replace all Pods, one after the other."""

    async def one(subject: Subject) -> None:
        from datetime import datetime

        from .rollouts import restart as work

        await work(subject, datetime.now().astimezone().isoformat(timespec="seconds"), is_dry(dry_run))
        say(subject, "restarted", dry_run)

    on_each(kind, names, one, (kubeconfig, context, as_user, namespace))


def is_dry(dry_run: str) -> bool:
    """Whether the server is only asked. Raises UsageError."""
    from quarterdeck.errors import UsageError

    if dry_run not in ("none", "server", "client"):
        raise UsageError(f"--dry-run={dry_run}: must be none, server or client")
    return dry_run != "none"


def say(subject: Subject, done: str, dry_run: str) -> None:
    """What was done, in kubectl's form."""
    print(f"{subject.title} {done}" + (f" ({dry_run} dry run)" if dry_run != "none" else ""), flush=True)


def on_each(
    kind: str,
    names: list[str] | None,
    one: Callable[[Subject], Coroutine[Any, Any, None]],
    where: tuple[str, str, str, str],
) -> None:
    """Run ``one`` for each object named; kubectl's own kinds are left to kubectl."""

    async def work() -> None:
        from quarterdeck.errors import UsageError

        from .get import parse_targets
        from .kinds import discover
        from .rollouts import KINDS, Subject

        async with connect(*where) as client:
            targets = parse_targets(await discover(client), kind, names or [])
            for found, wanted in targets:
                if (found.resource.group, found.resource.kind) not in KINDS:
                    text = f"{found.qualified} has no revisions of ours; use kubectl rollout for it"
                    raise UsageError(text)
                if not wanted:
                    raise UsageError(f"required resource not specified: {found.resource.kind.lower()}/NAME")
                for name in wanted:
                    await one(Subject(client, found, name))

    run(work())
