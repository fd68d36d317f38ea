"""HTTP of the scripted model server: /v1/chat/completions, /v1/embeddings, /v1/models, /health, /ready, /metrics."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from typing import Any

from quarterdeck.errors import BadRequest
from quarterdeck.wire.http import Disconnected, Exchange, Header
from quarterdeck.wire.sse import encode

from ..memory import offline
from . import completion
from .script import Entry

JSON: list[Header] = [(b"content-type", b"application/json")]
_EVENTS: list[Header] = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
BODY_LIMIT = 4 * 1024 * 1024
"""Largest request body in bytes."""


class ModelServer:
    """Answers as one model called ``model``."""

    def __init__(self, model: str, script: list[Entry]) -> None:
        self._model = model
        self._script = script
        self._started = int(time.time())
        self._requests: dict[tuple[str, int], int] = {}

    def handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        path = exchange.path.rstrip("/") or "/"
        embeds = path.endswith("/embeddings")
        wanted = "POST" if embeds or path.endswith("/chat/completions") else "GET"
        if path not in (
            "/v1/chat/completions", "/chat/completions", "/v1/embeddings", "/embeddings", "/v1/models",
            f"/v1/models/{self._model}", "/health", "/ready", "/metrics",
        ):  # fmt: skip
            return self._error(exchange, 404, f"{exchange.method} {path}: no such endpoint; see /v1/models")
        if exchange.method != wanted and not (wanted == "GET" and exchange.method == "HEAD"):
            return self._error(exchange, 405, f"{path}: use {wanted}")
        if embeds:
            return self._embed(exchange)
        if wanted == "POST":
            return self._complete(exchange)
        if path == "/metrics":
            exchange.respond(200, self._metrics(), [(b"content-type", b"text/plain; version=0.0.4")])
        elif path == "/v1/models":
            self._respond(exchange, 200, completion.models(self._model, self._started))
        elif path.startswith("/v1/models/"):
            self._respond(exchange, 200, completion.model_card(self._model, self._started))
        else:
            self._respond(exchange, 200, {"status": "ok", "model": self._model, "provider": "Scripted"})
        return None

    def _embed(self, exchange: Exchange) -> None:
        try:
            self._respond(exchange, 200, offline.answer(exchange.body, self._model))
        except BadRequest as error:
            self._error(exchange, 400, str(error))

    async def _complete(self, exchange: Exchange) -> None:
        try:
            request = completion.parse(exchange.body)
            outcome = completion.answer(request, self._script)
        except BadRequest as error:
            self._error(exchange, 400, str(error))
            return
        if outcome.delay:
            await asyncio.sleep(outcome.delay)
        if outcome.error is not None:
            self._error(exchange, *outcome.error)
            return
        ident, created = completion.identify(exchange.body), int(time.time())
        counted = completion.usage(exchange.body, outcome)
        if not request.get("stream"):
            self._respond(exchange, 200, completion.completion(self._model, ident, created, outcome, counted))
            return
        options: Any = request.get("stream_options")
        wanted = counted if isinstance(options, dict) and options.get("include_usage") else None
        self._count(exchange, 200)
        exchange.start(200, _EVENTS)
        try:
            for chunk in completion.chunks(self._model, ident, created, outcome, wanted):
                await exchange.send(encode(json.dumps(chunk, ensure_ascii=False).encode()))
            await exchange.send(encode(b"[DONE]"))
        except Disconnected:
            return
        exchange.finish()

    def _error(self, exchange: Exchange, status: int, message: str) -> None:
        self._respond(exchange, status, completion.error(status, message))

    def _respond(self, exchange: Exchange, status: int, document: dict[str, Any]) -> None:
        self._count(exchange, status)
        exchange.respond(status, json.dumps(document, ensure_ascii=False).encode(), JSON)

    def _count(self, exchange: Exchange, status: int) -> None:
        if exchange.method == "POST":
            key = (self._model, status)
            self._requests[key] = self._requests.get(key, 0) + 1

    def _metrics(self) -> bytes:
        lines = [
            "# HELP quarterdeck_scripted_requests_total Chat completions answered, by HTTP status.",
            "# TYPE quarterdeck_scripted_requests_total counter",
        ]
        for (model, status), number in sorted(self._requests.items()):
            label = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            lines.append(f'quarterdeck_scripted_requests_total{{model="{label}",status="{status}"}} {number}')
        return ("\n".join(lines) + "\n").encode()
