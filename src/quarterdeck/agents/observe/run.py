"""One run as it is made: its spans, what is counted of it, and what its journal keeps of timings, tokens and cost."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any, Literal

import msgspec

from quarterdeck.errors import QuarterdeckError
from quarterdeck.gateway.audit.otlp import Value
from quarterdeck.telemetry import names
from quarterdeck.telemetry.metrics import Registry

from ..credentials import trace_parent
from ..journal.fold import Story
from ..journal.pause import Pause
from ..model import Message, Reply, ToolCall
from ..tool import Outcome, Tool
from ..untrusted import TAG
from . import redact, spans
from .metrics import Metrics
from .redact import Redactor
from .spans import CLIENT, INTERNAL, Span, Tracer
from .usage import Tokens, cost_of, tokens_of

_CONTENT = 64 * 1024
"""Characters of what is said that one attribute of a span holds."""
_LATE = 3.0
"""Seconds at the end for the collector to take what is left."""


@dataclass(frozen=True, slots=True)
class About:
    """The agent that runs belong to. Prices are of a million tokens."""

    agent: str = "agent"
    """``namespace/name``."""
    model: str = ""
    provider: str = "openai"
    input_price: float = 0.0
    output_price: float = 0.0


class Observer:
    """Of all runs of a replica."""

    def __init__(
        self,
        about: About | None = None,
        tracer: Tracer | None = None,
        registry: Registry | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self.about = about or About()
        self.tracer = tracer or Tracer()
        self.registry = registry or Registry()
        self.redactor = redactor or Redactor()
        self.metrics = Metrics(self.registry, self.tracer)

    @contextmanager
    def run(self, story: Story, *, run: str, task: Mapping[str, Any], user: str, parent: str) -> Generator[Seen]:
        """While a run is worked on here. Calls that are made meanwhile belong to its trace.

        ``parent`` is the ``traceparent`` of what the run was begun by; ``story`` says at the end what became of it.
        """
        trace_id, caller, sampled = self.tracer.join(parent, run)
        began = perf_counter()
        self.metrics.active += 1
        span: Span | None = None
        if sampled:
            span = self.tracer.begin(trace_id, caller, f"invoke_agent {_short(self.about.agent)}", INTERNAL)
            session = str(task.get("contextId", ""))
            span.attributes = [
                (names.OPERATION, "invoke_agent"), (names.PROVIDER, self.about.provider),
                (names.AGENT_ID, self.about.agent), (names.AGENT_NAME, _short(self.about.agent)),
                (names.REQUEST_MODEL, self.about.model), (names.CONVERSATION, session), (names.RUN, run),
                (names.A2A_TASK, str(task.get("id", ""))), (names.USER, user),
            ]  # fmt: skip
        token = trace_parent.set(spans.traceparent(span) if span else parent if caller else self.tracer.root(trace_id))
        seen = Seen(self, span)
        try:
            yield seen
        finally:
            trace_parent.reset(token)
            self.metrics.active -= 1
            self._ended(story, seen, perf_counter() - began)

    def _ended(self, story: Story, seen: Seen, seconds: float) -> None:
        final = story.final
        outcome = str(final["state"]) if final is not None else "waiting" if story.waiting else "left"
        reason = str((final or {}).get("reason") or "")
        if final is not None:
            self.metrics.ended(outcome, reason, max(0.0, time() - story.began) if story.began else seconds)
        span = seen.span
        if span is not None:
            span.attributes += [(names.RUN_OUTCOME, outcome), *_used(seen.total)]
            if seen.cost:
                span.attributes.append((names.RUN_COST_SPENT, seen.cost))
            error = (reason or outcome) if outcome in ("failed", "left") else ""
            if error:
                span.attributes.append((names.ERROR_TYPE, error))
            self.tracer.end(span, error)


@dataclass(slots=True)
class Chat:
    """A model call. :meth:`answered` ends it well."""

    seen: Seen
    span: Span | None
    began: float
    first: float | None = None
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the journal keeps besides the answer: ``{model, took, first?, cost?}``, seconds."""

    def answered(self, reply: Reply) -> None:
        observer = self.seen.observer
        about, took = observer.about, perf_counter() - self.began
        model, tokens = str(getattr(reply, "model", "") or about.model), tokens_of(reply.usage)
        cost = cost_of(tokens, about.input_price, about.output_price)
        self.facts = {"model": model, "took": round(took, 4)}
        if self.first is not None:
            self.facts["first"] = round(self.first, 4)
        if cost:
            self.facts["cost"] = cost
        observer.metrics.model(model, tokens, took, self.first, cost)
        self.seen.spent(tokens, cost)
        if self.span is not None:
            finish = "tool_calls" if reply.calls else "stop"
            self.span.attributes += [
                (names.RESPONSE_MODEL, model), (names.FINISH_REASONS, msgspec.json.encode([finish]).decode()),
                *_used(tokens),
            ]  # fmt: skip
            if self.first is not None:
                self.span.attributes.append((names.FIRST_CHUNK, self.first))
            self.seen.say(self.span, names.OUTPUT_MESSAGES, [_parts(reply.message())])


