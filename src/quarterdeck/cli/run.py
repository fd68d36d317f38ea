"""``qd run``: what agents do for somebody, step by step; how to end it, answer it, and do it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .target import AllNamespaces, Namespace

if TYPE_CHECKING:
    from quarterdeck.snapshot.runs import Event

    from .run_tree import Transcript

group = typer.Typer(
    help="Runs of agents: their steps, what they used; answer, cancel, retry, fork.", no_args_is_help=True
)
Ident = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of a run, or of its A2A task; or the name that kubectl get runs shows.")
]
Agent = Annotated[str, typer.Option("--agent", "-a", help="Of this agent, NAME or NAMESPACE/NAME.")]
Output = Annotated[str, typer.Option("--output", "-o", help="json or yaml.")]
Step = Annotated[int, typer.Option("--step", help="The first step that is made anew; see 'qd run show'.")]
STATES = ("pending", "running", "waiting", "completed", "failed", "canceled")
_HEADER = ["RUN", "AGENT", "USER", "STATE", "REASON", "STEPS", "TOOLS", "AGE", "MESSAGE"]


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="run")


@group.command("list")
def list_(
    agent: Agent = "",
    user: Annotated[str, typer.Option("--user", help="For this user.")] = "",
    state: Annotated[str, typer.Option("--state", help=f"{', '.join(STATES)}; several with commas.")] = "",
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="The newest so many.")] = 50,
    output: Output = "",
) -> None:
    """Show the newest runs of a namespace's agents, or of one."""
    from quarterdeck.errors import UsageError

    from .output import emit, formatted, note, table
    from .target import whose

    if wrong := [word for word in state.split(",") if state and word not in STATES]:
        raise UsageError(f"--state={wrong[0]}: must be {', '.join(STATES[:-1])} or {STATES[-1]}; several with commas")
    query = {"user": user, "state": state, "limit": str(limit)} | whose(agent, namespace, everywhere)
    found = _ask("GET", _query(query))["runs"]
    if output:
        emit(formatted(found, output))
    elif found:
        emit(table([_row(run) for run in found], header=_HEADER))
    else:
        note("no runs")


@group.command()
def show(
    run: Ident,
    full: Annotated[bool, typer.Option("--full", help="Do not cut texts.")] = False,
    redact: Annotated[
        list[str] | None, typer.Option("--redact", help="JSON pointer (/a/*/b) or key pattern (*pin*) not to show.")
    ] = None,
    namespace: Namespace = "",
    output: Output = "",
) -> None:
    """Draw the tree of a run's steps with timings, tokens, cost, tool arguments and results, and the runs that other
    agents made for it.

    Members whose names say that they are secret are never shown, nor what $QUARTERDECK_REDACT of the control plane
    names.
    """
    from quarterdeck.agents.observe.redact import Redactor

    from .output import emit, formatted
    from .run_tree import as_data, tree

    transcript, redactor = _transcript(_known(run, namespace), frozenset()), Redactor(redact or ())
    emit(
        formatted(as_data(transcript, redactor, full=full), output) if output else tree(transcript, redactor, full=full)
    )


def _transcript(ident: str, above: frozenset[str]) -> Transcript:
    """A run with what hangs below it. ``above``: runs that lead here."""
    from quarterdeck.errors import Forbidden, NotFound

    from .run_tree import Transcript, asked_of

    found = _ask("GET", f"/{_part(ident)}/events")
    events = _events(found)
    made = Transcript(found["run"], events)
    known = above | {found["run"]["id"], found["run"]["task"]}
    for step, task in asked_of(events).items() if len(above) < 2 * _DEPTH else ():
        if task not in known:
            try:
                made.below[step] = _transcript(task, known)
            except (NotFound, Forbidden) as error:
                made.below[step] = f"its run cannot be shown: {error}"
    return made


