"""Tasks at work: one user message becomes one A2A task, run in the background and watched by any number of callers.

A caller that goes away does not end the task; ``CancelTask`` does, and the cancellation reaches the tool that is being
called.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from quarterdeck.errors import QuarterdeckError

from . import graph
from .a2a import types
from .a2a.types import Json
from .config import AgentConfig
from .interrupted import REPLICA, Heartbeat, replica_name
from .model import ChatModel, Message, ToolCall
from .state import ControlPlaneState
from .tool import Context, Outcome
from .toolbox import Toolbox

log = logging.getLogger("quarterdeck.agents")
_QUEUE = 10_000
_DETAIL = 4000
UNAVAILABLE = "unavailable"
"""Metadata of a task and its updates: URL of a tool server that could not be asked, to the reason."""


@dataclass(eq=False, slots=True)
class Active:
    """A task that is being worked on."""

    task: Json
    user: str
    watchers: set[asyncio.Queue[Json | None]] = field(default_factory=set[asyncio.Queue["Json | None"]])
    worker: asyncio.Task[None] | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, event: Json) -> None:
        """To every watcher; one that has fallen too far behind is let go."""
        for queue in list(self.watchers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self.watchers.discard(queue)

    def set_status(self, state: str, message: Json | None = None, metadata: Json | None = None) -> None:
        self.task["status"] = types.status(state, message)
        update = {"taskId": self.task["id"], "contextId": self.task["contextId"], "status": self.task["status"]}
        if metadata:
            update["metadata"] = metadata
        self.publish({"statusUpdate": update})


class Runs:
    """All tasks of this replica."""

    def __init__(self, config: AgentConfig, model: ChatModel, toolbox: Toolbox, state: ControlPlaneState) -> None:
        self._config = config
        self._model = model
        self._toolbox = toolbox
        self._state = state
        self._graph = graph.build()
        self._active: dict[str, Active] = {}
        self._contexts: dict[str, asyncio.Lock] = {}
        self._replica = replica_name()
        self._stopping = False
        self.heartbeat = Heartbeat(state, self._replica, lambda: list(self._active))

    async def start(self, message: Json, user: str) -> Active:
        """Begin to work on a user's message, or go on with the task it names, if that waits for one.

        Raises TaskNotFound for a taskId that is not there, UnsupportedOperation for one that takes no message now.
        """
        task = await self._continued(message, user) if "taskId" in message else types.new_task(message)
        task["metadata"][REPLICA] = self._replica
        active = Active(task, user)
        self._active[task["id"]] = active
        try:
            await self._state.save_task(user, task)
        except BaseException:
            self._active.pop(task["id"], None)
            raise
        active.worker = asyncio.get_running_loop().create_task(self._work(active, message), name=f"task-{task['id']}")
        return active

    async def _continued(self, message: Json, user: str) -> Json:
        """The interrupted task that a message answers, with the message in its history."""
        task = await self.get(message["taskId"], user)
        if message.get("contextId", task["contextId"]) != task["contextId"]:
            raise types.InvalidParams(f"message.contextId: task {task['id']} belongs to context {task['contextId']}")
        if task["status"]["state"] in types.TERMINAL:
            raise types.UnsupportedOperation(f"task {task['id']} is finished; send the message without a taskId")
        if task["id"] in self._active or task["status"]["state"] not in types.INTERRUPTED:
            raise types.UnsupportedOperation(f"task {task['id']} is being worked on; wait for it or cancel it")
        message["contextId"] = task["contextId"]
        asked = task["status"].get("message")
        task.setdefault("history", []).extend([asked, message] if asked else [message])
        task.setdefault("metadata", {})
        task.setdefault("artifacts", [])
        task["status"] = types.status(types.SUBMITTED)
        return task

    async def get(self, task_id: str, user: str) -> Json:
        """The user's task as it is now. Raises TaskNotFound, for another user's task, too."""
        active = self._active.get(task_id)
        found = active.task if active is not None and active.user == user else None
        if active is None:
            found = await self._state.task(task_id, user)
        if found is None:
            raise types.TaskNotFound(f"task {task_id!r} is not known here")
        return found

    async def cancel(self, task_id: str, user: str) -> Json:
        """Raises TaskNotFound, TaskNotCancelable."""
        task = await self.get(task_id, user)
        active = self._active.get(task_id)
        if active is not None and active.worker is not None:
            active.worker.cancel()
            await active.finished.wait()
            return active.task
        if task["status"]["state"] not in types.INTERRUPTED:
            raise types.TaskNotCancelable(f"task {task_id!r} cannot be canceled: it is {task['status']['state']}")
        task["status"] = types.status(types.CANCELED)
        await self._state.save_task(user, task)
        return task

    def active(self, task_id: str, user: str) -> Active | None:
        """The user's task if it is being worked on here."""
        found = self._active.get(task_id)
        return found if found is not None and found.user == user else None

    async def drain(self, seconds: float) -> None:
        """Wait until no task is worked on any more, at most so long."""
        workers = [a.worker for a in self._active.values() if a.worker is not None]
        if workers:
            await asyncio.wait(workers, timeout=seconds)

    async def stop(self) -> None:
        """End what is left when the Pod ends."""
        self._stopping = True
        workers = [a.worker for a in self._active.values() if a.worker is not None]
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await self._toolbox.close()

    async def _work(self, active: Active, message: Json) -> None:
        task = active.task
        context = self._contexts.setdefault(task["contextId"], asyncio.Lock())
        try:
            async with context, asyncio.timeout(self._config.turn_timeout):
                active.set_status(types.WORKING)
                await self._state.save_task(active.user, task)
                await self._turn(active, message)
        except asyncio.CancelledError:
            if self._stopping:
                self._fail(active, "the agent was stopped while it worked on this task; send the message again")
            else:
                active.set_status(types.CANCELED)
        except TimeoutError:
            self._fail(active, f"no answer within {self._config.turn_timeout:g} s")
        except QuarterdeckError as error:
            self._fail(active, str(error))
        except Exception:
            log.exception("task %s failed", task["id"])
            self._fail(active, "an internal error; the agent's log has the details")
        finally:
            await asyncio.shield(self._finish(active, context))

    async def _turn(self, active: Active, message: Json) -> None:
        task, session = active.task, active.task["contextId"]
        history = _repaired(await self._state.conversation(active.user, session))
        asked: Message = {"role": "user", "content": types.text_of(message)}
        await self._state.append(active.user, session, asked)
        tools = await self._toolbox.load()
        missing = self._toolbox.missing()
        if missing:
            task["metadata"][UNAVAILABLE] = dict(self._toolbox.unavailable)
            active.set_status(types.WORKING, metadata={UNAVAILABLE: task["metadata"][UNAVAILABLE]})
        said = "\n\n".join(text for text in (self._config.instruction, missing) if text)
        instruction = [{"role": "system", "content": said}] if said else []
        turn = graph.Turn(
            model=self._model,
            tools=tools,
            context=Context(active.user, session),
            observer=_Observer(active, self._state, session),
            max_steps=self._config.max_steps,
            stream=self._config.stream,
        )
        answer = await graph.run(self._graph, turn, [*instruction, *history, asked])
        artifact = {"artifactId": str(uuid4()), "name": "answer", "parts": [types.text_part(answer)]}
        task["artifacts"].append(artifact)
        update = {"taskId": task["id"], "contextId": session, "artifact": artifact, "append": False, "lastChunk": True}
        active.publish({"artifactUpdate": update})
        task["metadata"]["usage"] = turn.usage
        active.set_status(types.COMPLETED)

    def _fail(self, active: Active, text: str) -> None:
        task = active.task
        active.set_status(types.FAILED, types.agent_message(task["id"], task["contextId"], [types.text_part(text)]))

    async def _finish(self, active: Active, context: asyncio.Lock) -> None:
        try:
            await self._state.save_task(active.user, active.task)
        except QuarterdeckError as error:
            log.error("task %s: its result could not be kept: %s", active.task["id"], error)
        log.info("task %s of context %s: %s", active.task["id"], active.task["contextId"], _outcome(active.task))
        for queue in active.watchers:
            queue.put_nowait(None)
        active.finished.set()
        self._active.pop(active.task["id"], None)
        if not context.locked():
            self._contexts.pop(active.task["contextId"], None)


