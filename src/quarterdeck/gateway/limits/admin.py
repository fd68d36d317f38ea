"""``GET /breakers`` and ``POST /breakers/reset?server=NS/NAME&tool=TOOL`` of the admin port (15000)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from quarterdeck.wire.http import Exchange

from .breaker import Breakers

_JSON = [(b"content-type", b"application/json")]


def handler(breakers: Breakers) -> Callable[[Exchange], None]:
    """``{"breakers": [{server, tool, state, failures, opened, since, retry_in}]}``; reset: ``{"reset": number}``."""

    def handle(exchange: Exchange) -> None:
        path = exchange.path
        if path == "/breakers" and exchange.method == "GET":
            exchange.respond(200, msgspec.json.encode({"breakers": breakers.views()}), _JSON)
        elif path == "/breakers/reset" and exchange.method == "POST":
            query = dict(exchange.query)
            server = query.get("server", "")
            if not server:
                _error(exchange, 400, "give server=NAMESPACE/NAME, and tool=TOOL for one tool of it")
                return
            body = msgspec.json.encode({"reset": breakers.reset(server, query.get("tool", ""))})
            exchange.respond(200, body, _JSON)
        else:
            _error(exchange, 404, "see GET /breakers and POST /breakers/reset?server=NAMESPACE/NAME[&tool=TOOL]")

    return handle


def _error(exchange: Exchange, status: int, message: str) -> None:
    exchange.respond(status, msgspec.json.encode({"error": {"message": message, "code": status}}), _JSON)
