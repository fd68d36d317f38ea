"""``qd migrate kagent``: an installation of kagent handed over in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .target import As, Context, Kubeconfig, connect, run

if TYPE_CHECKING:
    from quarterdeck.kube.client import KubeClient
    from quarterdeck.migrate.handover import Survey, Target

group = typer.Typer(help="Take over what another product installed.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="migrate")


@group.command()
def kagent(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be changed and change nothing.")] = False,
    release: Annotated[
        str, typer.Option("--release", help="Helm release that is to own the definitions.")
    ] = "quarterdeck-crds",
    release_namespace: Annotated[
        str, typer.Option("--release-namespace", help="Namespace of that release.")
    ] = "quarterdeck-system",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Hand kagent's definitions and objects over, so that its charts can be uninstalled and nothing is lost.

    Marks the definitions to be kept, and in Helm's own records every Agent, ModelConfig and tool server of kagent's
    charts with the Secrets and ConfigMaps they name; gives the definitions to the release quarterdeck-crds; rewrites
    objects that are stored in older versions, once they can be converted. Does what can be done now and says what comes
    next; run it again after each step, as often as you like.
    """
    from quarterdeck.migrate.handover import Target

    async def work() -> bool:
        async with connect(kubeconfig, context, as_user) as client:
            return await migrate(client, Target(release, release_namespace), dry_run=dry_run)

    if not run(work()):
        raise typer.Exit(1)


async def migrate(client: KubeClient, target: Target, *, dry_run: bool) -> bool:
    """The command's work; False when something due could not be done."""
    from quarterdeck.migrate.handover import plan, survey

    from .output import emit, note

    found = await survey(client)
    if not found.definitions:
        note("no definition of kagent.dev is installed here: nothing to migrate")
        return True
    changes = plan(found, target)
    for change in changes:
        if dry_run:
            emit(f"would change: {change.says}")
        elif await change.make(client):
            emit(f"changed: {change.says}")
    complete = await _rewrite(client, found, dry_run=dry_run)
    if not changes:
        emit("everything is handed over")
    _next_steps(found, target)
    return complete


async def _rewrite(client: KubeClient, found: Survey, *, dry_run: bool) -> bool:
    from quarterdeck.errors import ApiError
    from quarterdeck.migrate.storage import due, rewrite

    from .output import emit, note

    complete = True
    for item in due(found.definitions):
        older = ", ".join(item.older)
        if item.obstacle:
            note(f"{item.name}: objects may be stored as {older}: {item.obstacle}")
        elif dry_run:
            emit(f"would rewrite: objects of {item.name} that are stored as {older}")
        else:
            try:
                count = await rewrite(client, item)
            except ApiError as error:
                note(f"{item.name}: not rewritten: {error}")
                complete = False
            else:
                emit(f"rewritten: {count} objects of {item.name}; {older} is no longer stored")
    return complete


def _next_steps(found: Survey, target: Target) -> None:
    from quarterdeck.controllers.rivals import product_of
    from quarterdeck.resources.crd import PART_OF

    from .output import note

    ours = all(PART_OF.items() <= (d["metadata"].get("labels") or {}).items() for d in found.definitions)
    if not ours:
        note(f"next: helm upgrade --install {target.name} charts/quarterdeck-crds -n {target.namespace}")
        note(f"      helm upgrade --install quarterdeck charts/quarterdeck -n {target.namespace}")
    for deployment in found.running:
        metadata = deployment["metadata"]
        note(
            f"Deployment {metadata['namespace']}/{metadata['name']} runs {product_of(deployment)}'s controller; "
            "Quarterdeck reconciles nothing of its kinds until it is gone"
        )
    for name, namespace in sorted({(r.name, r.namespace) for r in found.releases}):
        note(f"next: helm uninstall {name} -n {namespace}")
