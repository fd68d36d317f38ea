"""Errors of providers, whatever their shape, as OpenAI's: clients know what to do about those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from quarterdeck.malformed import MALFORMED

_LONGEST = 4000  # characters of a provider's message
_TYPES = {
    400: "invalid_request_error", 404: "not_found_error", 408: "timeout_error", 413: "invalid_request_error",
    422: "invalid_request_error", 429: "rate_limit_error", 503: "overloaded_error", 529: "overloaded_error",
}  # fmt: skip
_OVERLOADED = frozenset({"overloaded_error", "UNAVAILABLE", "ServiceUnavailableException", "ModelNotReadyException"})
_LIMITED = frozenset({"rate_limit_error", "RESOURCE_EXHAUSTED", "ThrottlingException", "rate_limit_exceeded"})
_FILTERED = frozenset({"content_filter", "content_policy_violation"})


@dataclass(frozen=True, slots=True)
class Problem:
    """``status`` is what the client gets. ``retry_after`` in seconds, where the provider asks for it in its body."""

    status: int
    message: str
    kind: str
    code: str = ""
    retry_after: int | None = None

    def document(self) -> dict[str, Any]:
        return {"message": self.message, "type": self.kind, "param": None, "code": self.code or str(self.status)}


def problem(status: int, body: bytes) -> Problem:
    """What an answer with an error status says."""
    try:
        document = msgspec.json.decode(body)
    except MALFORMED:
        text = body[:_LONGEST].decode("utf-8", "replace").strip()
        return _named(status, text, "", "")
    return told(document, status)


def told(document: Any, status: int = 0) -> Problem:
    """What an error document says; ``status`` 0: it came in the middle of a stream."""
    if isinstance(document, list) and document:
        document = document[0]  # Gemini, streaming
    error: Any = document
    if isinstance(document, dict):
        error = document.get("error", document)
    if not isinstance(error, dict):
        return _named(status, str(error)[:_LONGEST], "", "")
    message = error.get("message") or error.get("Message") or error.get("error_description") or ""
    kind = str(error.get("status") or error.get("type") or error.get("__type") or "").rpartition("#")[2]
    code = str(error.get("code") or "")
    if not status and code.isdigit():
        status = int(code)
    return _named(status, str(message)[:_LONGEST], kind, "" if code.isdigit() else code, _retry(error))


def _named(status: int, message: str, kind: str, code: str, retry_after: int | None = None) -> Problem:
    message = message or f"HTTP {status}"
    said = {kind, code}
    if said & _OVERLOADED or status in (503, 529):
        return Problem(503, message, "overloaded_error", code, retry_after)
    if said & _LIMITED or status == 429:
        quota = "insufficient_quota" in said
        return Problem(429, message, "insufficient_quota" if quota else "rate_limit_error", code, retry_after)
    if said & _FILTERED:
        return Problem(status or 400, message, "invalid_request_error", "content_filter")
    if not 400 <= status < 600:
        return Problem(502, message, "upstream_error", code, retry_after)
    return Problem(status, message, _TYPES.get(status, "server_error" if status >= 500 else kind), code, retry_after)


def _retry(error: dict[str, Any]) -> int | None:
    """Google's RetryInfo: ``{"retryDelay": "17s"}`` among the details."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = str(detail.get("retryDelay") or "") if isinstance(detail, dict) else ""
        seconds = delay.removesuffix("s").partition(".")[0]
        if seconds.isdigit() and len(seconds) < 7:
            return int(seconds) + 1
    return None
