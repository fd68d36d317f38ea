"""Ports for operators: 15000 (``/config_dump``, ``/logging``), 15020 (``/metrics``), 15021 (``/healthz/ready``)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from quarterdeck.snapshot import Snapshot, redacted
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.http import Exchange

_JSON = [(b"content-type", b"application/json")]
_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]
_LEVELS = {"trace": "DEBUG", "debug": "DEBUG", "info": "INFO", "warn": "WARNING", "warning": "WARNING",
           "error": "ERROR"}  # fmt: skip


def admin_handler(
    snapshot: Callable[[], Snapshot], extra: Mapping[str, Callable[[Exchange], None]] = MappingProxyType({})
) -> Callable[[Exchange], None]:
    """``GET /config_dump`` with secrets redacted; ``GET``/``POST /logging[?level=debug]``.

    ``extra``: handlers by the first segment of their paths.
    """

    def handle(exchange: Exchange) -> None:
        path = exchange.path
        host = (exchange.header(b"host") or b"").rpartition(b":")[0].strip(b"[]")
        if exchange.header(b"origin") is not None or host not in (b"localhost", b"127.0.0.1", b"::1"):
            exchange.respond(403, b"the admin port does not answer web pages\n", _TEXT)
        elif path == "/config_dump" and exchange.method == "GET":
            exchange.respond(200, msgspec.json.format(msgspec.json.encode(redacted(snapshot())), indent=2), _JSON)
        elif path == "/logging" and exchange.method in ("GET", "POST"):
            _logging(exchange)
        elif (found := extra.get(path.split("/")[1])) is not None:
            found(exchange)
        else:
            exchange.respond(404, b"see /config_dump and /logging\n", _TEXT)

    return handle


def _logging(exchange: Exchange) -> None:
    logger = logging.getLogger("quarterdeck")
    if exchange.method == "POST":
        level = _LEVELS.get(dict(exchange.query).get("level", "").lower())
        if level is None:
            exchange.respond(400, f"level must be one of {', '.join(_LEVELS)}\n".encode(), _TEXT)
            return
        logger.setLevel(level)
    name = logging.getLevelName(logger.getEffectiveLevel()).lower()
    exchange.respond(200, f"current log level is {name}\n".encode(), _TEXT)


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