@group.command()
def usage(
    by: Annotated[
        str, typer.Option("--by", help="agent, namespace, user, model, source, run, day; or step, with --run.")
    ] = "agent,model",
    since: Annotated[str, typer.Option("--since", help="24h, 7d, or a time such as 2026-11-01T00:00:00Z.")] = "",
    until: Annotated[str, typer.Option("--until", help="The same; the end of the range.")] = "",
    agent: Agent = "",
    user: Annotated[str, typer.Option("--user", help="For this user.")] = "",
    model: Annotated[str, typer.Option("--model", help="With this model.")] = "",
    run: Annotated[str, typer.Option("--run", help="Of this run.")] = "",
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    output: Output = "",
) -> None:
    """Show tokens and cost of runs, summed up: of a namespace's agents, of one, or of one run."""
    from quarterdeck.errors import UsageError

    from .output import emit, formatted, note, table
    from .target import whose

    if by == "step" and not run:
        raise UsageError("--by step: say of which run, with --run RUN; see: qd run list")
    query = {
        "by": by, "from": _when(since, "--since"), "to": _when(until, "--until"), "user": user, "model": model,
    }  # fmt: skip
    query |= {"run": _known(run, namespace)} if run else whose(agent, namespace, everywhere)
    found = _ask("GET", _query(query), base="/v1/usage")
    if output:
        emit(formatted(found, output))
    elif not found["rows"]:
        note("nothing was used")
    else:
        emit(table([_used(row, found["by"]) for row in found["rows"]], header=[*map(str.upper, found["by"]), *_USED]))


def _query(wanted: dict[str, str]) -> str:
    from urllib.parse import urlencode

    return "?" + urlencode({name: value for name, value in wanted.items() if value})


_DEPTH = 10
_USED = ["RUNS", "CALLS", "INPUT", "CACHED", "OUTPUT", "COST"]


def _used(row: dict[str, Any], by: list[str]) -> list[str]:
    if by == ["step"]:  # of one run
        row = row | {"step": f"{row['step']} {row['model']}"}
    counts = [str(row.get(name, 1)) for name in ("runs", "calls", "inputTokens", "cachedTokens", "outputTokens")]
    return [*(str(row[name]) for name in by), *counts, f"{row['cost']:.4g}" if row["cost"] else "-"]


def _when(text: str, option: str) -> str:
    """A time of the past by how long ago it was; a time as it is."""
    from time import time

    from .durations import seconds

    if not text or (text[:4].isdigit() and "-" in text):
        return text
    return f"{time() - seconds(text, option):.3f}"


@group.command()
def watch(run: Ident, namespace: Namespace = "") -> None:
    """Print each event of a run until it has ended, or waits for somebody."""
    import time

    from .output import emit

    after, ident = 0, _known(run, namespace)
    while True:
        found = _ask("GET", f"/{_part(ident)}/events?after={after}")
        for event in _events(found):
            after = event.seq
            line = _line(event)
            if line:
                emit(line + "\n")
        if found["run"]["state"] not in ("pending", "running"):
            emit(f"{found['run']['state']} {found['run']['reason']}".strip() + "\n")
            return
        time.sleep(0.5)


@group.command()
def start(
    agent: Annotated[str, typer.Argument(help="Agent, or NAMESPACE/NAME.")],
    text: Annotated[str, typer.Argument(help="What it shall do.")],
    session: Annotated[str, typer.Option("--session", help="A conversation that goes on.")] = "",
    namespace: Namespace = "",
) -> None:
    """Begin a run that nobody waits for; any replica of the agent takes it."""
    from .target import agent_name

    body = {"agent": agent_name(agent, namespace), "text": text} | ({"session": session} if session else {})
    _begun(_ask("POST", "", body))


@group.command()
def cancel(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="As of the other commands; several.")],
    namespace: Namespace = "",
) -> None:
    """End runs; the cancellation reaches the tool that is being called."""
    from .output import emit

    for run in runs:
        emit(f"run {_ask('POST', f'/{_part(_known(run, namespace))}/cancel', {})['id']} is being canceled\n")


