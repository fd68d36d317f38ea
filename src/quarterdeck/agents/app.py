"""The agent's HTTP surface: A2A at ``/`` (JSON-RPC) and below (HTTP+JSON), its card, health and readiness."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from quarterdeck.a2atypes import CARD_PATHS, MEDIA_TYPE, cards, errors, operations
from quarterdeck.errors import QuarterdeckError
from quarterdeck.telemetry.metrics import Registry

from .a2a import jsonrpc, rest
from .a2a.core import Core
from .doors.http import Doors
from .incoming import BODY_LIMIT, PRINCIPAL, Identify, base_of, body_of, gateway_caller, told

_CARD_AGE = "public, max-age=60"
_STREAM = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
_JSON_TYPES = ("application/json", MEDIA_TYPE)


def build(core: Core, identify: Identify = gateway_caller, metrics: Registry | None = None) -> FastAPI:
    """The application. It is ready as soon as it listens: a tool server that is down costs its tools, not the agent.

    ``metrics`` are served to who reaches the Pod itself, not through the gateway.
    """
    app = FastAPI(title=core.card.name, openapi_url=None, docs_url=None, redoc_url=None)
    door = _Door(core, identify)
    app.add_api_route("/", door.rpc, methods=["POST"])
    for path in CARD_PATHS:
        app.add_api_route(path, door.agent_card, methods=["GET"])
    for path in ("/health", "/ready"):
        app.add_api_route(path, _health, methods=["GET"])
    Doors(core, identify).add_to(app)
    if metrics is not None:
        app.add_api_route("/metrics", _exposition(metrics), methods=["GET"])
    app.add_api_route("/{path:path}", door.http_json, methods=["GET", "POST", "PUT", "DELETE"])
    return app


async def _health() -> Response:
    return Response("ok\n", media_type="text/plain")


def _exposition(metrics: Registry) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        if PRINCIPAL in request.headers:
            return Response("metrics are not served through the gateway\n", 404, media_type="text/plain")
        return Response(metrics.render(), headers={"content-type": metrics.content_type.decode()})

    return answer


class _Door:
    """Both bindings on HTTP."""

    def __init__(self, core: Core, identify: Identify) -> None:
        self._core = core
        self._identify = identify

    async def rpc(self, request: Request) -> Response:
        body = await body_of(request)
        if body is None:
            return Response(f"the body is larger than {BODY_LIMIT} bytes\n", 413, media_type="text/plain")
        told(request)
        try:
            _check_type(request)
            version = request.headers.get("a2a-version", "") or request.query_params.get("A2A-Version", "")
            ident, call = jsonrpc.parse(
                body, version, self._identify(request), _extensions(request), _after(request), base_of(request)
            )
            headers = _activated(self._core.activated(call))
            if call.operation in operations.STREAMS:
                events = await jsonrpc.events(self._core, ident, call)
                return StreamingResponse(_sse(events), headers=_STREAM | headers)
            return Response(await jsonrpc.answer(self._core, ident, call), headers=headers, media_type=_JSON_TYPES[0])
        except QuarterdeckError as error:
            status = 401 if isinstance(error, errors.Unauthenticated) else 200
            answer = jsonrpc.failure(jsonrpc.request_id(body), error)
            return Response(answer, status, headers=_challenge(status), media_type=_JSON_TYPES[0])

    async def http_json(self, request: Request) -> Response:
        body = await body_of(request)
        if body is None:
            return Response(f"the body is larger than {BODY_LIMIT} bytes\n", 413, media_type="text/plain")
        told(request)
        path = request.scope.get("raw_path", b"").decode("latin-1").partition("?")[0] or request.url.path
        query = parse_qsl(request.url.query, keep_blank_values=True)
        try:
            if body:
                _check_type(request)
            version = request.headers.get("a2a-version", "")
            call = rest.parse(
                request.method, path, query, body, version, self._identify(request), _extensions(request),
                _after(request), base_of(request),
            )  # fmt: skip
            headers = _activated(self._core.activated(call))
            if call.operation in operations.STREAMS:
                return StreamingResponse(_sse(await rest.events(self._core, call)), headers=_STREAM | headers)
            answer = await rest.answer(self._core, call)
            return Response(answer, headers=headers, media_type=_answer_type(request, call.version))
        except QuarterdeckError as error:
            status, answer = rest.failure(error)
            return Response(answer, status, headers=_challenge(status), media_type=_JSON_TYPES[0])

    async def agent_card(self, request: Request) -> Response:
        body = cards.encoded(await self._core.card.public(str(request.base_url)))
        tag = cards.etag(body)
        headers = {"etag": tag, "cache-control": _CARD_AGE, "vary": "host"}
        if cards.matches(request.headers.get("if-none-match"), tag):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=_JSON_TYPES[0], headers=headers)


def _check_type(request: Request) -> None:
    """A body that says it is no JSON is not taken for it; one that says nothing is. Raises ContentTypeNotSupported."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given and given not in _JSON_TYPES:
        message = f"Content-Type {given[:100]} is not taken; send {' or '.join(_JSON_TYPES)}"
        raise errors.ContentTypeNotSupported(message, contentType=given[:100])


def _answer_type(request: Request, version: str) -> str:
    """``application/a2a+json``, but for readers of 0.3 and those that ask for plain JSON only."""
    accept = request.headers.get("accept", "*/*")
    plain = version == "0.3" or (_JSON_TYPES[0] in accept and MEDIA_TYPE not in accept and "*/*" not in accept)
    return _JSON_TYPES[0] if plain else MEDIA_TYPE


def _extensions(request: Request) -> tuple[str, ...]:
    given = [*request.headers.getlist("a2a-extensions"), *request.headers.getlist("x-a2a-extensions")]
    return tuple(uri.strip() for line in given for uri in line.split(",") if uri.strip())[:100]


def _after(request: Request) -> int | None:
    """The last event seen, of a client whose stream broke; anything but a number of ours counts as none."""
    text = request.headers.get("last-event-id", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _activated(uris: tuple[str, ...]) -> dict[str, str]:
    return {"a2a-extensions": ", ".join(uris)} if uris else {}


def _challenge(status: int) -> dict[str, str]:
    return {"www-authenticate": 'Bearer realm="quarterdeck"'} if status == 401 else {}


async def _sse(events: AsyncGenerator[tuple[int, bytes]]) -> AsyncGenerator[bytes]:
    try:
        async for number, event in events:
            yield (b"id: %d\n" % number if number else b"") + b"data: " + event + b"\n\n"
    finally:
        await events.aclose()