def _outcome(task: Json) -> str:
    """State and called tools, for the Pod's log; never what was said."""
    calls = [part["data"]["name"] for entry in task["history"] for part in entry.get("parts", ()) if _is_call(part)]
    state = str(task["status"]["state"]).removeprefix("TASK_STATE_").lower()
    return f"{state}, tools called: {', '.join(calls) or 'none'}"


def _is_call(part: Json) -> bool:
    return (part.get("metadata") or {}).get("kagent_type") == "function_call"


async def watch(active: Active) -> AsyncGenerator[Json]:
    """The task as it is, then each event until it is finished."""
    queue: asyncio.Queue[Json | None] = asyncio.Queue(_QUEUE)
    yield {"task": json.loads(json.dumps(active.task))}
    if active.finished.is_set():
        return
    active.watchers.add(queue)
    try:
        while (event := await queue.get()) is not None:
            yield event
    finally:
        active.watchers.discard(queue)


class _Observer:
    """Turns what happens in the graph into A2A events and kept messages."""

    def __init__(self, active: Active, state: ControlPlaneState, session: str) -> None:
        self._active = active
        self._state = state
        self._session = session

    async def text(self, piece: str) -> None:
        self._say([types.text_part(piece)], {"quarterdeck.dev/partial": True}, keep=False)

    async def tool_started(self, call: ToolCall) -> None:
        data = {"id": call.id, "name": call.name, "args": call.arguments}
        self._say([{"data": data, "metadata": {"kagent_type": "function_call"}}], {})

    async def tool_finished(self, call: ToolCall, outcome: Outcome) -> None:
        response = {"result": outcome.text[:_DETAIL], "isError": outcome.failed}
        data = {"id": call.id, "name": call.name, "response": response}
        self._say([{"data": data, "metadata": {"kagent_type": "function_response"}}], {})

    async def message(self, message: Message) -> None:
        await self._state.append(self._active.user, self._session, message)

    def _say(self, parts: list[Json], metadata: Json, *, keep: bool = True) -> None:
        task = self._active.task
        message = types.agent_message(task["id"], task["contextId"], parts)
        if metadata:
            message["metadata"] = metadata
        if keep:
            task["history"].append(message)
        self._active.set_status(types.WORKING, message)


def _repaired(history: list[Message]) -> list[Message]:
    """A conversation that models accept: a call whose result was lost (the Pod was killed) gets one that says so."""
    answered: set[Any] = {m.get("tool_call_id") for m in history if m["role"] == "tool"}
    repaired: list[Message] = []
    for message in history:
        repaired.append(message)
        for call in message.get("tool_calls") or []:
            if call["id"] not in answered:
                text = "Error: the agent was interrupted; whether this call was carried out is not known"
                repaired.append({"role": "tool", "tool_call_id": call["id"], "content": text})
    return repaired
