"""Other agents as tools: one A2A message, the answer's text back.

Where the other agent waits for people, this one waits, too, and shows what the other shows. What a user then says of a
call the gateway has recorded by itself; here the other's task is only looked at again, or told to go on.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

from quarterdeck.errors import Denied, TimedOut, UpstreamError
from quarterdeck.mcpclient import HeaderSource, split_url
from quarterdeck.wire.client import Pool

from .approvals import CONFIRMATION, confirmation, decision_in
from .config import RemoteAgent
from .journal.pause import Json, Pause
from .model import ToolCall
from .tool import Context, Outcome

_TIMEOUT = 600.0
_POLL = 1.0
"""Seconds between looks at a task that goes on by itself."""
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
    """An agent behind the gateway."""

    def __init__(self, pool: Pool, agent: RemoteAgent, headers: HeaderSource) -> None:
        self.name = self.upstream = agent.name
        self.server = ""
        self.repeatable = False
        self.url = agent.url
        self.description = agent.description or f"Ask the agent {agent.name}."
        self.schema = _SCHEMA
        self._pool = pool
        self._origin, self._target = split_url(agent.url)
        self._static = [(k.lower().encode(), v.encode()) for k, v in agent.headers.items()]
        self._headers = headers
        self._isolate = agent.isolate_sessions

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        """Send the request and wait for the task. Raises Denied, TimedOut, UpstreamError, and Pause when it waits."""
        waiting = (context.answer or {}).get("task")
        try:
            async with asyncio.timeout(_TIMEOUT):
                if isinstance(waiting, str) and waiting:
                    found = await self._go_on(waiting, context)
                else:
                    text = {"text": str(arguments.get("request", ""))}
                    session = {} if self._isolate else {"contextId": context.session}
                    found = await self._send([text], session, context)
        except TimeoutError:
            raise TimedOut(f"agent {self.name} gave no answer within {_TIMEOUT:g} s") from None
        task = _task(found)
        if task is not None and _state(task) in _WAITING:
            raise self._paused(task, arguments, context)
        return Outcome(*_answer(self.name, found))

    async def _go_on(self, task: str, context: Context) -> bytes:
        """The other's task when it has stopped: it may be at work again, or wait to be told."""
        found = await self._ask("GetTask", {"id": task}, context)
        if _state(_task(found)) in _WAITING:
            given = (context.answer or {}).get("parts")
            parts = given if isinstance(given, list) and given else [{"data": {RESUME: True}}]
            answer = await self._send(parts, {"taskId": task}, context)
            if _task(answer) is not None:
                return answer
            found = await self._ask("GetTask", {"id": task}, context)  # somebody else told it at the same time
        while _task(found) is not None and _state(_task(found)) not in (*_WAITING, *_ENDED):
            await asyncio.sleep(_POLL)
            found = await self._ask("GetTask", {"id": task}, context)
        return found

    async def _send(self, parts: list[Json], where: Json, context: Context) -> bytes:
        message = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": parts, **where}
        return await self._ask("SendMessage", {"message": message}, context)

    async def _ask(self, method: str, params: Json, context: Context) -> bytes:
        body = {"jsonrpc": "2.0", "id": str(uuid4()), "method": method, "params": params}
        headers = [
            (b"content-type", b"application/json"),
            (b"a2a-version", b"1.0"),
            (b"x-user-id", context.user.encode("latin-1", "replace")),
            (_TASK, context.run.encode()),
            *self._static,
            *await self._headers(),
        ]
        response = await self._pool.request(
            "POST", self._origin, self._target, headers, json.dumps(body).encode(), timeout=None
        )
        content = await response.read()
        if response.status in (401, 403):
            raise Denied(f"agent {self.name}: {content[:500].decode('utf-8', 'replace')}")
        return content

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
        result = json.loads(content).get("result")
    except (ValueError, AttributeError, RecursionError):
        return None
    task = result.get("task", result) if isinstance(result, dict) else None
    return task if isinstance(task, dict) and isinstance(task.get("status"), dict) and "id" in task else None


def _state(task: Json | None) -> str:
    return str(task["status"].get("state", "")) if task is not None else ""


def _answer(name: str, content: bytes) -> tuple[str, bool]:
    """Text and whether it failed."""
    try:
        document = json.loads(content)
        if "error" in document:
            return f"Error: {document['error'].get('message', '')}", True
        result = document["result"]
        task = result.get("task", result if "status" in result else None)
        parts: list[dict[str, Any]] = []
        if task is None:
            parts = result["message"]["parts"]
        else:
            parts = [part for artifact in task.get("artifacts", []) for part in artifact["parts"]]
            if not parts:
                parts = task["status"].get("message", {}).get("parts", [])
        failed = task is not None and task["status"]["state"] != "TASK_STATE_COMPLETED"
        return "\n".join(str(part.get("text", "")) for part in parts if "text" in part), failed
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UpstreamError(f"agent {name} answered with what is no A2A response: {error}") from error
