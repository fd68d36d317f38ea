"""The error tree. Each error has one reason code that maps once to HTTP, JSON-RPC and condition reasons.

QuarterdeckError
├── UsageError                 the person typed something wrong              exit 2
├── ApiError                   a Kubernetes API status (reason = metav1.StatusReason)
│   ├── BadRequest 400, Unauthorized 401, Forbidden 403, NotFound 404, MethodNotAllowed 405, NotAcceptable 406
│   ├── AlreadyExists 409, Conflict 409, Expired 410 (alias Gone), TooLarge 413, UnsupportedMediaType 415
│   ├── Invalid 422 (with causes), TooManyRequests 429
│   └── InternalError 500, ServiceUnavailable 503, GatewayTimeout 504
├── Denied                     a policy decision said no                     exit 3
├── NeedsApproval              a person must approve first                   exit 4
├── TimedOut                   a deadline passed                             exit 5
├── ConfigError                a file or resource cannot be used as written (names file, line, field)
│   ├── RefNotFound            an object, or a key in it, that it names is not there
│   ├── RefNotPermitted        what it names may not be used from its namespace
│   ├── CircularReference      agents call each other in a circle
│   ├── InvalidName            names made from its name would not be valid
│   ├── ConfigTooLarge         what is made of it does not fit into the object that carries it
│   ├── ProviderNotSupported   the gateway cannot call a model of that provider, or not in that way
│   ├── NameConflict           a name it needs is held by an object that is not its own
│   └── NamespaceTerminating   its namespace is being deleted: nothing can be created there
├── StorageError               the data directory cannot be used
├── NotLeader                  another replica leads, or may: nothing was sent
└── UpstreamError              a peer failed: unreachable, closed early, or broke its protocol
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


class QuarterdeckError(Exception):
    """Root of all errors raised on purpose. ``str(error)`` names the object, the field and the next step."""

    reason: ClassVar[str] = "InternalError"
    http_status: ClassVar[int] = 500
    jsonrpc_code: ClassVar[int] = -32603
    exit_code: ClassVar[int] = 1


class UsageError(QuarterdeckError):
    reason = "Usage"
    http_status = 400
    exit_code = 2


class Denied(QuarterdeckError):
    """A policy decision said no; ``rule`` names the deciding rule."""

    reason = "Denied"
    http_status = 403
    jsonrpc_code = 4003
    exit_code = 3

    def __init__(self, message: str, rule: str = "") -> None:
        super().__init__(message)
        self.rule = rule


class NeedsApproval(QuarterdeckError):
    reason = "ApprovalRequired"
    http_status = 403
    jsonrpc_code = 4001
    exit_code = 4


class TimedOut(QuarterdeckError):
    reason = "Timeout"
    http_status = 504
    jsonrpc_code = 4008
    exit_code = 5


class ConfigError(QuarterdeckError):
    reason = "InvalidConfig"
    http_status = 400


class RefNotFound(ConfigError):
    reason = "RefNotFound"


class RefNotPermitted(ConfigError):
    reason = "RefNotPermitted"
    http_status = 403


class CircularReference(ConfigError):
    reason = "CircularReference"


class InvalidName(ConfigError):
    reason = "InvalidName"


class ConfigTooLarge(ConfigError):
    reason = "ConfigTooLarge"
    http_status = 413


class ProviderNotSupported(ConfigError):
    reason = "ProviderNotSupported"


class NameConflict(ConfigError):
    reason = "NameConflict"
    http_status = 409


class NamespaceTerminating(ConfigError):
    reason = "NamespaceTerminating"
    http_status = 403


class StorageError(QuarterdeckError):
    reason = "StorageUnavailable"
    http_status = 503


class NotLeader(QuarterdeckError):
    """A write was held back because our lease may have run out."""

    reason = "NotLeader"
    http_status = 503


class UpstreamError(QuarterdeckError):
    reason = "UpstreamUnavailable"
    http_status = 502
    jsonrpc_code = 4002


@dataclass(frozen=True, slots=True)
class Cause:
    """One metav1.StatusCause: what is wrong with which field."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


