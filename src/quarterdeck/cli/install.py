"""``qd install``, ``qd uninstall``, ``qd manifests``: the platform in a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from .target import Context, Kubeconfig

Release = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the control plane and the gateway.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of the chart, as helm's; again for more.")]
Files = Annotated[list[str] | None, typer.Option("--values", "-f", help="YAML file with values; again for more.")]
Timeout = Annotated[str, typer.Option("--timeout", help="How long to wait.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")]
Definitions = Annotated[bool, typer.Option("--definitions/--no-definitions", help="With the kinds' definitions.")]
NAMESPACE = "quarterdeck-system"


def register(app: typer.Typer) -> None:
    app.command()(install)
    app.command()(uninstall)
    app.command()(manifests)


def install(
    namespace: Release = NAMESPACE,
    set_values: Sets = None,
    values: Files = None,
    definitions: Definitions = True,
    dry_run: DryRun = False,
    helm: Annotated[bool, typer.Option("--helm/--no-helm", help="Through helm, where it is on PATH.")] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until everything is ready.")] = True,
    timeout: Timeout = "5m",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Install or upgrade Quarterdeck in a Kubernetes cluster: definitions, control plane and gateway."""
    from .durations import seconds
    from .installation import Plan, install

    given = (tuple(set_values or ()), tuple(values or ()))
    plan = Plan(namespace, *given, kubeconfig, context, helm=helm, definitions=definitions)
    install(plan, dry_run=dry_run, wait=wait, timeout=seconds(timeout, "--timeout"))


def uninstall(
    namespace: Release = NAMESPACE,
    definitions: Annotated[
        bool, typer.Option("--definitions", help="The definitions too, and with them every Agent and MCPServer.")
    ] = False,
    dry_run: DryRun = False,
    timeout: Timeout = "5m",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Remove control plane and gateway. Definitions, agents and conversations stay."""
    from .durations import seconds
    from .installation import Plan, uninstall

    plan = Plan(namespace, (), (), kubeconfig, context, definitions=definitions)
    uninstall(plan, dry_run=dry_run, timeout=seconds(timeout, "--timeout"))


def manifests(
    namespace: Release = NAMESPACE,
    set_values: Sets = None,
    values: Files = None,
    definitions: Definitions = True,
) -> None:
    """Print what qd install applies, as YAML for kubectl apply or GitOps."""
    from .installation import Plan, rendered
    from .output import to_yaml

    plan = Plan(namespace, tuple(set_values or ()), tuple(values or ()), definitions=definitions)
    for manifest in rendered(plan):
        print(f"---\n{to_yaml(manifest.body)}", end="")
