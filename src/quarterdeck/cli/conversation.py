"""The work behind ``qd agent invoke`` and ``qd agent chat``."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.errors import NeedsApproval, QuarterdeckError, TimedOut, UpstreamError, UsageError
from quarterdeck.wire.client import Pool

from .a2a import A2aClient, Answer, Asked, Event, Status, Text, ToolAnswered, ToolCalled, ToolsMissing
from .durations import seconds
from .local import gateway_headers, gateway_url, part
from .output import emit, note, to_json
from .target import agents_namespace

_FAILED = ("TASK_STATE_FAILED", "TASK_STATE_REJECTED", "TASK_STATE_CANCELED")
_WAITING = ("TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED")
_RESULT_LIMIT = 400


class Waits(NeedsApproval):
    """The task waits for its user; ``turn`` says which, and for what."""

    def __init__(self, message: str, turn: Turn) -> None:
        super().__init__(message)
        self.turn = turn


class TaskFailed(UpstreamError):
    """The agent ended the task without an answer."""

    reason = "TaskFailed"


@dataclass(slots=True)
class Turn:
    """What one question led to."""

    answer: str = ""
    session: str = ""
    task: str = ""
    state: str = ""
    message: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    streamed: bool = False
    asked: Asked | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, Asked):
            self.asked = event
        elif isinstance(event, Text):
            self.streamed = True
        elif isinstance(event, ToolCalled):
            self.calls.append({"id": event.id, "name": event.name, "arguments": event.arguments})
        elif isinstance(event, ToolAnswered):
            for call in self.calls:
                if call["id"] == event.id:
                    call.update(result=event.text, isError=event.failed)
        elif isinstance(event, Answer):
            self.answer = event.text or self.answer
        elif isinstance(event, Status):
            self.session, self.task = event.session or self.session, event.task or self.task
            self.state, self.message = event.state or self.state, event.message


def ask_once(name: str, question: str, namespace: str, *, output: str, session: str, timeout: str) -> None:
    """One question. Raises Denied, NeedsApproval, TimedOut, TaskFailed; the message carries the trace id."""
    if output not in ("", "json"):
        raise UsageError(f"--output={output}: must be json")
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise UsageError("the question is empty")
    limit = seconds(timeout, "--timeout")

    async def work() -> tuple[Turn, str]:
        pool = Pool()
        client = A2aClient(pool, _url(name, namespace), gateway_headers())
        try:
            return await _turn(client, text, session, limit, _quiet if output else show_tools), client.trace_id
        finally:
            pool.close()

    turn, trace = asyncio.run(work())
    if output:
        document = {
            "answer": turn.answer,
            "state": turn.state,
            "sessionId": turn.session,
            "taskId": turn.task,
            "traceId": trace,
            "toolCalls": turn.calls,
        }
        emit(to_json(document))
    else:
        emit(turn.answer.rstrip("\n") + "\n")


def talk(name: str, namespace: str, *, session: str, timeout: str) -> None:
    """A conversation on the terminal, or of one question a line from a pipe. An error ends the turn, not the chat."""
    url = _url(name, namespace)
    limit = seconds(timeout, "--timeout")
    terminal = sys.stdin.isatty()
    failed: QuarterdeckError | None = None
    with asyncio.Runner() as runner:
        pool = Pool()
        client = A2aClient(pool, url, gateway_headers())
        waiting, decision = "", None
        while (line := "" if decision is not None else _line(terminal)) is not None:
            try:
                turn = runner.run(_turn(client, line, session, limit, _show_all, waiting, decision))
                session, waiting, decision = turn.session, "", None
                emit("\n" if turn.streamed else turn.answer.rstrip("\n") + "\n")
                failed = None
            except Waits as error:
                session, waiting = error.turn.session, error.turn.task
                decision = _decision(error) if terminal else None
                failed = error
            except QuarterdeckError as error:
                note(f"error: {error}")
                failed, waiting, decision = error, "", None

        async def close() -> None:
            pool.close()

        runner.run(close())
    if session and terminal:
        note(f"to go on: qd agent chat {name} --session {session}")
    if failed is not None and not terminal:
        sys.exit(failed.exit_code)


def _decision(waits: Waits) -> dict[str, Any] | None:
    """What the person says of a call that waits; None: the next line is the answer."""
    asked = waits.turn.asked
    note(str(waits))
    if asked is None or asked.tool == "ask_user":
        return None
    note(f"  {asked.tool} {json.dumps(asked.arguments, ensure_ascii=False)}")
    try:
        said = input("approve this call? [y/N, or why not] ").strip()
    except EOFError:
        said = ""
    if said.lower() in ("y", "yes"):
        return {"decision_type": "approve"}
    reason = {} if said.lower() in ("", "n", "no") else {"rejection_reason": said}
    return {"decision_type": "reject", **reason}


def _line(terminal: bool) -> str | None:
    """The next question; None when there is no more."""
    if terminal:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # gives input() line editing and history
        try:
            line = input("> ")
        except EOFError:
            note("")
            return None
        return line if line.strip() else None
    for line in sys.stdin:
        if line.strip():
            return line.strip()
    return None


def _url(name: str, namespace: str) -> str:
    where, slash, rest = name.partition("/")
    if slash and where != "agent":
        namespace = where
    return f"{gateway_url()}/a2a/{part(agents_namespace(namespace))}/{part(rest or where)}/"


async def _turn(
    client: A2aClient, text: str, session: str, limit: float, show: Any, task: str = "", data: Any = None
) -> Turn:
    """Ask and show. At the deadline, and on Ctrl-C, the task is cancelled at the agent."""
    turn = Turn(session=session)
    try:
        async with asyncio.timeout(limit or None):
            async for event in client.ask(text, session, task, data):
                turn.take(event)
                show(event)
    except TimeoutError:
        trace = client.trace_id
        await _cancel(client, turn)
        ended = "; the task was cancelled" if turn.task else ""
        raise TimedOut(f"no answer within {limit:g} s{ended} (trace {trace})") from None
    except asyncio.CancelledError:
        await _cancel(client, turn)
        raise
    except QuarterdeckError as error:
        if client.trace_id and not getattr(error, "message", ""):
            error.args = (f"{error} (trace {client.trace_id})",)
        raise
    return _checked(turn, client)


def _checked(turn: Turn, client: A2aClient) -> Turn:
    suffix = f" (trace {client.trace_id})"
    if turn.state in _WAITING:
        raise Waits((turn.message or "the agent waits for an approval") + suffix, turn)
    if turn.state in _FAILED:
        ended = turn.state.removeprefix("TASK_STATE_").lower()
        ended = ended if ended == "failed" else f"was {ended}"
        raise TaskFailed(f"the task {ended}: {turn.message or 'the agent gave no reason'}{suffix}")
    if turn.state and turn.state != "TASK_STATE_COMPLETED":
        raise TaskFailed(f"the stream ended while the task was {turn.state}{suffix}")
    return turn


async def _cancel(client: A2aClient, turn: Turn) -> None:
    if turn.task:
        with contextlib.suppress(QuarterdeckError, TimeoutError):
            async with asyncio.timeout(5):
                await client.cancel(turn.task)


def _quiet(event: Event) -> None:
    """Only what a script's log should have too."""
    if isinstance(event, ToolsMissing):
        note(f"warning: the tools of {event.server} are not available now: {event.reason}")


def show_tools(event: Event) -> None:
    if isinstance(event, ToolCalled):
        note(f"→ {event.name} {json.dumps(event.arguments, ensure_ascii=False)}")
    elif isinstance(event, ToolAnswered):
        text = event.text if len(event.text) <= _RESULT_LIMIT else event.text[:_RESULT_LIMIT] + " …"
        note(f"← {'error: ' if event.failed else ''}{text}")
    else:
        _quiet(event)


def _show_all(event: Event) -> None:
    if isinstance(event, Text):
        emit(event.text)
    elif not isinstance(event, Answer | Asked | Status):
        show_tools(event)
