"""``qd rollout promote`` and ``qd rollout abort``: what a person decides about an agent's canary.

The decision is an annotation of the Agent, for one attempt and step: repeated or late, it decides nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .complete import kinds as complete_kinds
from .rollout import DryRun, Names
from .target import As, Context, Kubeconfig, Namespace

KindWord = Annotated[str, typer.Argument(help="agent or agent/NAME.", autocompletion=complete_kinds)]
_RUNNING = ("Progressing", "Paused")


def register(group: typer.Typer) -> None:
    group.command()(promote)
    group.command()(abort)


def promote(
    kind: KindWord,
    names: Names = None,
    full: Annotated[bool, typer.Option("--full", help="Pass all steps: the canary is served to everybody.")] = False,
    dry_run: DryRun = "none",
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Let a canary pass its present step."""
    from quarterdeck.translate.objects import PROMOTE

    def value(attempt: str, status: dict[str, Any]) -> tuple[str, str, str]:
        if full:
            return PROMOTE, f"{attempt}/full", "promoted"
        step = int(status.get("step") or 0)
        return PROMOTE, f"{attempt}/{step}", f"promoted past step {step + 1} of {status.get('steps', step + 1)}"

    _decide(kind, names, value, dry_run, (kubeconfig, context, as_user, namespace))


def abort(
    kind: KindWord,
    names: Names = None,
    dry_run: DryRun = "none",
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Give a canary up: what was served before goes on being served until the spec changes."""
    from quarterdeck.translate.objects import ABORT

    def value(attempt: str, status: dict[str, Any]) -> tuple[str, str, str]:
        del status
        return ABORT, attempt, "aborted"

    _decide(kind, names, value, dry_run, (kubeconfig, context, as_user, namespace))


def _decide(kind: str, names: list[str] | None, value: Any, dry_run: str, where: tuple[str, str, str, str]) -> None:
    from .rollout import is_dry, on_each, say
    from .rollouts import Subject

    async def one(subject: Subject) -> None:
        obj = await subject.get()
        status = (obj.get("status") or {}).get("rollout") or {}
        annotation, text, done = value(_attempt(subject, status), status)
        await subject.mark({annotation: text}, dry_run=is_dry(dry_run))
        say(subject, done, dry_run)

    on_each(kind, names, one, where)


def _attempt(subject: Any, status: dict[str, Any]) -> str:
    """The running attempt. Raises ConfigError when none runs."""
    from quarterdeck.errors import ConfigError

    phase = status.get("phase")
    if phase in _RUNNING:
        return f"{status.get('canaryRevision')}@{status.get('startedAt')}"
    if phase == "Aborted":
        raise ConfigError(f"{subject.title}: {status.get('message')}; change the spec to try again")
    if phase == "Promoting":
        raise ConfigError(f"{subject.title} is being promoted already: {status.get('message')}")
    raise ConfigError(
        f"{subject.title} has no canary; set spec.rollout.strategy: Canary and change the spec, then there is one"
    )
