"""Other agents as tools: one A2A message, the answer's text back.

A call that is cancelled, or takes too long, cancels the other's task; one that was interrupted finds it again.

Where the other agent waits for people, this one waits, too, and shows what the other shows. What a user then says of a
call the gateway has recorded by itself; here the other's task is only looked at again, or told to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from quarterdeck.errors import Denied, QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.malformed import loads
from quarterdeck.mcpclient import HeaderSource, split_url
from quarterdeck.wire.client import Pool, Response

from .approvals import CONFIRMATION, confirmation, decision_in
from .config import RemoteAgent
from .journal.pause import Json, Pause
from .model import ToolCall
from .tool import Context, Outcome

_POLL = 1.0
"""Seconds between looks at a task that goes on by itself, and between attempts."""
_FAILURES = 10
"""Attempts in a row at an agent that cannot be reached."""
_SAME = 540.0
"""Seconds for which a host takes a message that comes again for the one it has had (:data:`.replays.WINDOW`)."""
_CANCEL = 5.0
"""Seconds that a run which is cancelled waits for the other to hear of it."""
REASON = "agent"
RESUME = "quarterdeck.dev/resume"
"""Member of the data part by which a waiting agent is asked to look again; it decides nothing."""
_TASK = b"x-quarterdeck-task"
_WAITING = ("TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED")
_ENDED = ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED")
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"request": {"type": "string", "description": "What the agent is asked to do, in full."}},
    "required": ["request"],
}


class RemoteAgentTool:
    """An agent behind the gateway. What it does is one task; who calls again after a restart finds the same."""

    def __init__(self, pool: Pool, agent: RemoteAgent, headers: HeaderSource) -> None:
        self.name = self.upstream = agent.name
        self.server = ""
        self.repeatable = False
        self.same_for = _SAME if agent.hosted else 0.0
        self.timeout = agent.timeout
        self.url = agent.url
        self.description = agent.description or f"Ask the agent {agent.name}."
        self.schema = _SCHEMA
        self._pool = pool
        self._origin, self._target = split_url(agent.url)
        self._static = [(k.lower().encode(), v.encode()) for k, v in agent.headers.items()]
        self._headers = headers
        self._isolate = agent.isolate_sessions
        self._hosted = agent.hosted

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        """Send the request and wait for the task, which ends when the call is cancelled.

        Raises Denied, UpstreamError, and Pause when the other waits.
        """
        waiting = str((context.answer or {}).get("task") or "") or context.task
        made = [waiting]
        try:
            if waiting:
                found = await self._go_on(waiting, context)
            elif self._hosted:
                found = await self._begin(arguments, context, made)
            else:
                found = await self._ask("SendMessage", self._message(arguments, context), context)
        except asyncio.CancelledError:
            if made[0] and not context.goes_on():
                await asyncio.shield(self.cancel(made[0], context))
            raise
        task = _task(found)
        if task is not None and _state(task) in _WAITING:
            raise self._paused(task, arguments, context)
        text, failed = _answer(self.name, found)
        return Outcome(text, failed, task=str(task["id"]) if task is not None else "")

    async def _begin(self, arguments: dict[str, Any], context: Context, made: list[str]) -> bytes:
        """Send the message, learn the task's id, keep it, and wait. ``made`` gets the id as soon as it is known."""
        message = self._message(arguments, context)
        first = await self._again("SendMessage", message | {"configuration": {"returnImmediately": True}}, context)
        task = _task(first)
        if task is None:
            return first
        made[0] = str(task["id"])
        if _state(task) in (*_WAITING, *_ENDED):
            return first
        if context.note is not None:
            await context.note(made[0])
        return await self._wait(made[0], context)

    def _message(self, arguments: dict[str, Any], context: Context) -> Json:
        """The same for every attempt at the call: a host knows a message that it has got before."""
        ident = str(uuid5(NAMESPACE_URL, f"quarterdeck:{context.key}")) if context.run else str(uuid4())
        parts = [{"text": str(arguments.get("request", ""))}]
        where = {} if self._isolate else {"contextId": context.session}
        return {"message": {"messageId": ident, "role": "ROLE_USER", "parts": parts, **where}}

    async def _wait(self, task: str, context: Context) -> bytes:
        """Until the task is over, or waits: told by its events, and looked at when they break off; others than our
        hosts' are only looked at."""
        failures = 0
        while True:
            try:
                await (self._listen(task, context) if self._hosted else asyncio.sleep(_POLL))
                found = await self._again("GetTask", {"id": task}, context)
            except (UpstreamError, TimedOut) as error:
                failures += 1
                if failures > _FAILURES:
                    raise UpstreamError(f"agent {self.name} cannot be asked about its task {task}: {error}") from error
                await asyncio.sleep(_POLL)
                continue
            if _task(found) is None or _state(_task(found)) in (*_WAITING, *_ENDED):
                return found
            if self._hosted:
                await asyncio.sleep(_POLL)

    async def _listen(self, task: str, context: Context) -> None:
        """Until the task's stream of events ends."""
        response = await self._send("SubscribeToTask", {"id": task}, context)
        try:
            async for _ in response:
                pass
        finally:
            response.close()

    async def _go_on(self, task: str, context: Context) -> bytes:
        """The other's task when it has stopped: it may be at work again, or wait to be told."""
        found = await self._ask("GetTask", {"id": task}, context)
        if _state(_task(found)) in _WAITING and context.answer is not None:
            given = context.answer.get("parts")
            parts = given if isinstance(given, list) and given else [{"data": {RESUME: True}}]
            message = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": parts, "taskId": task}
            answer = await self._ask("SendMessage", {"message": message}, context)
            if _task(answer) is not None:
                return answer
            found = await self._ask("GetTask", {"id": task}, context)  # somebody else told it at the same time
        if _task(found) is None or _state(_task(found)) in (*_WAITING, *_ENDED):
            return found
        return await self._wait(task, context)

    async def cancel(self, task: str, context: Context) -> None:
        """What was begun for a call that nobody waits for any more ends, too, as far as the other can be reached."""
        with contextlib.suppress(QuarterdeckError, TimeoutError):
            async with asyncio.timeout(_CANCEL):
                await self._ask("CancelTask", {"id": task}, context)

    async def _again(self, method: str, params: Json, context: Context) -> bytes:
        """As :meth:`_ask`, for what may be asked twice: a gateway that is being started again is waited for."""
        for _ in range(_FAILURES):
            try:
                return await self._ask(method, params, context)
            except Denied:
                raise
            except (UpstreamError, TimedOut):
                await asyncio.sleep(_POLL)
        return await self._ask(method, params, context)

    async def _ask(self, method: str, params: Json, context: Context) -> bytes:
        response = await self._send(method, params, context)
        content = await response.read()
        if response.status in (401, 403):
            raise Denied(f"agent {self.name}: {content[:500].decode('utf-8', 'replace')}")
        if response.status in (502, 503, 504):
            raise UpstreamError(f"agent {self.name}: {content[:500].decode('utf-8', 'replace')}")
        return content

    async def _send(self, method: str, params: Json, context: Context) -> Response:
        body = {"jsonrpc": "2.0", "id": str(uuid4()), "method": method, "params": params}
        headers = [
            (b"content-type", b"application/json"),
            (b"a2a-version", b"1.0"),
            (b"x-user-id", context.user.encode()),
            (_TASK, context.run.encode()),
            *self._static,
            *await self._headers(),
        ]
        return await self._pool.request(
            "POST", self._origin, self._target, headers, json.dumps(body).encode(), timeout=None
        )

    def _paused(self, task: Json, arguments: dict[str, Any], context: Context) -> Pause:
        """What the other asks, asked by this agent: kagent's nested confirmation."""
        parts: list[Json] = (task["status"].get("message") or {}).get("parts") or []
        asked = [part["data"] for part in parts if _asks(part)]
        hint = f"agent {self.name}: " + "; ".join(str(part["text"]) for part in parts if "text" in part)
        call = ToolCall(context.key or self.name, self.name, arguments)
        approval = next((_approval(data) for data in asked if _approval(data)), "")
        payload = {
            "hitl_parts": asked, "task_id": task["id"], "context_id": task.get("contextId", ""),
            "subagent_name": self.name, "approval": approval,
        }  # fmt: skip
        inner = (asked[0].get("args") or {}).get("originalFunctionCall") if asked else None
        question = {
            "task": task["id"], "approval": approval,
            "call": {"id": (inner or {}).get("id") or call.id, "name": (inner or {}).get("name") or self.name},
        }  # fmt: skip
        return Pause(REASON, question, [{"text": hint}, confirmation(approval or call.id, call, hint, payload)])


