"""Other agents as tools: one A2A message, the answer's text back."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

from quarterdeck.errors import Denied, TimedOut, UpstreamError
from quarterdeck.mcpclient import HeaderSource, split_url
from quarterdeck.wire.client import Pool

from .config import RemoteAgent
from .tool import Context, Outcome

_TIMEOUT = 600.0
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
        """Send the request and wait for the task. Raises Denied, TimedOut, UpstreamError."""
        message: dict[str, Any] = {
            "messageId": str(uuid4()),
            "role": "ROLE_USER",
            "parts": [{"text": str(arguments.get("request", ""))}],
        }
        if not self._isolate:
            message["contextId"] = context.session
        body = {"jsonrpc": "2.0", "id": message["messageId"], "method": "SendMessage", "params": {"message": message}}
        headers = [
            (b"content-type", b"application/json"),
            (b"a2a-version", b"1.0"),
            (b"x-user-id", context.user.encode("latin-1", "replace")),
            *self._static,
            *await self._headers(),
        ]
        try:
            async with asyncio.timeout(_TIMEOUT):
                response = await self._pool.request(
                    "POST", self._origin, self._target, headers, json.dumps(body).encode(), timeout=None
                )
                content = await response.read()
        except TimeoutError:
            raise TimedOut(f"agent {self.name} gave no answer within {_TIMEOUT:g} s") from None
        if response.status in (401, 403):
            raise Denied(f"agent {self.name}: {content[:500].decode('utf-8', 'replace')}")
        return Outcome(*_answer(self.name, content))


def _answer(name: str, content: bytes) -> tuple[str, bool]:
    """Text and whether it failed."""
    try:
        document = json.loads(content)
        if "error" in document:
            return f"Error: {document['error'].get('message', '')}", True
        result = document["result"]
        task = result.get("task")
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
