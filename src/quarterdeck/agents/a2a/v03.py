"""Version 0.3 of A2A from and to 1.0: names of states and roles, ``kind`` members, file parts, the card."""

from __future__ import annotations

from typing import Any

from .types import TERMINAL, Json

_STATES = {
    "TASK_STATE_SUBMITTED": "submitted",
    "TASK_STATE_WORKING": "working",
    "TASK_STATE_COMPLETED": "completed",
    "TASK_STATE_FAILED": "failed",
    "TASK_STATE_CANCELED": "canceled",
    "TASK_STATE_REJECTED": "rejected",
    "TASK_STATE_INPUT_REQUIRED": "input-required",
    "TASK_STATE_AUTH_REQUIRED": "auth-required",
}
_INTERRUPTED = ("TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED")


def message_in(value: Any) -> Any:
    """A 0.3 message as a 1.0 one; what is malformed is passed on for :func:`~.types.check_message` to name."""
    if not isinstance(value, dict):
        return value
    out = {k: v for k, v in value.items() if k != "kind"}
    out["role"] = {"user": "ROLE_USER", "agent": "ROLE_AGENT"}.get(str(value.get("role")), value.get("role"))
    if isinstance(value.get("parts"), list):
        out["parts"] = [_part_in(part) for part in value["parts"]]
    return out


def _part_in(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("kind")
    extra: Json = {"metadata": part["metadata"]} if "metadata" in part else {}
    if kind == "text":
        return {"text": part.get("text", "")} | extra
    if kind == "data":
        return {"data": part.get("data")} | extra
    if kind == "file" and isinstance(part.get("file"), dict):
        file = part["file"]
        content = {"url": file["uri"]} if "uri" in file else {"raw": file.get("bytes", "")}
        return content | {"mediaType": file.get("mimeType", ""), "filename": file.get("name", "")} | extra
    return part


def message_out(message: Json) -> Json:
    out = message | {
        "kind": "message",
        "role": "user" if message["role"] == "ROLE_USER" else "agent",
        "parts": [_part_out(part) for part in message["parts"]],
    }
    return out


def _part_out(part: Json) -> Json:
    extra: Json = {"metadata": part["metadata"]} if "metadata" in part else {}
    if "text" in part:
        return {"kind": "text", "text": part["text"]} | extra
    if "data" in part:
        return {"kind": "data", "data": part["data"]} | extra
    file: Json = {"uri": part["url"]} if "url" in part else {"bytes": part.get("raw", "")}
    file |= {k: part[s] for k, s in (("mimeType", "mediaType"), ("name", "filename")) if part.get(s)}
    return {"kind": "file", "file": file} | extra


def status_out(status: Json) -> Json:
    out = status | {"state": _STATES[status["state"]]}
    if "message" in status:
        out["message"] = message_out(status["message"])
    return out


def artifact_out(artifact: Json) -> Json:
    return artifact | {"parts": [_part_out(part) for part in artifact["parts"]]}


def task_out(task: Json) -> Json:
    return task | {
        "kind": "task",
        "status": status_out(task["status"]),
        "artifacts": [artifact_out(a) for a in task["artifacts"]],
        "history": [message_out(m) for m in task["history"]],
    }


def event_out(event: Json) -> Json:
    """One stream response (task, message, statusUpdate, artifactUpdate) as the flat 0.3 object with ``kind``."""
    if "task" in event:
        return task_out(event["task"])
    if "message" in event:
        return message_out(event["message"])
    if "statusUpdate" in event:
        update = event["statusUpdate"]
        state = update["status"]["state"]
        final = state in TERMINAL or state in _INTERRUPTED
        return update | {"kind": "status-update", "status": status_out(update["status"]), "final": final}
    update = event["artifactUpdate"]
    return update | {"kind": "artifact-update", "artifact": artifact_out(update["artifact"])}


def card_out(card: Json, url: str) -> Json:
    """The 0.3 card that ``config/agent-card.json`` holds, with the address it was asked at."""
    return card | {"url": url, "protocolVersion": "0.3.0", "preferredTransport": "JSONRPC"}


def card_v1(card: Json, url: str) -> Json:
    """The same card in version 1.0 form; both forms' members are kept so that one document serves both readers."""
    interfaces = [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": version} for version in ("1.0", "0.3")]
    return card_out(card, url) | {"supportedInterfaces": interfaces}
