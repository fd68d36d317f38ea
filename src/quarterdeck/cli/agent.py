"""``qd agent``: talk to agents through the gateway, and make agents of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from . import agent_build
from .complete import agents
from .target import Namespace

group = typer.Typer(help="Talk to agents, and build agents of your own.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Agent, or NAMESPACE/NAME.", autocompletion=agents)]
Session = Annotated[str, typer.Option("--session", help="Go on with this session.")]
Timeout = Annotated[str, typer.Option("--timeout", help="Longest time for one answer.")]


def register(app: typer.Typer) -> None:
    agent_build.register(group)
    app.add_typer(group, name="agent")


@group.command()
def invoke(
    name: Name,
    question: Annotated[str, typer.Argument(help='What to ask; "-" reads standard input.')],
    namespace: Namespace = "",
    output: Annotated[str, typer.Option("--output", "-o", help="json: one document with all that happened.")] = "",
    session: Session = "",
    timeout: Timeout = "10m",
) -> None:
    """Ask an agent one question and print its answer; tool calls go to standard error as they happen."""
    from .conversation import ask_once

    ask_once(name, question, namespace, output=output, session=session, timeout=timeout)


@group.command()
def chat(name: Name, namespace: Namespace = "", session: Session = "", timeout: Timeout = "10m") -> None:
    """Talk with an agent; an empty line or Ctrl-D ends it."""
    from .conversation import talk

    talk(name, namespace, session=session, timeout=timeout)
