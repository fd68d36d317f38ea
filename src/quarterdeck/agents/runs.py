"""Runs at work: one user message becomes one run, and one A2A task, worked on in the background.

A caller that goes away does not end the task; ``CancelTask`` does, and the cancellation reaches the tool that is being
called. What happens is written to the journal (:mod:`.journal`) first and told to callers then, so that another replica
can go on at any point, and callers of any replica see the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

from quarterdeck.errors import QuarterdeckError, UpstreamError
from quarterdeck.snapshot.runs import Event

from . import answers, graph, replays
from . import parts as parts_of
from .a2a import types
from .a2a.types import Json
from .active import Active, watch
from .config import AgentConfig
from .context import media
from .context.conversation import Conversation
from .context.paging import NAME as READ_RESULT
from .context.paging import Pages, ReadResult
from .context.views import Views
from .credentials import ACTING_FOR, TRACE_PARENT, acting_for, forwarded, kept, trace_parent
from .interrupted import Leases, replica_name
from .journal.checkpoints import JournalSaver
from .journal.client import Claimed, Gone, JournalClient
from .journal.fold import PARTS
from .journal.journal import Draft, Journal, Memory, Unwritten
from .journal.limits import Used, cost, told
from .journal.pause import Fenced, Paused, RunFailed
from .journal.steps import Rules, Steps
from .journal.told import UNAVAILABLE, task_of
from .model import ChatModel
from .observe.run import Observer
from .parts import Asked, Plugin, texts
from .state import ControlPlaneState
from .tool import Context, Tool
from .toolbox import Toolbox

log = logging.getLogger("quarterdeck.agents")
_TOOL_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts to list the tools of all servers when a run goes on."""
__all__ = ["UNAVAILABLE", "Active", "Runs", "watch"]


