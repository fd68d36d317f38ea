"""Steps of a run: each is found in the journal, or written there before and after it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from time import time
from typing import Any

from quarterdeck.mcptypes.canonical import arguments_hash

from ..context import paging
from ..context.paging import Pages, essence
from ..model import Message, Reply, ToolCall
from ..observe.run import NOBODY, Seen
from ..tool import Context, Outcome, Tool
from ..toolbox import Uncertain, Unsent, carry_out
from .asking import asked
from .asking import check as check_reply
from .fold import UNKNOWN, Ask, Decision, Do, Fail, OnUnknown, Settle, Stay, Use, decide
from .journal import Draft, Journal
from .limits import Budget, Loops, Used, check
from .pause import Pause, Paused, RunFailed

_ATTEMPTS = 5
_AWAY = 18
_AGAIN, _LONGEST = 1.0, 8.0
"""Attempts at a call that breaks off and may be repeated, and at one that found no gateway; the pauses between them
grow by so many seconds up to the longest."""


MALFORMED = 3
"""So many answers in a row with a call that cannot be read end a run; before that the model is told what is wrong."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an agent's configuration says about its runs. ``repeat`` names tools that may be called twice."""

    budget: Budget = field(default_factory=lambda: Budget.model_validate({}))
    on_unknown: OnUnknown = "Ask"
    repeat: frozenset[str] = frozenset()
    pages: Pages = field(default_factory=Pages)


@dataclass(slots=True)
class _Planned:
    """One tool call of an answer, and what the journal says to do about it."""

    step: int
    call: ToolCall
    tool: Tool | None
    decision: Decision
    hash: str = ""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """What was seen of the call: how long it took."""


