"""``qd trigger``: what starts runs by itself; what a firing would do, and what came of those there were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .target import AllNamespaces, Namespace

group = typer.Typer(help="Triggers: list them, try one, see what fired and what came of it.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="TRIGGER", help="Its name.")]
Output = Annotated[str, typer.Option("--output", "-o", help="json or yaml.")]
Data = Annotated[
    str, typer.Option("--data", "-d", help="What fires it, as JSON (an Event, an alert group, a body), or @FILE.")
]
Headers = Annotated[list[str] | None, typer.Option("--header", "-H", help="NAME: VALUE of a webhook.")]
_HEADER = ["NAMESPACE", "NAME", "SOURCE", "AGENT", "ACTIVE", "STARTED", "SKIPPED", "LIMITED", "LAST", "NEXT", "OUTCOME"]
_FIRINGS = ["AT", "SOURCE", "OUTCOME", "RUN", "STATE", "REASON"]


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="trigger")


@group.command("list")
def list_(
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    output: Output = "",
) -> None:
    """Show the triggers that can fire; 'qd get triggers' has all with their conditions."""
    from .local import part
    from .output import emit, formatted, note, table

    where = "" if everywhere else f"?namespace={part(_namespace(namespace))}"
    found = _ask("GET", f"/v1/triggers{where}")["triggers"]
    if output:
        emit(formatted(found, output))
    elif found:
        emit(table([_row(one) for one in found], header=_HEADER))
    else:
        note("no triggers")


@group.command()
def history(
    name: Name,
    namespace: Namespace = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="The newest so many.")] = 20,
    output: Output = "",
) -> None:
    """Show what a trigger fired, newest first, and what became of the runs."""
    from .output import emit, formatted, note, table

    found = _ask("GET", f"{_path(name, namespace)}/firings?limit={limit}")["firings"]
    if output:
        emit(formatted(found, output))
    elif found:
        rows = [
            [one["at"], one["source"], one["outcome"], one["run"], one["state"] or ("gone" if one["run"] else ""),
             one["reason"] or one["why"]]
            for one in found
        ]  # fmt: skip
        emit(table(rows, header=_FIRINGS))
    else:
        note(f"trigger {name} has not fired")


@group.command()
def test(
    name: Name,
    namespace: Namespace = "",
    data: Data = "",
    header: Headers = None,
    output: Output = "",
) -> None:
    """Say what a firing would do now, and what the agent would be asked. Nothing is started or written."""
    _fire(name, namespace, data, header or [], output, fire=False)


@group.command()
def fire(
    name: Name,
    namespace: Namespace = "",
    data: Data = "",
    header: Headers = None,
    output: Output = "",
) -> None:
    """Fire a trigger by hand, suspended or not; its other rules hold. For those who may update it."""
    _fire(name, namespace, data, header or [], output, fire=True)


def _fire(name: str, namespace: str, data: str, headers: list[str], output: str, *, fire: bool) -> None:
    from .output import emit, formatted

    body: dict[str, Any] = {"fire": fire}
    if data:
        body["payload"] = _payload(data)
    if headers:
        body["headers"] = dict(_header(one) for one in headers)
    told = _ask("POST", f"{_path(name, namespace)}/test", body)
    if output:
        emit(formatted(told, output))
        return
    words = {"Started": "starts a run" if not told["run"] else f"run {told['run']} was started"}
    said = words.get(told["outcome"], told["outcome"])
    emit(f"{said}{': ' + told['reason'] if told['reason'] else ''}\n")
    emit(f"of agent {told['agent']}, in the name of {told['user']}\n")
    if told["message"]:
        emit(f"\n{told['message']}\n")


def _row(one: dict[str, Any]) -> list[str]:
    state = "suspended" if one["suspend"] else "dry run" if one["dryRun"] else one["lastOutcome"]
    counts = (str(one[name]) for name in ("active", "started", "skipped", "limited"))
    return [
        one["namespace"], one["name"], one["source"], one["agent"], *counts, one["lastFiring"] or "-",
        one["nextFiring"] or "-", state or "-",
    ]  # fmt: skip


def _payload(data: str) -> Any:
    """Raises UsageError for what is no JSON or no file."""
    import json

    from quarterdeck.errors import UsageError

    text = data
    if data.startswith("@"):
        try:
            text = Path(data[1:]).read_text()
        except OSError as error:
            raise UsageError(f"--data {data}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"--data {data}: is no text: {error}") from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"--data is no JSON: {error}") from error


def _header(text: str) -> tuple[str, str]:
    from quarterdeck.errors import UsageError

    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"--header {text!r}: must be NAME: VALUE")
    return name.strip().lower(), value.strip()


def _path(name: str, namespace: str) -> str:
    from .local import part

    return f"/v1/triggers/{part(_namespace(namespace))}/{part(name)}"


def _ask(method: str, path: str, body: Any = None) -> dict[str, Any]:
    from .rest import control_plane

    return control_plane(method, path, body)


def _namespace(namespace: str) -> str:
    from .target import agents_namespace

    return agents_namespace(namespace)
