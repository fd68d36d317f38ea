"""``/v1/chat/completions``, ``/v1/responses``, ``/v1/models`` and ``/agui`` on the agent's port."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from time import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from quarterdeck.a2atypes import Json, errors
from quarterdeck.errors import QuarterdeckError
from quarterdeck.malformed import loads

from ..a2a.core import Caller, Core, Reply, Running
from ..incoming import BODY_LIMIT, Identify, body_of, told
from . import agui, asked, openai
from .openai import Answer
from .pieces import End, Piece, Text, pieces

_STREAM = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
_DONE = b"data: [DONE]\n\n"
_RESPONSE = "resp_"


class Doors:
    """All of them lead to the core that A2A leads to."""

    def __init__(self, core: Core, identify: Identify) -> None:
        self._core = core
        self._identify = identify

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route("/v1/chat/completions", self.chat, methods=["POST"])
        app.add_api_route("/v1/responses", self.responses, methods=["POST"])
        app.add_api_route("/v1/models", self.models, methods=["GET"])
        app.add_api_route("/agui", self.agui, methods=["POST"])

    async def models(self) -> Response:
        """The agent is the one model there is."""
        model = {"id": self._core.card.name, "object": "model", "created": 0, "owned_by": "quarterdeck"}
        return _json({"object": "list", "data": [model]})

    async def chat(self, request: Request) -> Response:
        try:
            body, caller = await _body(request), self._identify(request)
            given = asked.chat(body)
            task, found = await self._start(given, caller)
            answer = Answer(task, _model(body, self._core), int(time()))
            if body.get("stream") is True:
                options = body.get("stream_options")
                usage = isinstance(options, dict) and options.get("include_usage") is True
                return _sse(openai.completion_chunks(answer, found, usage=usage), end=_DONE)
            return await self._whole(answer, found, openai.completion)
        except QuarterdeckError as error:
            return _refused(error)

    async def responses(self, request: Request) -> Response:
        try:
            body, caller = await _body(request), self._identify(request)
            previous = body.get("previous_response_id")
            if isinstance(previous, str) and previous:
                task = await self._core.engine.get(previous.removeprefix(_RESPONSE), caller.user)
                known = {"context_id": task["contextId"]}
                waits = task["status"]["state"] in ("TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED")
                body["metadata"] = known | ({"task_id": task["id"]} if waits else {})
            given = asked.response(body)
            task, found = await self._start(given, caller)
            answer = Answer(task, _model(body, self._core), int(time()))
            if body.get("stream") is True:
                return _sse(openai.response_events(answer, found), named=True)
            return await self._whole(answer, found, openai.response)
        except QuarterdeckError as error:
            return _refused(error)

    async def agui(self, request: Request) -> Response:
        try:
            body, caller = await _body(request), self._identify(request)
            given = asked.agui(body)
            _, found = await self._start(given, caller)
        except QuarterdeckError as error:
            return _refused(error)
        return _sse(agui.stream(body["threadId"], body["runId"], found, time))

    async def _start(self, given: Json, caller: Caller) -> tuple[Json, AsyncGenerator[Piece]]:
        """The task, and what happens."""
        started = await self._core.begin(given, caller.user)
        if isinstance(started, Reply):
            return _task_of(started), _only(started)
        return started.task, pieces(started.task, _follow(started))

    async def _whole(self, answer: Answer, found: AsyncGenerator[Piece], form: Any) -> Response:
        async for piece in found:
            answer.add(piece)
        if answer.failed and form is openai.completion:
            return _json(openai.error(answer.failed, "agent_error", "task_failed"), 502)
        return _json(form(answer))


def _follow(running: Running) -> AsyncGenerator[tuple[int, Json]]:
    return running.follow()


def _task_of(reply: Reply) -> Json:
    ids = {"id": reply.message["messageId"], "contextId": reply.message.get("contextId", "")}
    return ids | {"status": {"state": "TASK_STATE_COMPLETED"}, "metadata": {}}


async def _only(reply: Reply) -> AsyncGenerator[Piece]:
    yield Text("\n".join(str(part["text"]) for part in reply.message["parts"] if "text" in part))
    yield End("TASK_STATE_COMPLETED", "", {}, _task_of(reply))


async def _body(request: Request) -> Json:
    """Raises ParseError, InvalidRequest."""
    told(request)
    raw = await body_of(request)
    if raw is None:
        raise errors.InvalidRequest(f"the body is larger than {BODY_LIMIT} bytes")
    try:
        document = loads(raw)
    except (ValueError, RecursionError) as error:
        raise errors.ParseError(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise errors.InvalidRequest("the body must be a JSON object")
    return document


def _model(body: Json, core: Core) -> str:
    model = body.get("model")
    return model if isinstance(model, str) and model else core.card.name


def _refused(error: QuarterdeckError) -> Response:
    _, status, _ = errors.statuses(error)
    code = error.kind.lower() if isinstance(error, errors.A2AError) else "internal_error"
    kind = "invalid_request_error" if status < 500 else "server_error"
    return _json(openai.error(str(error), kind, code), status)


def _json(value: Json, status: int = 200) -> Response:
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, media_type="application/json")


def _sse(events: AsyncGenerator[Json], *, named: bool = False, end: bytes = b"") -> StreamingResponse:
    async def encoded() -> AsyncGenerator[bytes]:
        try:
            async for event in events:
                name = f"event: {event['type']}\n" if named else ""
                yield f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
            if end:
                yield end
        finally:
            await events.aclose()

    return StreamingResponse(encoded(), headers=_STREAM)
