"""What the gateway itself says on an agent's paths, in the form of the binding, and what a request is called."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.a2atypes import errors, operations
from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.wire.http import Header

from ..call import Call

JSON: Header = (b"content-type", b"application/json")
_OTHERS = {"/agui": "agui", "/v1/chat/completions": "chat/completions", "/v1/responses": "responses"}
_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 502: "UNAVAILABLE",
    503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED", 508: "FAILED_PRECONDITION",
}  # fmt: skip


def operation(call: Call, path: str) -> str:
    """What is asked for: A2A's operation, a JSON-RPC method we do not know, or the HTTP method of anything else.

    Keeps the JSON-RPC id for the answer. It becomes a metric label: one of few, or the caller's text, cut short.
    """
    exchange = call.exchange
    if path not in ("", "/"):
        if path in _OTHERS:
            return _OTHERS[path]
        version = call.headers.get(b"a2a-version", b"").decode("latin-1")
        try:
            return operations.match(exchange.method, path, operations.version(version)).operation
        except errors.A2AError:
            return exchange.method
    if exchange.method == "POST" and exchange.body:
        try:
            message = jsonrpc.parse(exchange.body)
        except jsonrpc.FramingError:
            return "POST"
        if message.id is not msgspec.UNSET:
            call.raw_id = bytes(message.id)
        return message.method[:64] if message.method else "POST"
    return exchange.method


def answer(call: Call, status: int, message: str, code: int = protocol.INVALID_REQUEST) -> None:
    """An error of the gateway's own: JSON-RPC to who speaks it, else as AIP-193 has it."""
    if call.raw_id:
        call.exchange.respond(200, jsonrpc.error_response(call.raw_id, code, message), [JSON])
        return
    name = _STATUS.get(status, "INTERNAL")
    reason = "GATEWAY_DENIED" if status in (401, 403, 508) else "GATEWAY_FAILED"
    detail: dict[str, Any] = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "quarterdeck.dev",
        "metadata": {"code": str(code)},
    }  # fmt: skip
    error = {"code": status, "status": name, "message": message, "details": [detail]}
    call.exchange.respond(status, msgspec.json.encode({"error": error}), [JSON])