class Steps:
    """Makes the steps of one run."""

    def __init__(
        self,
        journal: Journal,
        rules: Rules,
        context: Context,
        seen: Seen = NOBODY,
        *,
        clock: Callable[[], float] = time,
        goes_on: Callable[[], bool] = lambda: False,
    ) -> None:
        self.seen = seen
        self._journal = journal
        self._rules = rules
        self._context = context
        self._clock = clock
        self._loops = Loops()
        self._under_way = 0
        self._goes_on = goes_on
        for known in journal.story.steps.values():
            if known.phase == "done" and known.result.get("hash"):
                said = essence(str(known.result["message"]["content"]))
                self._loops.note(known.result["name"], known.result["hash"], said)

    def known(self, step: int) -> bool:
        """Whether the journal has the step's result: nothing is asked for it any more."""
        return self._journal.story.step(step).phase == "done"

    async def model(self, step: int, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """A model call; asking twice does no harm. Raises what ``ask`` raises, BudgetExceeded, Fenced."""
        known = self._journal.story.step(step)
        decision = decide(known, repeatable=True)
        if isinstance(decision, Use):
            return reply_of(decision.result)
        self._check({step})
        if known.phase == "intended" and known.fence == self._journal.fence:
            await self._journal.flush()  # its intent was written with the run
        else:
            await self._journal.append(Draft("model.intent", step, {}))
        with self.seen.chat(step) as chat:
            reply = await asked(ask)
            chat.answered(reply)
        self._journal.defer("model.result", step, result_of(reply) | chat.facts)
        check_reply(reply)
        return reply

    async def tools(self, first: int, calls: Sequence[ToolCall], tools: Mapping[str, Tool]) -> list[Message]:
        """The calls of one answer, side by side: the steps from ``first``. Results in the order asked.

        Raises Paused when one of them waits for somebody, RunFailed, Fenced.
        """
        planned = [self._plan(first + i, call, tools) for i, call in enumerate(calls)]
        failed = next((p.decision for p in planned if isinstance(p.decision, Fail)), None)
        if failed is not None:
            raise RunFailed(UNKNOWN, failed.text)
        new = [p for p in planned if isinstance(p.decision, Do)]
        self._check({p.step for p in new}, tool_calls=len(new))
        await self._journal.append(*(self._intent(p) for p in new))
        self._under_way = len(planned)
        made = await asyncio.gather(*(self._make(p, tools) for p in planned), return_exceptions=True)
        for outcome in made:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Pause):
                raise outcome
        for plan, outcome in zip(planned, made, strict=True):
            if isinstance(outcome, Pause):
                await self._pause(plan.step, outcome)
        messages = [message for message in made if isinstance(message, dict)]
        self._check_calls(first, calls)
        for plan, message in zip(planned, messages, strict=True):
            if not isinstance(plan.decision, Use):
                self._loops.saw(plan.call.name, plan.hash, essence(str(message.get("content"))))
        return messages

    def _check_calls(self, first: int, calls: Sequence[ToolCall]) -> None:
        """Raises RunFailed at the third answer in a row in which a call cannot be read."""
        broken = next((call for call in calls if call.problem), None)
        steps = self._journal.story.steps
        before = [steps[n].result["calls"] for n in sorted(steps, reverse=True)
                  if n < first - 1 and "calls" in steps[n].result]  # fmt: skip
        last = before[: MALFORMED - 1]
        if broken is None or len(last) < MALFORMED - 1 or not all(any(c.get("problem") for c in cs) for cs in last):
            return
        text = f"malformed_tool_call: the model wrote {MALFORMED} calls in a row that cannot be read; the last, of "
        raise RunFailed("malformed_tool_call", f"{text}{broken.name}: {broken.problem}")

    def _plan(self, step: int, call: ToolCall, tools: Mapping[str, Tool]) -> _Planned:
        tool = tools.get(call.name)
        known = self._journal.story.step(step)
        repeatable = call.name in self._rules.repeat or (tool is not None and tool.repeatable)
        # another agent's task is looked at again, or asked for by the same message, which makes no second one
        repeatable = repeatable or bool(known.task) or self._clock() - known.at < getattr(tool, "same_for", 0.0)
        decision = decide(known, repeatable=repeatable, on_unknown=self._rules.on_unknown)
        try:
            digest = arguments_hash(call.arguments)
        except ValueError as error:
            call, digest = replace(call, problem=f"the arguments cannot be sent: {error}"), ""
        return _Planned(step, call, tool, decision, digest)

    def _intent(self, plan: _Planned) -> Draft:
        call, tool = plan.call, plan.tool
        known = self._journal.story.step(plan.step)
        attempt = known.attempts + 1 if known.fence == self._journal.fence else 1
        data: dict[str, Any] = {
            "id": call.id, "name": call.name, "arguments": call.arguments, "hash": plan.hash, "attempt": attempt,
        }  # fmt: skip
        if tool is not None and tool.server and not call.problem:
            data |= {"tool": tool.upstream, "server": tool.server}
        return Draft("tool.intent", plan.step, data)

    async def _make(self, plan: _Planned, tools: Mapping[str, Tool]) -> Message:
        try:
            return await self._made(plan, tools)
        finally:
            self._under_way -= 1

    async def _made(self, plan: _Planned, tools: Mapping[str, Tool]) -> Message:
        """The message with the call's result. Raises Pause."""
        decision = plan.decision
        if isinstance(decision, Use):
            return decision.result["message"]
        if isinstance(decision, Stay):
            raise Paused
        if isinstance(decision, Ask):
            raise unknown(plan.step, plan.call)
        if isinstance(decision, Settle):
            return await self._done(plan, Outcome(decision.text, failed=True), how="skipped")
        assert isinstance(decision, Do)
        return await self._done(plan, await self._carried_out(plan, tools, decision.answer))

    async def _carried_out(self, plan: _Planned, tools: Mapping[str, Tool], answer: dict[str, Any] | None) -> Outcome:
        for attempt in range(1, _AWAY + 1):
            context = replace(
                self._context, run=self._journal.run, step=plan.step, permit=self._journal.permits.get(plan.step, ""),
                answer=answer, task=self._journal.story.step(plan.step).task,
                note=lambda task: self._journal.append(Draft("note", plan.step, {"task": task})),
                goes_on=self._goes_on,
            )  # fmt: skip
            try:
                with self.seen.tool(plan.step, plan.call, plan.tool) as made:
                    outcome = await carry_out(plan.call, dict(tools), context)
                    made.gave(outcome)
                plan.facts = made.facts
                return outcome
            except Uncertain as error:
                outcome = await self._cleared_up(plan, error, last=attempt >= (_ATTEMPTS if error.answered else _AWAY))
            except Unsent as error:
                outcome = Outcome(f"Error: {error}", failed=True) if attempt >= _ATTEMPTS else None
            if outcome is not None:
                return outcome
            await asyncio.sleep(min(_AGAIN * attempt, _LONGEST))
            answer = self._journal.story.step(plan.step).answer
            await self._journal.append(self._intent(plan))
        raise AssertionError("the last attempt gives an outcome")

    async def _cleared_up(self, plan: _Planned, error: Uncertain, *, last: bool) -> Outcome | None:
        """What to make of a call that broke off; None: make it again. Raises Pause, RunFailed."""
        failed = Outcome(f"Error: {error}", failed=True)
        story = self._journal.story
        if not story.step(plan.step).guarded:
            return failed  # told as it is where nobody marks the start
        if not await self._journal.started(plan.step):
            return failed if last or error.answered else None  # not carried out; the gateway may be back soon
        repeatable = plan.call.name in self._rules.repeat or (plan.tool is not None and plan.tool.repeatable)
        decision = decide(story.step(plan.step), repeatable=repeatable, on_unknown=self._rules.on_unknown)
        if isinstance(decision, Ask):
            raise unknown(plan.step, plan.call, str(error))
        if isinstance(decision, Settle):
            return Outcome(decision.text, failed=True)
        if isinstance(decision, Fail):
            raise RunFailed(UNKNOWN, decision.text)
        return failed if last else None

    async def _done(self, plan: _Planned, outcome: Outcome, how: str = "") -> Message:
        ident, room = paging.ident_of(self._journal.run, plan.step), paging.room(self._journal.story)
        content, full = paging.first(outcome.text, ident, self._rules.pages, room)
        message: Message = {"role": "tool", "tool_call_id": plan.call.id, "content": content}
        if outcome.media:
            message["media"] = list(outcome.media)
        data: dict[str, Any] = {
            "id": plan.call.id, "name": plan.call.name, "hash": plan.hash, "failed": outcome.failed,
            "message": message,
        }  # fmt: skip
        data |= plan.facts | ({"how": how} if how else {}) | ({"task": outcome.task} if outcome.task else {})
        data |= {"full": full, "length": len(outcome.text)} if full else {}
        if self._under_way == 1:  # it is written with the intent of the model call that follows at once
            self._journal.defer("tool.result", plan.step, data)
        else:
            await self._journal.append(Draft("tool.result", plan.step, data))
        return message

    async def _pause(self, step: int, pause: Pause) -> None:
        data = {"reason": pause.reason, "question": pause.question, "parts": pause.parts}
        await self._journal.append(Draft("waiting", step, data))
        raise Paused

    def _check(self, steps: Set[int], *, tool_calls: int = 0) -> None:
        """Before these steps are made, for the first time or again."""
        if not steps:
            return
        story = self._journal.story
        made = sum(step.phase != "new" for number, step in story.steps.items() if number not in steps)
        seconds = self._clock() - story.began if story.began else 0.0
        used = Used(made, story.tool_calls, self._journal.usage, seconds)
        check(self._rules.budget, used, steps=len(steps), tool_calls=tool_calls)


