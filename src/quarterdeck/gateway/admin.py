"""Ports for operators: 15000 (``/config_dump``, ``/logging``), 15020 (``/metrics``), 15021 (``/healthz/ready``)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from quarterdeck.errors import UsageError
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.http import Exchange, Handler

from . import logs

_JSON = [(b"content-type", b"application/json")]
_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


def admin_handler(dump: Callable[[], dict[str, Any]], extra: Mapping[str, Handler] = MappingProxyType({})) -> Handler:
    """``GET /config_dump`` (of :func:`quarterdeck.gateway.config.dump.config_dump`), ``GET``/``POST /logging``.

    ``POST /logging?level=debug``, ``?level=gateway.mcp=debug,…`` or ``?reset``. ``extra``: handlers by the first
    segment of their paths.
    """

    def handle(exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        path = exchange.path
        host = (exchange.header(b"host") or b"").rpartition(b":")[0].strip(b"[]")
        if exchange.header(b"origin") is not None or host not in (b"localhost", b"127.0.0.1", b"::1"):
            exchange.respond(403, b"the admin port does not answer web pages\n", _TEXT)
        elif path == "/config_dump" and exchange.method == "GET":
            exchange.respond(200, msgspec.json.format(msgspec.json.encode(dump()), indent=2), _JSON)
        elif path == "/logging" and exchange.method in ("GET", "POST"):
            _logging(exchange)
        elif (found := extra.get(path.split("/")[1])) is not None:
            return found(exchange)
        else:
            exchange.respond(404, b"see /config_dump and /logging\n", _TEXT)
        return None

    return handle


def _logging(exchange: Exchange) -> None:
    query = dict(exchange.query)
    if exchange.method == "POST":
        try:
            if "reset" in query:
                logs.reset()
            else:
                logs.set_levels(query.get("level", ""))
        except UsageError as error:
            exchange.respond(400, f"{error}\n".encode(), _TEXT)
            return
    exchange.respond(200, f"current log level is {logs.levels()}\n".encode(), _TEXT)


def stats_handler(registry: Registry) -> Callable[[Exchange], None]:
    """``GET /metrics`` and ``/stats/prometheus``."""

    def handle(exchange: Exchange) -> None:
        if exchange.path in ("/metrics", "/stats/prometheus"):
            exchange.respond(200, registry.render(), [(b"content-type", registry.content_type)])
        else:
            exchange.respond(404, b"see /metrics\n", _TEXT)

    return handle


def ready_handler(problem: Callable[[], str]) -> Callable[[Exchange], None]:
    """``GET /healthz/ready``: 200 unless there is a problem to name."""

    def handle(exchange: Exchange) -> None:
        if exchange.path not in ("/healthz/ready", "/healthz", "/ready"):
            exchange.respond(404, b"see /healthz/ready\n", _TEXT)
            return
        text = problem()
        exchange.respond(503 if text else 200, (text or "ready").encode() + b"\n", _TEXT)

    return handle
