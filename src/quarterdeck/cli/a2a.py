"""The client side of A2A 1.0: one question as a stream of events (JSON-RPC over server-sent events)."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from quarterdeck.errors import Denied, NeedsApproval, NotFound, QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.mcpclient import split_url
from quarterdeck.wire.client import Pool, Response
from quarterdeck.wire.http import Header
from quarterdeck.wire.sse import SseParser

_CODES: dict[int, type[QuarterdeckError]] = {4001: NeedsApproval, 4003: Denied, 4008: TimedOut}
_NOT_SERVED = "is not served by this gateway"


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer as the model writes it."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolAnswered:
    id: str
    name: str
    text: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole answer (an artifact)."""

    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """The task's state, ``TASK_STATE_…``; ``message`` is what the agent says about it."""

    task: str
    session: str
    state: str
    message: str


@dataclass(frozen=True, slots=True)
class ToolsMissing:
    """A tool server that the agent could not ask for its tools."""

    server: str
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The task waits for its user: to confirm a call (``tool``), or, with ``ask_user``, to answer."""

    tool: str
    arguments: dict[str, Any]


Event = Asked | Text | ToolCalled | ToolAnswered | Answer | Status | ToolsMissing


class A2aClient:
    """One agent at one URL. ``trace_id`` is that of the last request, for looking it up in audit records and traces."""

    def __init__(self, pool: Pool, url: str, headers: list[Header]) -> None:
        self.url = url
        self.trace_id = ""
        self._pool = pool
        self._origin, self._target = split_url(url)
        self._headers = headers

    async def ask(
        self, text: str, session: str, task: str = "", data: dict[str, Any] | None = None
    ) -> AsyncIterator[Event]:
        """Send a message and yield what happens until the task ends. ``session`` is a context id, empty for a new one.

        ``task``: one that waits for this message; ``data``: sent instead of the text. Raises Denied, NeedsApproval,
        NotFound, UpstreamError.
        """
        part: dict[str, Any] = {"text": text} if data is None else {"data": data}
        message: dict[str, Any] = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [part]}
        message |= {key: value for key, value in (("contextId", session), ("taskId", task)) if value}
        response = await self._send("SendStreamingMessage", {"message": message})
        try:
            async for result in self._results(response):
                for event in events_of(result):
                    yield event
        finally:
            response.close()

    async def cancel(self, task: str) -> None:
        (await self._send("CancelTask", {"id": task})).close()

    async def _send(self, method: str, params: dict[str, Any]) -> Response:
        self.trace_id = secrets.token_hex(16)
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        headers: list[Header] = [
            (b"content-type", b"application/json"),
            (b"accept", b"text/event-stream, application/json"),
            (b"a2a-version", b"1.0"),
            (b"traceparent", f"00-{self.trace_id}-{secrets.token_hex(8)}-01".encode()),
            *self._headers,
        ]
        return await self._pool.request("POST", self._origin, self._target, headers, body, timeout=None)

    async def _results(self, response: Response) -> AsyncIterator[dict[str, Any]]:
        kind = (response.header(b"content-type") or b"").partition(b";")[0].strip()
        if response.status != 200:
            raise failure(response.status, (await response.read())[:4000], self.url)
        if kind != b"text/event-stream":
            yield _result(await response.read(), self.url)
            return
        parser = SseParser()
        async for chunk in response:
            for event in parser.feed(chunk):
                if event.data:
                    yield _result(event.data, self.url)


def failure(status: int, body: bytes, url: str) -> QuarterdeckError:
    """The error of an HTTP status, with the JSON error's message when there is one."""
    try:
        error = json.loads(body)["error"]
        code, message = int(error.get("code", 0)), str(error["message"])
        return Denied(message) if code == status and status in (401, 403) else _error(code, message)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body.decode("utf-8", "replace").strip()
    if status in (401, 403):
        return Denied(f"{url}: HTTP {status}: {text}")
    if status == 404:
        return NotFound(f"{url}: {text or 'not found'}")
    return UpstreamError(f"{url}: HTTP {status}: {text}")


def _error(code: int, message: str) -> QuarterdeckError:
    if _NOT_SERVED in message:  # JSON-RPC has no code for it
        return NotFound(f"{message}; see which there are: qd get agents -A")
    return _CODES.get(code, UpstreamError)(message)


def _result(data: bytes, url: str) -> dict[str, Any]:
    try:
        message: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UpstreamError(f"{url}: answered with what is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise UpstreamError(f"{url}: answered with what is not a JSON-RPC message")
    if isinstance(message.get("error"), dict):
        raise _error(int(message["error"].get("code", 0)), str(message["error"].get("message", "")))
    result = message.get("result")
    if not isinstance(result, dict):
        raise UpstreamError(f"{url}: the answer holds no result")
    return result


def events_of(result: dict[str, Any]) -> list[Event]:
    """The events in one streamed result: a task, a message, a status or an artifact update."""
    if "artifactUpdate" in result:
        return [Answer(_text(result["artifactUpdate"].get("artifact") or {}))]
    if "message" in result:
        return [Answer(_text(result["message"]))]
    if "task" in result:
        task = result["task"]
        found: list[Event] = [Answer(_text(artifact)) for artifact in task.get("artifacts") or []]
        found += _missing(task)
        return [*found, _status(task.get("id", ""), task.get("contextId", ""), task.get("status") or {})]
    update = result.get("statusUpdate") or {}
    status = update.get("status") or {}
    message = status.get("message") or {}
    events: list[Event] = _missing(update)
    partial = bool((message.get("metadata") or {}).get("quarterdeck.dev/partial"))
    for part in message.get("parts") or []:
        kind = (part.get("metadata") or {}).get("kagent_type") or (part.get("metadata") or {}).get("adk_type")
        data = part.get("data") or {}
        if kind == "function_call" and data.get("name") == "adk_request_confirmation":
            original = (data.get("args") or {}).get("originalFunctionCall") or {}
            events.append(Asked(str(original.get("name", "")), original.get("args") or {}))
        elif kind == "function_call":
            events.append(ToolCalled(str(data.get("id", "")), str(data.get("name", "")), data.get("args") or {}))
        elif kind == "function_response":
            response = data.get("response") or {}
            text = str(response.get("result", ""))
            failed = bool(response.get("isError"))
            events.append(ToolAnswered(str(data.get("id", "")), str(data.get("name", "")), text, failed))
        elif "text" in part and partial:
            events.append(Text(str(part["text"])))
    return [*events, _status(update.get("taskId", ""), update.get("contextId", ""), status)]


def _missing(holder: dict[str, Any]) -> list[Event]:
    servers: dict[str, Any] = (holder.get("metadata") or {}).get("unavailable") or {}
    return [ToolsMissing(url.partition("/mcp/")[2] or url, str(reason)) for url, reason in servers.items()]


def _status(task: str, session: str, status: dict[str, Any]) -> Status:
    return Status(task, session, str(status.get("state", "")), _text(status.get("message") or {}))


def _text(holder: dict[str, Any]) -> str:
    return "\n".join(str(part["text"]) for part in holder.get("parts") or [] if "text" in part)