@dataclass(slots=True)
class Made:
    """A tool call. :meth:`gave` says what came of it."""

    seen: Seen
    span: Span | None
    began: float
    outcome: str = ""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the journal keeps besides the result: ``{took, task?}``."""

    def gave(self, outcome: Outcome) -> None:
        self.outcome = "error" if outcome.failed else "ok"
        self.facts = {"took": round(perf_counter() - self.began, 4)}
        task = str(getattr(outcome, "task", "") or "")
        if task:
            self.facts["task"] = task
        if self.span is not None:
            self.seen.say(self.span, names.TOOL_RESULT, outcome.text)


class Seen:
    """What is seen of one run. ``span`` is None while nobody is told."""

    def __init__(self, observer: Observer, span: Span | None = None) -> None:
        self.observer = observer
        self.span = span
        self.total = Tokens()
        self.cost = 0.0
        self._chat: Chat | None = None

    @contextmanager
    def chat(self, step: int) -> Generator[Chat]:
        """While the model is asked: requests that are made belong to this call's span."""
        about = self.observer.about
        span = self._begin(f"chat {about.model}", CLIENT, step, (names.OPERATION, "chat"))
        if span is not None:
            span.attributes += [(names.PROVIDER, about.provider), (names.REQUEST_MODEL, about.model)]
        chat = self._chat = Chat(self, span, perf_counter())
        try:
            with _below(span):
                yield chat
        except BaseException as error:
            self.observer.metrics.step("model", about.model, "error", perf_counter() - chat.began)
            self._over(span, _problem(error))
            raise
        finally:
            self._chat = None
        self._over(span)

    def asked(self, messages: list[Message]) -> None:
        """What the model is asked, where that may leave the host."""
        if self._chat is not None and self._chat.span is not None and self.observer.tracer.content:
            self.say(self._chat.span, names.INPUT_MESSAGES, [_parts(message) for message in messages])

    def text(self) -> None:
        """A piece of the model's text has come."""
        chat = self._chat
        if chat is not None and chat.first is None:
            chat.first = perf_counter() - chat.began

    @contextmanager
    def tool(self, step: int, call: ToolCall, tool: Tool | None) -> Generator[Made]:
        """While a tool is called."""
        span = self._begin(f"execute_tool {call.name}", INTERNAL, step, (names.OPERATION, "execute_tool"))
        if span is not None:
            span.attributes += [
                (names.TOOL_NAME, call.name),
                (names.TOOL_TYPE, "function"),
                (names.TOOL_CALL_ID, call.id),
            ]
            if tool is not None and tool.server:
                span.attributes += [(names.MCP_METHOD, "tools/call"), (names.MCP_TARGET, tool.server)]
            self.say(span, names.TOOL_ARGUMENTS, call.arguments)
        made = Made(self, span, perf_counter())
        name = call.name if tool is not None else "unknown"
        try:
            with _below(span):
                yield made
        except BaseException as error:
            outcome = "waiting" if isinstance(error, Pause) else "error"
            self.observer.metrics.step("tool", name, outcome, perf_counter() - made.began)
            self._over(span, _problem(error))
            raise
        self.observer.metrics.step("tool", name, made.outcome, perf_counter() - made.began)
        self._over(span, "tool_error" if made.outcome == "error" else "")

    def spent(self, tokens: Tokens, cost: float) -> None:
        before = self.total
        self.total = Tokens(before.input + tokens.input, before.output + tokens.output, before.cached + tokens.cached)
        self.cost += cost

    def say(self, span: Span, name: str, value: Any) -> None:
        """What was said, redacted, where it may leave the host at all."""
        if self.observer.tracer.content:
            clean = self.observer.redactor.text(value) if isinstance(value, str) else self._clean(value)
            span.attributes.append((name, clean[:_CONTENT]))

    def _clean(self, value: Any) -> str:
        redactor = self.observer.redactor
        shown = redactor.value(value) if isinstance(value, dict) else redactor.data(value)
        return msgspec.json.encode(shown).decode()

    def _begin(self, name: str, kind: Literal[1, 3], step: int, operation: tuple[str, Value]) -> Span | None:
        if self.span is None:
            return None
        span = self.observer.tracer.begin(self.span.trace_id, self.span.span_id, name, kind)
        span.attributes = [operation, (names.AGENT_ID, self.observer.about.agent), (names.STEP, step)]
        return span

    def _over(self, span: Span | None, problem: str = "") -> None:
        if span is not None:
            if problem:
                span.attributes.append((names.ERROR_TYPE, problem))
            self.observer.tracer.end(span, problem)