@dataclass
class ApiError(QuarterdeckError):
    """A Kubernetes API failure, on both sides of the wire.

    ``group``/``kind`` hold what kubectl prints: for NotFound and Conflict the *resource* plural, for Invalid the kind.
    """

    message: str
    name: str = ""
    group: str = ""
    kind: str = ""
    causes: tuple[Cause, ...] = ()
    retry_after: int | None = None
    uid: str = ""
    continue_token: str = field(default="", kw_only=True)  # metadata.continue: how an expired list can go on
    code: int | None = field(default=None, kw_only=True)
    reason_code: str | None = field(default=None, kw_only=True)

    def __str__(self) -> str:
        return self.message

    @property
    def passing(self) -> bool:
        """Whether the same wish may succeed by itself: somebody else wrote, or the server has no time for us."""
        return isinstance(self, Conflict) or self.status_code in (429, 503, 504)

    @property
    def status_code(self) -> int:
        return self.code if self.code is not None else self.http_status

    @property
    def status_reason(self) -> str:
        return self.reason_code if self.reason_code is not None else self.reason

    def to_status(self) -> dict[str, Any]:
        """The metav1.Status object for this error."""
        details: dict[str, Any] = {}
        for key, value in (("name", self.name), ("group", self.group), ("kind", self.kind), ("uid", self.uid)):
            if value:
                details[key] = value
        if self.causes:
            details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in self.causes]
        if self.retry_after is not None:
            details["retryAfterSeconds"] = self.retry_after
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": self.message,
            "reason": self.status_reason,
        }
        if details:
            status["details"] = details
        status["code"] = self.status_code
        return status


class BadRequest(ApiError):
    reason = "BadRequest"
    http_status = 400


class Unauthorized(ApiError):
    reason = "Unauthorized"
    http_status = 401


class Forbidden(ApiError):
    reason = "Forbidden"
    http_status = 403
    exit_code = 3


class NotFound(ApiError):
    reason = "NotFound"
    http_status = 404


class MethodNotAllowed(ApiError):
    reason = "MethodNotAllowed"
    http_status = 405


class NotAcceptable(ApiError):
    reason = "NotAcceptable"
    http_status = 406


class AlreadyExists(ApiError):
    reason = "AlreadyExists"
    http_status = 409


class Conflict(ApiError):
    reason = "Conflict"
    http_status = 409


class Expired(ApiError):
    """The resourceVersion is older than what is kept (410)."""

    reason = "Expired"
    http_status = 410


class TooLarge(ApiError):
    reason = "RequestEntityTooLarge"
    http_status = 413


class UnsupportedMediaType(ApiError):
    reason = "UnsupportedMediaType"
    http_status = 415


class Invalid(ApiError):
    reason = "Invalid"
    http_status = 422


class TooManyRequests(ApiError):
    reason = "TooManyRequests"
    http_status = 429


class InternalError(ApiError):
    reason = "InternalError"
    http_status = 500


class ServiceUnavailable(ApiError):
    reason = "ServiceUnavailable"
    http_status = 503


class GatewayTimeout(ApiError):
    reason = "Timeout"
    http_status = 504


_BY_REASON: dict[str, type[ApiError]] = {
    cls.reason: cls
    for cls in (
        BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, AlreadyExists, Conflict,
        Expired, TooLarge, UnsupportedMediaType, Invalid, TooManyRequests, InternalError, ServiceUnavailable,
        GatewayTimeout,
    )
}  # fmt: skip
_BY_REASON["Gone"] = Expired


def api_error_from_status(status: dict[str, Any]) -> ApiError:
    """The typed error for a metav1.Status received from an API server."""
    details: dict[str, Any] = status.get("details") or {}
    cls = _BY_REASON.get(str(status.get("reason", "")), ApiError)
    return cls(
        str(status.get("message", "")),
        name=str(details.get("name", "")),
        group=str(details.get("group", "")),
        kind=str(details.get("kind", "")),
        causes=tuple(
            Cause(str(c.get("field", "")), str(c.get("message", "")), str(c.get("reason", "")))
            for c in details.get("causes") or ()
        ),
        retry_after=details.get("retryAfterSeconds"),
        code=status.get("code"),
        reason_code=status.get("reason"),
        continue_token=str((status.get("metadata") or {}).get("continue") or ""),
    )
