"""``qd gateway``: serve a configuration file without a control plane, and look after a gateway that runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quarterdeck.gateway.config.standalone import FileOptions

group = typer.Typer(help="Serve a configuration file, or look after a gateway that runs.", invoke_without_command=True)


def register(app: typer.Typer) -> None:
    from . import breakers, revoke, tokens

    breakers.register(group)
    revoke.register(group)
    tokens.register(group)
    app.add_typer(group, name="gateway")


@group.callback()
def gateway(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="agentgateway YAML of 2025 or today, or a client's mcp.json.")
    ] = None,
    inline: Annotated[str, typer.Option("--config", "-c", help="The configuration itself instead of a file.")] = "",
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Check it, without network; exit code 0, or 1 when it is refused.")
    ] = False,
    compat: Annotated[
        str, typer.Option("--compat", help="oct (October 2025) or now; default: told by its fields.")
    ] = "",
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Serve routes without authentication to other machines, too.")
    ] = False,
    admin: Annotated[str, typer.Option("--admin", help="HOST:PORT or off, before the file's adminAddr.")] = "",
    stats: Annotated[str, typer.Option("--stats", help="HOST:PORT or off, before the file's statsAddr.")] = "",
    ready: Annotated[str, typer.Option("--ready", help="HOST:PORT or off, before the file's readinessAddr.")] = "",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Key, audit file, sockets of children.")] = None,
    endpoints_file: Annotated[
        Path | None, typer.Option("--endpoints-file", help="File to write the bound addresses to (JSON).")
    ] = None,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from quarterdeck.errors import UsageError
    from quarterdeck.gateway.config.standalone import file_options

    if file is None and not inline:
        raise UsageError("give a configuration: qd gateway -f FILE, or -c TEXT; see qd gateway --help")
    options = file_options(file, inline, compat, allow_anonymous=allow_anonymous)
    if validate_only:
        validate(options)
        return
    serve(options, {"admin": admin, "stats": stats, "ready": ready}, data_dir, endpoints_file)


def validate(options: FileOptions) -> None:
    """Print what the configuration would serve and what to know about it. Raises ConfigError when it is refused."""
    from quarterdeck.gateway.config.validate import validated

    loaded = validated(options)
    for warning in loaded.warnings:
        print(f"warning: {warning}")
    snapshot = loaded.snapshot
    routes = sum(len(listener.routes) for listener in snapshot.listeners)
    print(
        f"{loaded.name} is valid ({loaded.title}): {len(snapshot.listeners)} listener(s), {routes} route(s), "
        f"{len(snapshot.mcp)} MCP server(s), {len(snapshot.children)} of them run by the gateway"
    )


def serve(options: FileOptions, addresses: dict[str, str], data_dir: Path | None, endpoints_file: Path | None) -> None:
    """Become the gateway's process, without what the command line has loaded."""
    import hashlib
    import os
    import sys

    from .home import home

    name = hashlib.sha256(options.name.encode()).hexdigest()[:12]
    arguments = ["--local=off", "--workloads=off", f"--data-dir={data_dir or home() / 'gateway' / name}"]
    arguments += [f"--{flag}={value}" for flag, value in addresses.items() if value]
    arguments += [f"--endpoints-file={endpoints_file}"] if endpoints_file else []
    arguments += [f"--file={options.path}"] if options.path else [f"--inline={options.inline}"]
    arguments += [f"--compat={options.compat}"] if options.compat else []
    arguments += ["--allow-anonymous"] if options.allow_anonymous else []
    os.execv(sys.executable, [sys.executable, "-m", "quarterdeck.gateway", *arguments])  # noqa: S606 - ourselves
