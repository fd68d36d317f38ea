"""The errors of A2A (specification 1.0.1, §3.3.2 and §5.4) and how each binding says them."""

from __future__ import annotations

from typing import Any, ClassVar

from quarterdeck.errors import Denied, QuarterdeckError, TimedOut, Unauthorized, UpstreamError

from . import ERROR_DOMAIN, Json

_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


class A2AError(QuarterdeckError):
    """Subclasses carry a row of the table in §5.4. ``metadata`` goes to the client as it is."""

    code: ClassVar[int] = -32603
    http_status = 400
    grpc_status: ClassVar[str] = "INVALID_ARGUMENT"
    kind: ClassVar[str] = "INTERNAL_ERROR"
    """The error's name in UPPER_SNAKE_CASE without ``Error``."""

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.metadata = metadata


class ParseError(A2AError):
    code = -32700
    kind = "PARSE_ERROR"


class InvalidRequest(A2AError):
    code = -32600
    kind = "INVALID_REQUEST"


class MethodNotFound(A2AError):
    code = -32601
    http_status = 404
    grpc_status = "UNIMPLEMENTED"
    kind = "METHOD_NOT_FOUND"


class InvalidParams(A2AError):
    """The message begins with the member's path and a colon."""

    code = -32602
    kind = "INVALID_PARAMS"


class Unauthenticated(A2AError):
    code = -32000
    http_status = 401
    grpc_status = "UNAUTHENTICATED"
    kind = "UNAUTHENTICATED"


class TaskNotFound(A2AError):
    code = -32001
    http_status = 404
    grpc_status = "NOT_FOUND"
    kind = "TASK_NOT_FOUND"


class TaskNotCancelable(A2AError):
    code = -32002
    grpc_status = "FAILED_PRECONDITION"
    kind = "TASK_NOT_CANCELABLE"


class PushNotSupported(A2AError):
    code = -32003
    grpc_status = "FAILED_PRECONDITION"
    kind = "PUSH_NOTIFICATION_NOT_SUPPORTED"


class UnsupportedOperation(A2AError):
    code = -32004
    grpc_status = "FAILED_PRECONDITION"
    kind = "UNSUPPORTED_OPERATION"


class ContentTypeNotSupported(A2AError):
    code = -32005
    kind = "CONTENT_TYPE_NOT_SUPPORTED"


class InvalidAgentResponse(A2AError):
    code = -32006
    http_status = 500
    grpc_status = "INTERNAL"
    kind = "INVALID_AGENT_RESPONSE"


class ExtendedCardNotConfigured(A2AError):
    code = -32007
    grpc_status = "FAILED_PRECONDITION"
    kind = "EXTENDED_AGENT_CARD_NOT_CONFIGURED"


class ExtensionSupportRequired(A2AError):
    code = -32008
    grpc_status = "FAILED_PRECONDITION"
    kind = "EXTENSION_SUPPORT_REQUIRED"


class VersionNotSupported(A2AError):
    code = -32009
    grpc_status = "FAILED_PRECONDITION"
    kind = "VERSION_NOT_SUPPORTED"


_OTHERS: tuple[tuple[type[QuarterdeckError], int, str], ...] = (
    (Unauthorized, 401, "UNAUTHENTICATED"),
    (Denied, 403, "PERMISSION_DENIED"),
    (TimedOut, 504, "DEADLINE_EXCEEDED"),
    (UpstreamError, 503, "UNAVAILABLE"),
)


def statuses(error: QuarterdeckError) -> tuple[int, int, str]:
    """JSON-RPC code, HTTP status and gRPC status of an error."""
    if isinstance(error, A2AError):
        return error.code, error.http_status, error.grpc_status
    for kind, status, name in _OTHERS:
        if isinstance(error, kind):
            return -32603, status, name
    return -32603, 500, "INTERNAL"


def details(error: QuarterdeckError) -> list[Json]:
    """``google.rpc.ErrorInfo``, and for parameters ``google.rpc.BadRequest`` with the member that is wrong."""
    kind = error.kind if isinstance(error, A2AError) else "INTERNAL_ERROR"
    metadata = error.metadata if isinstance(error, A2AError) else {}
    found: list[Json] = [{"@type": _INFO, "reason": kind, "domain": ERROR_DOMAIN, "metadata": dict(metadata)}]
    if isinstance(error, InvalidParams):
        field, _, text = str(error).partition(": ")
        found.append({"@type": _BAD_REQUEST, "fieldViolations": [{"field": field, "description": text}]})
    return found


def jsonrpc_error(ident: Any, error: QuarterdeckError) -> Json:
    """The response object of JSON-RPC (§9.5)."""
    body = {"code": statuses(error)[0], "message": str(error), "data": details(error)}
    return {"jsonrpc": "2.0", "id": ident, "error": body}


def http_error(error: QuarterdeckError) -> tuple[int, Json]:
    """Status and body of HTTP+JSON (§11.6, AIP-193)."""
    _, status, name = statuses(error)
    return status, {"error": {"code": status, "status": name, "message": str(error), "details": details(error)}}