@group.command()
def resume(
    run: Ident,
    repeat: Annotated[bool, typer.Option("--repeat", help="Make the call of unknown outcome again.")] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Go on without it.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="End the run.")] = False,
    answer: Annotated[str, typer.Option("--answer", help="A text, where the agent asked for one.")] = "",
    namespace: Namespace = "",
) -> None:
    """Let a run go on that waits: for a word about a call of unknown outcome, or for an answer."""
    from quarterdeck.errors import UsageError

    from .output import emit

    given = [word for word, wanted in (("repeat", repeat), ("skip", skip), ("fail", fail)) if wanted]
    if len(given) + bool(answer) != 1:
        raise UsageError("give exactly one of --repeat, --skip, --fail and --answer")
    ident = _known(run, namespace)
    found = _ask("GET", f"/{_part(ident)}/events")
    asked = next((event for event in reversed(_events(found)) if event.kind == "waiting"), None)
    step = asked.step if asked is not None else 0
    data = {"action": given[0]} if given else {"text": answer}
    emit(f"run {_ask('POST', f'/{_part(ident)}/answer', {'step': step, 'data': data})['id']} goes on\n")


@group.command()
def retry(run: Ident, step: Step = 1, namespace: Namespace = "") -> None:
    """Make a run again that has ended: the steps before --step stay as they were."""
    _again(_known(run, namespace), "retry", step)


@group.command()
def fork(run: Ident, step: Step = 1, namespace: Namespace = "") -> None:
    """The same in a conversation of its own that branches off before --step."""
    _again(_known(run, namespace), "fork", step)


def _again(run: str, how: str, step: int) -> None:
    _begun(_ask("POST", f"/{_part(run)}/{how}", {"step": step}))


def _begun(run: dict[str, Any]) -> None:
    from .output import emit

    emit(f"run {run['id']} begun; see: qd run show {run['id']}\n")


def _known(run: str, namespace: str) -> str:
    """The id of a run that may be given by the name of its object, NAME or NAMESPACE/NAME; else what was given."""
    import contextlib
    from uuid import UUID

    from quarterdeck.errors import QuarterdeckError
    from quarterdeck.kube.resource import Resource

    from .target import agents_namespace, connect
    from .target import run as work

    with contextlib.suppress(ValueError):
        UUID(run)
        return run
    space, _, name = run.rpartition("/")
    if not name:
        return run

    async def looked_up() -> str:
        kind = Resource("quarterdeck.dev", "v1alpha1", "Run", "runs")
        async with connect() as client:
            found = await client.get(kind, name, space or agents_namespace(namespace))
        return str((found.get("status") or {}).get("run") or run)

    try:
        return work(looked_up())
    except QuarterdeckError:
        if space:
            raise
        return run  # it may be a task's id, which its agent chose


def _ask(method: str, path: str, body: Any = None, *, base: str = "/v1/runs") -> dict[str, Any]:
    from .rest import control_plane

    return control_plane(method, f"{base}{path}", body)


def _events(found: dict[str, Any]) -> list[Event]:
    import msgspec

    from quarterdeck.snapshot.runs import Event

    return msgspec.convert(found["events"], list[Event])


def _line(event: Event) -> str:
    from datetime import datetime

    data, when = event.data, datetime.fromtimestamp(event.at).astimezone().strftime("%H:%M:%S")
    said = {
        "leased": lambda: f"at {data['replica']}",
        "model.result": lambda: str(data["message"].get("content") or "")[:100],
        "tool.intent": lambda: data["name"],
        "tool.result": lambda: f"{data['name']} {'failed' if data.get('failed') else 'done'}",
        "waiting": lambda: data["reason"],
        "answer": lambda: f"by {data.get('by', '?')}",
        "cancel": lambda: f"by {data.get('by', '?')}",
        "final": lambda: str(data.get("text", ""))[:100],
    }.get(event.kind)
    if event.kind == "checkpoint":
        return ""
    step = f"{event.step}." if event.step else "-"
    return f"{when} {step:>4} {event.kind:<13} {said() if said is not None else ''}".rstrip()


def _row(run: dict[str, Any]) -> list[str]:
    from time import time

    from quarterdeck.apiserver.crd.columns import human_duration

    summary = run["summary"]
    said = " ".join(summary.get("text", "").split())
    return [
        run["id"], run["agent"], run["user"], run["state"], run["reason"] or "-", str(summary.get("steps", 0)),
        str(summary.get("toolCalls", 0)), human_duration(int(time() - run["createdAt"])), said[:40],
    ]  # fmt: skip


def _part(text: str) -> str:
    from .local import part

    return part(text)
