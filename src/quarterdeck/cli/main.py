"""``quarterdeck``, short ``qd``: the command line. Commands import what they need when they run."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from quarterdeck.errors import QuarterdeckError

app = typer.Typer(
    name="qd",
    help="Run AI agents and MCP servers: one API on a laptop and on Kubernetes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich alone would cost a third of the start-up budget
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["QUARTERDECK_DEBUG"] = "1"


def register() -> None:
    """Attach the command groups. Their modules import only typer at load."""
    from . import (
        agent,
        apply,
        approvals,
        audit,
        canary,
        demo,
        doctor,
        explain,
        gateway,
        get,
        inspect,
        install,
        lifecycle,
        logs,
        mcp,
        memory,
        migrate,
        rollout,
        run,
        tools,
        trigger,
        versions,
    )

    lifecycle.register(app)
    install.register(app)
    get.register(app)
    inspect.register(app)
    explain.register(app)
    apply.register(app)
    agent.register(app)
    approvals.register(app)
    tools.register(app)
    audit.register(app)
    logs.register(app)
    doctor.register(app)
    versions.register(app)
    mcp.register(app)
    gateway.register(app)
    memory.register(app)
    migrate.register(app)
    run.register(app)
    trigger.register(app)
    rollout.register(app)
    canary.register(rollout.group)
    demo.register(app)


def fail(error: BaseException) -> NoReturn:
    """Print an error the way every command does and leave with its exit code."""
    if os.environ.get("QUARTERDECK_DEBUG"):
        raise error
    if isinstance(error, KeyboardInterrupt):
        sys.exit(130)
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    from .output import note

    if isinstance(error, QuarterdeckError):
        refused = error.reason == str(error) == "Unauthorized"  # all that an API server says
        note(f"error: {'you must be logged in to the server: it does not take the credentials' if refused else error}")
        sys.exit(error.exit_code)
    if isinstance(error, OSError):
        note(f"error: {error.filename or 'input/output'}: {error.strerror}")
        sys.exit(1)
    note(f"error: {type(error).__name__}: {error} (a defect; run again with --debug and report it)")
    sys.exit(1)


def main() -> None:
    """Entry point of ``quarterdeck`` and ``qd``."""
    register()
    try:
        app()
    except Exception as error:  # noqa: BLE001 - the outermost frame: every error becomes a message and an exit code
        fail(error)
    except KeyboardInterrupt as error:
        fail(error)


def plugin() -> None:
    """Entry point of ``kubectl-qd``: the same commands behind ``kubectl qd``."""
    main()