class Runs:
    """All runs of this replica. Without a ``journal``, what is worked on ends with the process."""

    def __init__(
        self,
        config: AgentConfig,
        model: ChatModel,
        toolbox: Toolbox,
        state: ControlPlaneState,
        journal: JournalClient | None = None,
        *,
        replica: str = "",
        plugins: Sequence[Plugin] = (),
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer or Observer()
        self._config = config
        self._plugins = plugins
        toolbox.builtin.extend(tool for plugin in plugins for tool in plugin.tools())
        self._model = model
        self._views = Views(config, model)
        self._toolbox = toolbox
        self._state = state
        self._client = journal
        self._saver = JournalSaver()
        self._graph = graph.build(self._saver)
        self._active: dict[str, Active] = {}
        self._replica = replica or replica_name()
        self._stopping = False
        self.heartbeat = Leases(journal, self._replica, self._held, self._take, self._lose)

    @property
    def takes(self) -> Sequence[str]:
        """Media types besides text that the agent's model takes."""
        return media.TYPES if self._views.see else ()

    async def start(self, message: Json, user: str) -> Active:
        """Begin to work on a user's message, or go on with the task it names, if that waits for one.

        The same message again gives the task that it began. Raises TaskNotFound for a taskId that is not there,
        UnsupportedOperation for one that takes no message now.
        """
        if "taskId" in message:
            return await self._continue(message, user)
        ident, before = replays.ids(message, user)
        known = self.active(ident, user) or self.active(before, user)
        if known is not None:
            return known
        message["taskId"] = ident
        task = types.new_task(message)
        active = Active(task, user)
        self._active[task["id"]] = active
        try:
            await self._begin(active, message, before)
        except BaseException:
            self._active.pop(ident, None)
            active.end()
            raise
        return active

    async def get(self, task_id: str, user: str) -> Json:
        """The user's task as it is now, on whichever replica. Raises TaskNotFound, for another user's task, too."""
        active = self._active.get(task_id)
        if active is not None:
            found = active.task if active.user == user else None
        else:
            found = await self._state.task(task_id, user)
            if found is not None and found["status"]["state"] not in types.TERMINAL:
                found = await self._present(found)
        if found is None:
            raise types.TaskNotFound(f"task {task_id!r} is not known here")
        return found

    async def cancel(self, task_id: str, user: str) -> Json:
        """Raises TaskNotFound, TaskNotCancelable."""
        task = await self.get(task_id, user)
        if task["status"]["state"] in types.TERMINAL:
            raise types.TaskNotCancelable(f"task {task_id!r} cannot be canceled: it is {task['status']['state']}")
        active = self._active.get(task_id)
        if active is not None and active.journal is not None and active.worker is not None:
            active.cancel()
            await active.finished.wait()
            if active.task["status"]["state"] in types.TERMINAL:
                return active.task
        if self._client is None:
            task["status"] = types.status(types.CANCELED)
            await self._state.save_task(user, task)
            return task
        with contextlib.suppress(Fenced):  # it has ended in this moment
            await self._client.cancel(task_id)
        async for _, update in self.events(task_id, user):
            task = update.get("task", task)
        return await self.get(task_id, user)

    def active(self, task_id: str, user: str) -> Active | None:
        """The user's task if it is worked on or followed here."""
        found = self._active.get(task_id)
        return found if found is not None and found.user == user else None

    async def events(self, task_id: str, user: str, after: int | None = None) -> AsyncGenerator[tuple[int, Json]]:
        """Number and update, until the task is finished or waits; on any replica.

        The task itself comes first, or with ``after`` what followed that event. Raises TaskNotFound.
        """
        active = self.active(task_id, user)
        if active is None:
            await self.get(task_id, user)
            active = await self._followed(task_id, user)
        if active is None:
            yield 0, {"task": await self.get(task_id, user)}
            return
        async for entry in active.follow(after):
            yield entry

    async def drain(self, seconds: float) -> None:
        """Wait until no task is worked on any more, at most so long; nothing is taken over meanwhile."""
        self.heartbeat.resting = True
        workers = [a.worker for a in self._active.values() if a.worker is not None and a.journal is not None]
        if workers:
            await asyncio.wait(workers, timeout=seconds)

    async def stop(self) -> None:
        """Let go of what is left when the Pod ends: another replica, or the next process, goes on with it."""
        self._stopping = self.heartbeat.resting = True
        workers = [a.worker for a in self._active.values() if a.worker is not None]
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await self._toolbox.close()

    # -- beginning
    async def _begin(self, active: Active, message: Json, before: str) -> None:
        task = active.task
        if self._client is None:
            journal = Journal(Memory(), task["id"], 1)
            await self._state.save_task(active.user, task)
            self._work_on(active, journal)
            return
        said = {ACTING_FOR: acting_for.get(), TRACE_PARENT: trace_parent.get()}
        origin: Json = {name: value for name, value in said.items() if value}
        origin |= {"forwarded": kept(forwarded.get())} if forwarded.get() else {}
        run = await self._client.create(
            {"user": active.user, "session": task["contextId"], "task": task["id"], "message": message,
             "replica": self._replica, "origin": origin, "before": before, "asks": True}
        )  # fmt: skip
        if not run["leased"] or run["task"] != task["id"]:
            await self._join(active, task["id"], run["task"])
            return
        active.run, active.seq = run["id"], 1
        at, fence = run["createdAt"], run["fence"]
        events = [
            Event(1, "created", 0, at, fence, {"message": message, "origin": origin}),
            Event(2, "leased", 0, at, fence, {"replica": self._replica}),
            Event(3, "model.intent", 1, at, fence, {}),
        ]  # fmt: skip
        events = events[: run["seq"]]  # a control plane of before writes no intent
        self._work_on(active, Journal(self._client, run["id"], fence, events), forwarded.get())
        for event in events[1:]:
            active.apply(event)

    async def _join(self, active: Active, ident: str, task_id: str) -> None:
        """Follow the run of a task that others work on, or that was worked on before: ``task_id``, not ``ident``."""
        assert self._client is not None
        run, events = await self._client.events(task_id)
        active.task.clear()
        active.task.update(task_of(events[:1]))
        active.run, active.seq = run["id"], events[0].seq
        for event in events[1:]:
            active.apply(event)
        if ident != task_id:
            self._active.pop(ident, None)
            self._active.setdefault(task_id, active)
        active.worker = asyncio.create_task(self._follow(active), name=f"follow-{task_id}")

    async def _continue(self, message: Json, user: str) -> Active:
        """Answer what a task waits for."""
        task = await self.get(message["taskId"], user)
        ident, state = task["id"], task["status"]["state"]
        if message.get("contextId", task["contextId"]) != task["contextId"]:
            raise types.InvalidParams(f"message.contextId: task {ident} belongs to context {task['contextId']}")
        message["contextId"] = task["contextId"]
        events: list[Event] = []
        if self._client is not None:
            with contextlib.suppress(Gone):  # of a time before runs
                _, events = await self._client.events(ident)
        if replays.answered(message, events):
            followed = await self._followed(ident, user)
            assert followed is not None
            return followed
        if state in types.TERMINAL:
            raise types.UnsupportedOperation(f"task {ident} is finished; send the message without a taskId")
        if state in types.INTERRUPTED and (ending := self._active.get(ident)) is not None:
            await ending.finished.wait()  # its last event was told just now
        if ident in self._active or state not in types.INTERRUPTED:
            raise types.UnsupportedOperation(f"task {ident} is being worked on; wait for it or cancel it")
        if self._client is None:
            return await self._again(task, message, user)
        waiting = next((event for event in reversed(events) if event.kind == "waiting"), None)
        if waiting is None:
            raise types.UnsupportedOperation(f"task {ident} waits for nothing that a message can answer")
        data = answers.of(message, waiting.data)
        try:
            await self._client.answer(ident, waiting.step, {**data, "message": message})
        except Fenced:
            if not replays.answered(message, (await self._client.events(ident))[1]):  # else our word for it was lost
                raise types.UnsupportedOperation(f"task {ident} was answered by somebody else just now") from None
        active = await self._followed(ident, user)
        assert active is not None
        found = await self._client.claim(self._replica, {}, most=1, only=ident)
        for claimed in found.claimed:
            await self._take(claimed, forwarded.get())
        return active

    async def _again(self, task: Json, message: Json, user: str) -> Active:
        """Without a journal: the same task once more, with what the user says now."""
        asked = task["status"].get("message")
        task.setdefault("history", []).extend([asked, message] if asked else [message])
        task.setdefault("metadata", {})
        task.setdefault("artifacts", [])
        task["status"] = types.status(types.SUBMITTED)
        active = self._active[task["id"]] = Active(task, user)
        await self._state.save_task(user, task)
        self._work_on(active, Journal(Memory(), task["id"], 1))
        return active

    async def _present(self, task: Json) -> Json:
        """A task that goes on, or waits, as of its journal."""
        if self._client is None:
            return task
        try:
            _, events = await self._client.events(task["id"])
        except Gone:
            return task
        return task_of(events)

    async def _followed(self, task_id: str, user: str) -> Active | None:
        """A task that another replica may be working on; None where there is no journal of it."""
        if self._client is None:
            return None
        try:
            run, events = await self._client.events(task_id)
        except Gone:
            return None
        active = self._active.get(task_id)
        if active is not None:
            return active
        active = Active(task_of(events[:1]), user, run["id"], seq=events[0].seq)
        for event in events[1:]:
            active.apply(event)
        self._active[task_id] = active
        active.worker = asyncio.create_task(self._follow(active), name=f"follow-{task_id}")
        return active

    # -- leases
    def _held(self) -> dict[str, int]:
        journals = [a.journal for a in self._active.values() if a.journal is not None]
        return {journal.run: journal.fence for journal in journals if not journal.lost}

    async def _take(self, claimed: Claimed, told: Mapping[str, str | None] | None = None) -> None:
        """Go on with a run that is ours from now on. ``told``: headers of the message because of which it goes on."""
        assert self._client is not None
        run, events = claimed.run, claimed.events
        if self._stopping:
            await self._client.release(run["id"], run["fence"])
            return
        active = self._active.get(run["task"])
        if active is not None:
            await self._set_free(active)
            active = self._active.get(run["task"])
        if active is None:
            active = self._active[run["task"]] = Active(task_of(events[:1]), run["user"], run["id"], seq=events[0].seq)
        for event in events:
            active.apply(event)
        log.info("run %s is continued here, fence %d", run["id"], run["fence"])
        self._work_on(active, Journal(self._client, run["id"], run["fence"], events), told or {})

    async def _set_free(self, active: Active) -> None:
        """What follows a task here ends, or works on it under an older fence: we gave no sign of life for too long."""
        if active.journal is not None:
            active.journal.lost = True
        while active.worker is not None and not active.worker.done():
            active.worker.cancel()
            await asyncio.gather(active.worker, return_exceptions=True)

    def _lose(self, run: str, *, canceled: bool) -> None:
        """The control plane says that a run is not ours any more, or that it shall end."""
        for active in list(self._active.values()):
            journal = active.journal
            if journal is None or journal.run != run or active.worker is None:
                continue
            if canceled:
                active.cancel()
            else:
                journal.lost = True
                active.worker.cancel()

    async def _follow(self, active: Active) -> None:
        """Learn from the journal what another replica does."""
        assert self._client is not None
        try:
            async for event in self._client.watch(active.task["id"], active.seq):
                active.apply(event)
        except Gone as error:
            log.warning("task %s is not followed any more: %s", active.task["id"], error)
        self._forget(active)
        active.end()

    def _forget(self, active: Active) -> None:
        """Unless somebody else knows of the task by now."""
        if self._active.get(active.task["id"]) is active:
            del self._active[active.task["id"]]

    # -- working
    def _work_on(self, active: Active, journal: Journal, told: Mapping[str, str | None] | None = None) -> None:
        active.journal = journal
        journal.told = active.apply
        journal.canceled = lambda: self._lose(journal.run, canceled=True)
        if journal.story.created:  # who asked is known to whoever goes on with it
            origin = journal.story.created.get("origin") or {}
            acting_for.set(str(origin.get(ACTING_FOR, "")))
            forwarded.set({**(origin.get("forwarded") or {}), **(told or {})})
        active.worker = asyncio.create_task(self._seen(active, journal), name=f"run-{journal.run}")

    async def _seen(self, active: Active, journal: Journal) -> None:
        """Work on a run as part of the trace that led to it, whoever goes on with it."""
        origin = journal.story.created.get("origin") or {}
        parent = str(origin.get(TRACE_PARENT, "")) if self._client is not None else trace_parent.get()
        with self._observer.run(
            journal.story, run=journal.run, task=active.task, user=active.user, parent=parent
        ) as active.seen:
            await self._work(active, journal)

    async def _work(self, active: Active, journal: Journal) -> None:
        """Until the run has ended or waits, or is ours no more. Whatever happens, who watches is not left waiting."""
        try:
            await self._to_its_end(active, journal)
        except Fenced as error:
            log.warning("%s; it is left to who has it", error)
        except Unwritten as error:
            journal.lost = True
            log.error("run %s cannot be written down, it is left as it is: %s", journal.run, error)
        except asyncio.CancelledError:
            log.debug("run %s is let go", journal.run)  # it is lost, or we end
        await asyncio.shield(self._over(active, journal))

    async def _to_its_end(self, active: Active, journal: Journal) -> None:
        """Raises Fenced, Unwritten, and CancelledError unless that is how the run ends."""
        task = active.task
        try:
            if journal.story.canceled_by:
                active.canceling = True
                await self._toolbox.abandon(journal.story, Context(active.user, task["contextId"], journal.run))
                raise asyncio.CancelledError
            if task["status"]["state"] == types.SUBMITTED:
                active.set_status(types.WORKING)
            seconds = self._seconds(journal)
            async with asyncio.timeout(seconds):
                await self._turn(active, journal.story.created.get("message") or task["history"][0])
        except Paused:
            log.info("task %s waits for somebody", task["id"])
        except (Fenced, Unwritten):
            raise
        except asyncio.CancelledError:
            if not active.canceling:
                raise
            await self._final(journal, "canceled", "", "")
        except TimeoutError:
            await self._late(journal)
        except RunFailed as error:
            await self._final(journal, "failed", error.reason, str(error))
        except QuarterdeckError as error:
            await self._final(journal, "failed", error.reason, str(error))
        except Exception:
            log.exception("task %s failed", task["id"])
            await self._final(journal, "failed", "internal", "an internal error; the agent's log has the details")

    async def _over(self, active: Active, journal: Journal) -> None:
        """What comes after the work on a run, by what its journal says."""
        if journal.story.final is not None or journal.story.waiting:
            await self._finish(active)
        elif journal.lost:
            await self._leave(active)
        else:
            await self._let_go(active, journal)

    async def _turn(self, active: Active, message: Json) -> None:
        journal, task = active.journal, active.task
        assert journal is not None
        session = task["contextId"]
        conversation = await self._conversation(active.user, session, journal.run)
        asked = media.asked(message)
        tools = await self._tools(journal)
        missing = self._toolbox.missing()
        if missing:
            journal.defer("note", 0, {UNAVAILABLE: dict(self._toolbox.unavailable)})
        begun = Asked(active.user, session, journal.run, asked["content"], not conversation.runs)
        parts = await self._parts(journal, begun)
        system, lead = parts_of.split(self._plugins, parts)
        window = self._views.window(conversation, journal, (self._config.instruction, *system, missing), lead)
        window.seen = active.seen

        async def on_text(piece: str) -> None:
            active.seen.text()
            partial = types.agent_message(task["id"], session, [types.text_part(piece)])
            active.set_status(types.WORKING, partial | {"metadata": {"quarterdeck.dev/partial": True}})

        tools[READ_RESULT] = self._read_result(journal, conversation)
        steps = Steps(
            journal, _rules(self._config, self._views.pages), Context(active.user, session), active.seen,
            goes_on=lambda: self._stopping or journal.lost,
        )  # fmt: skip
        turn = graph.Turn(
            self._model, tools, steps, window, self._config.max_steps, on_text if self._config.stream else None,
            self._views.output, self._views.see, self._reload(journal),
        )  # fmt: skip
        with self._saver.of(journal, [asked]) as resume:
            answer = await graph.run(self._graph, turn, [asked], journal.run, resume=resume)
        await self._final(journal, "completed", "", *self._views.answer(answer))
        parts_of.ended(self._plugins, begun)

    def _read_result(self, journal: Journal, conversation: Conversation) -> ReadResult:
        client = self._client

        async def events(run: str) -> list[Event]:
            assert client is not None
            return (await client.events(run))[1]

        earlier = [said.run for said in conversation.runs]
        of_others = events if client is not None else None
        return ReadResult(journal.story, journal.run, earlier, of_others, self._views.pages)

    async def _parts(self, journal: Journal, asked: Asked) -> dict[str, str]:
        """What the plug-ins say; a run that goes on has it in its journal."""
        if journal.story.parts is None and self._plugins:
            found = await texts(self._plugins, asked)
            journal.defer("note", 0, {PARTS: found})
            return found
        return journal.story.parts or {}

    async def _conversation(self, user: str, session: str, run: str) -> Conversation:
        """What was said before. A run that a control plane which is away keeps from it stays as it is."""
        try:
            return await self._state.conversation(user, session, before=run)
        except UpstreamError as error:
            if self._client is None:
                raise
            raise Unwritten(f"what was said before cannot be read: {error}") from error

    def _reload(self, journal: Journal) -> Callable[[Mapping[str, Tool]], Awaitable[Mapping[str, Tool]]]:
        """The tools of a turn as they are now: loaded again when a server has said that its list changed."""
        known = self._toolbox.changes

        async def reload(tools: Mapping[str, Tool]) -> Mapping[str, Tool]:
            nonlocal known
            if self._toolbox.changes == known:
                return tools
            await journal.flush()
            known = self._toolbox.changes
            return {**await self._toolbox.load(), READ_RESULT: tools[READ_RESULT]}

        return reload

    async def _tools(self, journal: Journal) -> dict[str, Tool]:
        """What can be called now. A run that goes on waits for servers that were there when it called them."""
        tools = await self._toolbox.load()
        fresh = all(step.phase != "done" for step in journal.story.steps.values())
        for pause in _TOOL_PAUSES:
            if fresh or not self._toolbox.unavailable:
                break
            await asyncio.sleep(pause)
            tools = await self._toolbox.load()
        return tools

    async def _final(self, journal: Journal, state: str, reason: str, text: str, more: Json | None = None) -> None:
        """Write the end. Raises Fenced, Unwritten; RunFailed for an end that will never be taken."""
        data = {"state": state, "reason": reason, "text": text, "usage": journal.usage} | (more or {})
        await journal.append(Draft("final", 0, data))

    async def _late(self, journal: Journal) -> None:
        budget, story = self._config.runs.budget, journal.story
        if budget.wall_time is not None and budget.left(story.began) <= 1.0:
            made = sum(step.phase != "new" for step in story.steps.values())
            used = Used(made, story.tool_calls, journal.usage, budget.wall_time - budget.left(story.began))
            text = told("wallTime", budget.wall_time, used, cost(journal.usage, budget))
            await self._final(journal, "failed", "budget_exceeded", text)
        else:
            text = f"no answer within {self._config.turn_timeout:g} s"
            await self._final(journal, "failed", "timeout", text)

    def _seconds(self, journal: Journal) -> float:
        """What is left for a run."""
        budget, most = self._config.runs.budget, self._config.turn_timeout
        return min(most, budget.left(journal.story.began)) if budget.wall_time is not None else most

    async def _let_go(self, active: Active, journal: Journal) -> None:
        """We end before the run does: others go on with it at once, and find what was done."""
        if self._client is None:
            await self._final(journal, "failed", "stopped", "the agent was stopped while it worked on this task")
            await self._finish(active)
            return
        self._forget(active)
        with contextlib.suppress(QuarterdeckError, Fenced, Unwritten, RunFailed):
            await journal.flush()
            await self._client.release(journal.run, journal.fence)
        active.end()

    async def _leave(self, active: Active) -> None:
        """Another replica has the run, or will have it: who watches here sees what it does there."""
        active.journal = None
        if self._stopping or self._client is None:
            self._forget(active)
            active.end()
            return
        if active.canceling:  # it was told to us alone
            with contextlib.suppress(QuarterdeckError, Fenced):
                await self._client.cancel(active.task["id"])
        active.worker = asyncio.create_task(self._follow(active), name=f"follow-{active.task['id']}")

    async def _finish(self, active: Active) -> None:
        task = active.task
        if self._client is None:  # else it was saved with the run's end
            try:
                await self._state.save_task(active.user, task)
            except QuarterdeckError as error:
                log.error("task %s: its result could not be kept: %s", task["id"], error)
        log.info("task %s of context %s: %s", task["id"], task["contextId"], _outcome(task))
        self._forget(active)
        active.journal = None
        active.end()


def _rules(config: AgentConfig, pages: Pages) -> Rules:
    runs = config.runs
    return Rules(runs.budget, runs.on_unknown_outcome, frozenset(runs.repeat_tools), pages)


def _outcome(task: Json) -> str:
    """State and called tools, for the Pod's log; never what was said."""
    calls = [part["data"]["name"] for entry in task["history"] for part in entry.get("parts", ()) if _is_call(part)]
    state = str(task["status"]["state"]).removeprefix("TASK_STATE_").lower()
    return f"{state}, tools called: {', '.join(calls) or 'none'}"


def _is_call(part: Json) -> bool:
    return (part.get("metadata") or {}).get("kagent_type") == "function_call"
