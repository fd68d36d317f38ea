"""A2A over JSON-RPC: methods of 1.0 and of 0.3 on one endpoint, told apart by ``A2A-Version`` (empty means 0.3)."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quarterdeck.errors import QuarterdeckError

from . import types, v03
from .types import Json

if TYPE_CHECKING:
    from quarterdeck.agents.runs import Active, Runs

Watch = Callable[["Active"], AsyncGenerator[Json]]

_METHODS_V1 = {
    "SendMessage": "send",
    "SendStreamingMessage": "stream",
    "GetTask": "get",
    "CancelTask": "cancel",
    "SubscribeToTask": "subscribe",
}
_METHODS_V03 = {
    "message/send": "send",
    "message/stream": "stream",
    "tasks/get": "get",
    "tasks/cancel": "cancel",
    "tasks/resubscribe": "subscribe",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One JSON-RPC request. ``id`` is echoed as it came."""

    id: Any
    operation: str
    params: Json
    legacy: bool
    user: str


def parse(body: bytes, version: str, user: str) -> Request:
    """Raises an A2AError; the request id, when it can be read, is on ``error.request_id``."""
    version = version.strip() or "0.3"
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise types.ParseError(f"the body is not valid JSON: {error}") from error
    if (
        not isinstance(document, dict)
        or document.get("jsonrpc") != "2.0"
        or not isinstance(document.get("method"), str)
    ):
        raise types.InvalidRequest('the body must be one JSON-RPC 2.0 request with "method"')
    if version not in types.VERSIONS:
        raise types.VersionNotSupported(
            f"A2A-Version {version!r} is not spoken here, {' and '.join(types.VERSIONS)} are"
        )
    legacy = version == "0.3"
    operation = (_METHODS_V03 if legacy else _METHODS_V1).get(document["method"])
    if operation is None:
        known = ", ".join(_METHODS_V03 if legacy else _METHODS_V1)
        raise types.MethodNotFound(
            f"method {document['method']!r} does not exist in version {version}; there are {known}"
        )
    params = document.get("params", {})
    if not isinstance(params, dict):
        raise types.InvalidParams("params: must be an object")
    return Request(document.get("id"), operation, params, legacy, user)


def request_id(body: bytes) -> Any:
    """The id of a request that could not be accepted, or None."""
    try:
        return json.loads(body).get("id")
    except (ValueError, AttributeError, RecursionError):
        return None


def result(request: Request, value: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request.id, "result": value}).encode()


def failure(ident: Any, error: QuarterdeckError) -> bytes:
    code = error.code if isinstance(error, types.A2AError) else -32603
    return json.dumps({"jsonrpc": "2.0", "id": ident, "error": {"code": code, "message": str(error)}}).encode()


class Operations:
    """The operations behind the methods, in terms of 1.0 objects."""

    def __init__(self, runs: Runs, watch: Watch) -> None:
        self._runs = runs
        self._watch = watch

    async def unary(self, request: Request) -> bytes:
        """Answer anything but a stream. Raises QuarterdeckError."""
        handlers: dict[str, Callable[[Request], Awaitable[Json]]] = {
            "send": self._send,
            "get": self._get,
            "cancel": self._cancel,
        }
        task = await handlers[request.operation](request)
        if request.legacy:
            return result(request, v03.task_out(task))
        return result(request, {"task": task} if request.operation == "send" else task)

    async def stream(self, request: Request) -> AsyncGenerator[bytes]:
        """The events of a new or running task. Raises QuarterdeckError before the first one."""
        if request.operation == "stream":
            active = await self._runs.start(_message(request), request.user)
        else:
            active = self._runs.active(_task_id(request), request.user)
            if active is None:
                task = await self._runs.get(_task_id(request), request.user)
                raise types.UnsupportedOperation(f"task {task['id']} is not being worked on; get it instead")
        return self._events(request, active)

    async def _events(self, request: Request, active: Active) -> AsyncGenerator[bytes]:
        async for event in self._watch(active):
            yield result(request, v03.event_out(event) if request.legacy else event)

    async def _send(self, request: Request) -> Json:
        configuration = request.params.get("configuration") or {}
        active = await self._runs.start(_message(request), request.user)
        immediately = configuration.get("returnImmediately") is True or configuration.get("blocking") is False
        if not immediately:
            await active.finished.wait()
        return types.trimmed(active.task, _history_length(configuration))

    async def _get(self, request: Request) -> Json:
        length = _history_length(request.params)
        return types.trimmed(await self._runs.get(_task_id(request), request.user), length)

    async def _cancel(self, request: Request) -> Json:
        return await self._runs.cancel(_task_id(request), request.user)


def _message(request: Request) -> Json:
    raw = request.params.get("message")
    return types.check_message(v03.message_in(raw) if request.legacy else raw)


def _task_id(request: Request) -> str:
    value = request.params.get("id")
    if not isinstance(value, str) or not value:
        raise types.InvalidParams("id: must be the id of a task")
    return value


def _history_length(params: Json) -> int | None:
    value = params.get("historyLength")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise types.InvalidParams("historyLength: must be a whole number, 0 or more")
    return value
