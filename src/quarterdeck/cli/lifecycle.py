"""``qd up``, ``qd down``, ``qd status``, ``qd kubeconfig``: the platform on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(kubeconfig)


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is up; qd down ends it.")] = False,
    kubernetes_port: Annotated[
        int, typer.Option(envvar="QUARTERDECK_KUBERNETES_PORT", help="0 takes a free port.")
    ] = 8703,
    api_port: Annotated[int, typer.Option(envvar="QUARTERDECK_API_PORT")] = 8700,
    kagent_port: Annotated[int, typer.Option(envvar="QUARTERDECK_KAGENT_PORT")] = 8083,
    gateway_port: Annotated[int, typer.Option(envvar="QUARTERDECK_GATEWAY_PORT")] = 8701,
    workloads_port: Annotated[int, typer.Option(envvar="QUARTERDECK_WORKLOADS_PORT")] = 8702,
) -> None:
    """Start the platform and show what it does; Ctrl-C ends it."""
    from .supervise import Ports
    from .up import run

    run(Ports(kubernetes_port, api_port, kagent_port, gateway_port, workloads_port), detach=detach)


def down() -> None:
    """End the platform and everything it runs."""
    from .up import down as end

    end()


def status() -> None:
    """Show what runs, where it listens and what is not ready."""
    from .up import status as show

    show()


def kubeconfig() -> None:
    """Print the path of the kubeconfig file: export KUBECONFIG=$(qd kubeconfig)."""
    from .home import home, kubeconfig_path

    print(kubeconfig_path(home()))
