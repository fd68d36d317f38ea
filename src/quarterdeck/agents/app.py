"""The agent's HTTP surface: A2A at ``/``, its card, health and readiness."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from quarterdeck.errors import QuarterdeckError

from .a2a import jsonrpc, v03
from .credentials import trace_parent
from .runs import Runs, watch

BODY_LIMIT = 4 * 1024 * 1024
DEFAULT_USER = "admin@kagent.dev"


def build(card: dict[str, Any], runs: Runs) -> FastAPI:
    """The application. It is ready as soon as it listens: a tool server that is down costs its tools, not the agent."""
    app = FastAPI(title=str(card.get("name", "agent")), openapi_url=None, docs_url=None, redoc_url=None)
    operations = jsonrpc.Operations(runs, watch)

    async def rpc(request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return Response(f"the body is larger than {BODY_LIMIT} bytes\n", 413, media_type="text/plain")
        user = request.headers.get("x-user-id") or DEFAULT_USER
        trace_parent.set(request.headers.get("traceparent", ""))
        try:
            parsed = jsonrpc.parse(body, request.headers.get("a2a-version", ""), user)
            if parsed.operation in ("stream", "subscribe"):
                return StreamingResponse(_sse(await operations.stream(parsed)), headers=_STREAM_HEADERS)
            answer = await operations.unary(parsed)
        except QuarterdeckError as error:
            answer = jsonrpc.failure(jsonrpc.request_id(body), error)
        return Response(answer, media_type="application/json")

    async def agent_card(request: Request) -> Response:
        body = json.dumps(v03.card_v1(card, str(request.base_url))).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"etag": etag, "cache-control": "public, max-age=60"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    async def health() -> Response:
        return Response("ok\n", media_type="text/plain")

    app.add_api_route("/", rpc, methods=["POST"])
    for path in ("/.well-known/agent-card.json", "/.well-known/agent.json"):
        app.add_api_route(path, agent_card, methods=["GET"])
    app.add_api_route("/health", health, methods=["GET"])
    app.add_api_route("/ready", health, methods=["GET"])
    return app


_STREAM_HEADERS = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}


async def _body(request: Request) -> bytes | None:
    """The body, or None when it is too large."""
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_LIMIT:
            return None
        parts.append(chunk)
    return b"".join(parts)


async def _sse(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async for event in events:
            yield b"data: " + event + b"\n\n"
    finally:
        await events.aclose()
