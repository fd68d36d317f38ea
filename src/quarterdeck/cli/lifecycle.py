"""``qd up``, ``qd down``, ``qd status``, ``qd kubeconfig``: the platform on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(kubeconfig)


def _port(name: str, help: str | None = None) -> Any:
    return typer.Option(envvar=f"QUARTERDECK_{name}_PORT", min=0, max=65535, help=help)


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is up; qd down ends it.")] = False,
    kubernetes_port: Annotated[int, _port("KUBERNETES", "0 takes a free port.")] = 8703,
    api_port: Annotated[int, _port("API")] = 8700,
    kagent_port: Annotated[int, _port("KAGENT")] = 8083,
    gateway_port: Annotated[int, _port("GATEWAY")] = 8701,
    workloads_port: Annotated[int, _port("WORKLOADS")] = 8702,
) -> None:
    """Start the platform and show what it does; Ctrl-C ends it."""
    from .supervise import Ports
    from .up import run

    run(Ports(kubernetes_port, api_port, kagent_port, gateway_port, workloads_port), detach=detach)


def down() -> None:
    """End the platform and everything it runs."""
    from .up import down as end

    end()


def status(
    output: Annotated[str, typer.Option("--output", "-o", help="json or yaml.")] = "",
    wait: Annotated[str, typer.Option("--wait", help="Wait until it is ready, this long at most.")] = "0",
) -> None:
    """Show what runs, where it listens and what is not ready; exit code 1 when something is not."""
    from .durations import seconds
    from .up import status as show

    show(output, seconds(wait, "--wait"))


def kubeconfig() -> None:
    """Print the path of the kubeconfig file: export KUBECONFIG=$(qd kubeconfig)."""
    from .home import home, kubeconfig_path

    print(kubeconfig_path(home()))