def answer_of(message: Json, waiting: Json) -> Json:
    """The data of the answer: the other's task, and what it is told. A decision is no agent's to pass on."""
    decision = decision_in(message)
    decides = decision is not None and "ask_user_answers" not in decision
    parts: list[Json] = [] if decides else [{k: part[k] for k in ("text", "data") if k in part}
                                            for part in message["parts"]]  # fmt: skip
    return {"task": (waiting.get("question") or {}).get("task", ""), "parts": parts}


def _asks(part: Json) -> bool:
    data = part.get("data")
    return isinstance(data, dict) and data.get("name") == CONFIRMATION


def _approval(data: Json) -> str:
    payload = ((data.get("args") or {}).get("toolConfirmation") or {}).get("payload")
    return str(payload.get("approval") or "") if isinstance(payload, dict) else ""


def _task(content: bytes) -> Json | None:
    """The task in an answer to SendMessage or GetTask; None when there is none."""
    try:
        result = loads(content).get("result")
    except (ValueError, AttributeError, RecursionError):
        return None
    task = result.get("task", result) if isinstance(result, dict) else None
    return task if isinstance(task, dict) and isinstance(task.get("status"), dict) and "id" in task else None


def _state(task: Json | None) -> str:
    return str(task["status"].get("state", "")) if task is not None else ""


def _answer(name: str, content: bytes) -> tuple[str, bool]:
    """Text and whether it failed."""
    try:
        document = loads(content)
        if "error" in document:
            return f"Error: agent {name}: {document['error'].get('message', '')}", True
        result = document["result"]
        task = result.get("task", result if "status" in result else None)
        parts: list[dict[str, Any]] = []
        if task is None:
            parts = result["message"]["parts"]
        else:
            parts = [part for artifact in task.get("artifacts", []) for part in artifact["parts"]]
            if not parts:
                parts = task["status"].get("message", {}).get("parts", [])
        text = "\n".join(str(part.get("text", "")) for part in parts if "text" in part)
        if task is None or task["status"]["state"] == "TASK_STATE_COMPLETED":
            return text, False
        state = task["status"]["state"].removeprefix("TASK_STATE_").lower()
        return f"Error: agent {name}: {text or f'its task is {state}'}", True
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UpstreamError(f"agent {name} answered with what is no A2A response: {error}") from error
