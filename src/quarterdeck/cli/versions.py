"""``qd version``: of this program, and of the server when one answers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from quarterdeck import __version__

from .target import As, Context, Kubeconfig, connect, run

_TIMEOUT = 5.0


def register(app: typer.Typer) -> None:
    app.command()(version)


def version(
    client: Annotated[bool, typer.Option("--client", help="Ask no server.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="json or yaml.")] = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Print the version, and that of the server when one runs."""
    if not output and client:
        print(f"quarterdeck {__version__}")
        return
    from quarterdeck.errors import UsageError

    from .output import emit, note, to_json, to_yaml

    if output not in ("", "json", "yaml"):
        raise UsageError(f"--output={output}: must be json or yaml")
    found: dict[str, Any] = {"clientVersion": {"version": __version__, "python": _python()}}
    if not client:
        server, problem = run(_server(kubeconfig, context, as_user))
        if server is None:
            note(f"no server version: {problem}")
        else:
            found["serverVersion"] = server
    if output:
        emit(to_json(found) if output == "json" else to_yaml(found))
        return
    emit(f"quarterdeck {__version__}\n")
    if "serverVersion" in found:
        emit(f"Kubernetes API {found['serverVersion'].get('gitVersion', 'unknown')}\n")


async def _server(kubeconfig: str, context: str, as_user: str) -> tuple[dict[str, Any] | None, str]:
    """The server's /version document, or why there is none."""
    import asyncio

    from quarterdeck.errors import QuarterdeckError

    try:
        async with asyncio.timeout(_TIMEOUT), connect(kubeconfig, context, as_user) as api:
            return await api.request("GET", "/version"), ""
    except TimeoutError:
        return None, f"no answer within {_TIMEOUT:g} s"
    except QuarterdeckError as error:
        return None, str(error)


def _python() -> str:
    import platform

    return platform.python_version()
