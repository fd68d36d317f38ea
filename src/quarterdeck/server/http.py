"""The little routing that the control plane's REST APIs need, on our own HTTP server."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import msgspec

from quarterdeck.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, QuarterdeckError
from quarterdeck.malformed import MALFORMED
from quarterdeck.wire.http import Exchange, Header
from quarterdeck.wire.text import of_header

_JSON: Header = (b"content-type", b"application/json")


@dataclass(slots=True)
class Call:
    """One request as a handler sees it."""

    exchange: Exchange
    parameters: dict[str, str]
    query: dict[str, str] = field(default_factory=dict[str, str])

    def body(self) -> dict[str, Any]:
        """The JSON object in the body. Raises BadRequest."""
        try:
            value = msgspec.json.decode(self.exchange.body or b"{}")
        except MALFORMED as error:
            raise BadRequest(f"the body is not valid JSON: {error}") from error
        if not isinstance(value, dict):
            raise BadRequest("the body must be a JSON object")
        return value

    def text(self, body: dict[str, Any], name: str, *, required: bool = False) -> str | None:
        """A string member of the body. Raises BadRequest naming it."""
        value = body.get(name)
        if value is None and not required:
            return None
        if not isinstance(value, str) or (required and not value):
            raise BadRequest(f"{name}: must be a {'non-empty ' if required else ''}string")
        return value

    def header(self, name: bytes) -> str:
        return of_header(self.exchange.header(name) or b"")


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer."""

    data: Any
    status: int = 200


Handler = Callable[[Call], Awaitable[Answer | None]]
"""Returns None when it has answered on the exchange itself (streams)."""


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    pattern: re.Pattern[str]
    handler: Handler


def route(method: str, template: str, handler: Handler) -> Route:
    """``template`` holds ``{name}`` for one path segment, which may hold a slash where that is percent-encoded."""
    return Route(method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)), handler)


class Router:
    """An ordered list of routes. ``failure`` turns an error into the API's own error document."""

    def __init__(self, routes: list[Route], failure: Callable[[QuarterdeckError], Any]) -> None:
        self._routes = routes
        self._failure = failure

    def handle(self, exchange: Exchange) -> Coroutine[Any, Any, None]:
        return self._handle(exchange)

    async def _handle(self, exchange: Exchange) -> None:
        try:
            handler, call = self._match(exchange)
            answer = await handler(call)
        except QuarterdeckError as error:
            if exchange.started:
                exchange.abort()
                return
            status = error.status_code if isinstance(error, ApiError) else error.http_status
            answer = Answer(self._failure(error), status)
        if answer is not None:
            body, headers = (b"", []) if answer.status == 204 else (msgspec.json.encode(answer.data), [_JSON])
            exchange.respond(answer.status, body, headers)

    def _match(self, exchange: Exchange) -> tuple[Handler, Call]:
        path = exchange.raw_path.decode("latin-1")
        if len(path) > 1:
            path = path.rstrip("/")
        allowed: list[str] = []
        for candidate in self._routes:
            found = candidate.pattern.fullmatch(path)
            if found is None:
                continue
            if candidate.method == exchange.method:
                parameters = {name: unquote(value) for name, value in found.groupdict().items()}
                return candidate.handler, Call(exchange, parameters, dict(exchange.query))
            allowed.append(candidate.method)
        if allowed:
            raise MethodNotAllowed(f"{exchange.path} takes {', '.join(allowed)}, not {exchange.method}")
        raise NotFound(f"{exchange.path} is not here")
