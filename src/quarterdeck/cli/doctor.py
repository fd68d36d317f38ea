"""``qd doctor``: what on this machine keeps the platform from working, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(output: Annotated[str, typer.Option("--output", "-o", help="json")] = "") -> None:
    """Check this machine; exit code 1 when something must be repaired."""
    from quarterdeck.errors import UsageError

    from .checks import examine
    from .output import emit, to_json

    if output not in ("", "json"):
        raise UsageError(f"--output={output}: must be json")
    findings = examine()
    if output:
        emit(to_json([finding.document() for finding in findings]))
    else:
        emit("".join(finding.text() for finding in findings))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