class Hosted:
    """The observer of an agent's process, and the task that sends its spans."""

    def __init__(self, about: About, env: Mapping[str, str]) -> None:
        """Raises ConfigError for variables that mean nothing."""
        self._tracer, self._target = spans.configured(env, _short(about.agent))
        self.observer = Observer(about, self._tracer, Registry(), redact.configured())
        self._sending: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._tracer.exporter is not None:
            self._sending = asyncio.get_running_loop().create_task(self._tracer.exporter.run(), name="spans")

    async def stop(self) -> None:
        """Give the collector a moment to take what is left."""
        if self._sending is None or self._tracer.exporter is None or self._target is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LATE):
                await self._tracer.exporter.drained()
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)
        self._target.close()


@contextmanager
def _below(span: Span | None) -> Generator[None]:
    """What is called now is called by ``span``."""
    if span is None:
        yield
        return
    token = trace_parent.set(spans.traceparent(span))
    try:
        yield
    finally:
        trace_parent.reset(token)


def _problem(error: BaseException) -> str:
    """In one word; empty for a call that waits for somebody."""
    if isinstance(error, Pause):
        return ""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return error.reason if isinstance(error, QuarterdeckError) else type(error).__name__


def _used(tokens: Tokens) -> list[tuple[str, Value]]:
    found: list[tuple[str, Value]] = [(names.INPUT_TOKENS, tokens.input), (names.OUTPUT_TOKENS, tokens.output)]
    return [*found, (names.CACHED_TOKENS, tokens.cached)] if tokens.cached else found


def _parts(message: Message) -> dict[str, Any]:
    """A chat message as GenAI's conventions write it: ``{role, parts: [{type, …}]}``; of what is no text, its kind."""
    role, content = message["role"], message.get("content")
    said: list[dict[str, Any]] = content if isinstance(content, list) else []
    text = content if isinstance(content, str) else "\n".join(str(p["text"]) for p in said if "text" in p)
    if role == "tool":
        inner = _inner(text)
        return {
            "role": role,
            "parts": [{"type": "tool_call_response", "id": message.get("tool_call_id", ""), "result": inner}],
        }
    parts: list[dict[str, Any]] = [{"type": "text", "content": text}] if text else []
    parts += [{"type": str(part.get("type", ""))} for part in said if "text" not in part]
    for call in message.get("tool_calls") or []:
        function = call["function"]
        parts.append(
            {"type": "tool_call", "id": call["id"], "name": function["name"], "arguments": function["arguments"]}
        )
    return {"role": role, "parts": parts}


def _inner(text: str) -> str:
    """A tool's result without the mark that it is nobody's word, so that JSON in it is seen."""
    return text.partition("\n")[2].rpartition("\n")[0] if text.startswith(f"<{TAG} ") else text


def _short(agent: str) -> str:
    return agent.rpartition("/")[2]


NOBODY = Seen(Observer())
"""For runs that nobody wants to know about."""