def unknown(step: int, call: ToolCall, why: str = "") -> Pause:
    """Ask the user about a call of which nobody knows whether it was carried out; ``why``: what went wrong."""
    because = f" ({why})" if why else ""
    text = (
        f"I was interrupted while I called {call.name}{because}. Whether the call was carried out is not known, and "
        "the tool does not say that calling it twice does no harm. Shall I repeat the call, skip it, or fail? "
        'Answer "repeat", "skip" or "fail".'
    )
    question = {"call": {"id": call.id, "name": call.name, "arguments": call.arguments}, "step": step}
    data = {"reason": UNKNOWN, "tool": call.name, "args": call.arguments, "choices": ["repeat", "skip", "fail"]}
    return Pause(UNKNOWN, question, [{"text": text}, {"data": data}])


def result_of(reply: Reply) -> dict[str, Any]:
    """A model's answer as the journal keeps it."""
    calls = [asdict(call) for call in reply.calls]
    return {"message": reply.message(), "usage": reply.usage, "calls": calls}


def reply_of(result: Mapping[str, Any]) -> Reply:
    message = result["message"]
    calls = [
        ToolCall(c["id"], c["name"], c["arguments"], c.get("problem", ""), c.get("extra") or {})
        for c in result["calls"]
    ]
    return Reply(message.get("content") or "", calls, dict(result.get("usage") or {}))


__all__ = ["Rules", "Steps", "reply_of", "result_of", "unknown"]
