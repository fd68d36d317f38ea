"""Writing responses: JSON or YAML bytes, Status objects, Warning headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from quarterdeck.apiserver.codec import Accept, dump_yaml, encode
from quarterdeck.errors import ApiError, Denied, QuarterdeckError, ServiceUnavailable, StorageError
from quarterdeck.kube.resource import Object
from quarterdeck.wire.http import Exchange, Header

JSON: Header = (b"content-type", b"application/json")
TEXT: Header = (b"content-type", b"text/plain; charset=utf-8")
_YAML: Header = (b"content-type", b"application/yaml")
_MAX_WARNINGS = 4096


def warning_headers(warnings: Iterable[str]) -> list[Header]:
    """``Warning: 299 - "…"`` (RFC 9111 §5.5 quoting), each text once, bounded as upstream."""
    headers: list[Header] = []
    size = 0
    for text in dict.fromkeys(warnings):
        clean = "".join(c if c.isprintable() else " " for c in text)
        size += len(clean)
        if size > _MAX_WARNINGS:
            break
        quoted = clean.replace("\\", "\\\\").replace('"', '\\"')
        headers.append((b"warning", f'299 - "{quoted}"'.encode()))
    return headers


def send_bytes(exchange: Exchange, status: int, body: bytes, accept: Accept, warnings: Iterable[str] = ()) -> None:
    """Send JSON bytes, turned into YAML when asked for."""
    headers = warning_headers(warnings)
    if accept.yaml:
        exchange.respond(status, dump_yaml(msgspec.json.decode(body)), [_YAML, *headers])
    else:
        exchange.respond(status, body, [JSON, *headers])


def send(exchange: Exchange, status: int, value: Any) -> None:
    exchange.respond(status, encode(value) + b"\n", [JSON])


def send_error(exchange: Exchange, error: QuarterdeckError, warnings: Iterable[str] = ()) -> None:
    """The Status of an error; storage trouble becomes 503."""
    if isinstance(error, ApiError):
        shown = error
    elif isinstance(error, StorageError):
        shown = ServiceUnavailable(str(error))
    else:
        reason = "Forbidden" if isinstance(error, Denied) else error.reason
        shown = ApiError(str(error), code=error.http_status, reason_code=reason)
    headers = [JSON, *warning_headers(warnings)]
    if shown.retry_after is not None:
        headers.append((b"retry-after", b"%d" % shown.retry_after))
    exchange.respond(shown.status_code, encode(shown.to_status()) + b"\n", headers)


_REFUSALS = {400: "BadRequest", 413: "RequestEntityTooLarge", 500: "InternalError"}


def refusal(status: int, message: str) -> tuple[bytes, bytes]:
    """Media type and Status for what the listener refuses before any handler sees it (``wire.http.Server``)."""
    shown = ApiError(message, code=status, reason_code=_REFUSALS.get(status, ""))
    return b"application/json", encode(shown.to_status()) + b"\n"


def success(details: Object) -> Object:
    """The Status of a completed deletion."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
