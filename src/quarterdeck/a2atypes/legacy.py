"""Version 0.3 of A2A as JSON-RPC has it, from and to 1.0: names of states and roles, ``kind`` members, file parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import Json, operations

STATES = {
    "TASK_STATE_SUBMITTED": "submitted",
    "TASK_STATE_WORKING": "working",
    "TASK_STATE_COMPLETED": "completed",
    "TASK_STATE_FAILED": "failed",
    "TASK_STATE_CANCELED": "canceled",
    "TASK_STATE_REJECTED": "rejected",
    "TASK_STATE_INPUT_REQUIRED": "input-required",
    "TASK_STATE_AUTH_REQUIRED": "auth-required",
}
ENDS = frozenset(STATES) - {"TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"}
"""States that end a stream of 0.3 (``final``)."""
_ROLES = {"user": "ROLE_USER", "agent": "ROLE_AGENT"}


# -- requests
def request_in(operation: str, params: Json) -> Json:
    """The parameters of a 0.3 request as those of 1.0; what is malformed is passed on for the core to name."""
    translate = _REQUESTS.get(operation)
    return translate(params) if translate is not None else params


def message_in(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    out = {k: v for k, v in value.items() if k != "kind"}
    out["role"] = _ROLES.get(str(value.get("role")), value.get("role"))
    if isinstance(value.get("parts"), list):
        out["parts"] = [part_in(part) for part in value["parts"]]
    return out


def part_in(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("kind")
    extra: Json = {"metadata": part["metadata"]} if part.get("metadata") else {}
    if kind == "text":
        return {"text": part.get("text", "")} | extra
    if kind == "data":
        return {"data": part.get("data")} | extra
    if kind == "file" and isinstance(part.get("file"), dict):
        return file_in(part["file"], "uri", "bytes") | extra
    return part


def file_in(file: Json, uri: str, content: str) -> Json:
    """A file of 0.3, whose members hold its address or its base64 content under these names."""
    out: Json = {"url": file[uri]} if uri in file else {"raw": file.get(content, "")}
    return out | {to: file[name] for name, to in (("mimeType", "mediaType"), ("name", "filename")) if file.get(name)}


def configuration_in(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    out = {k: v for k, v in value.items() if k == "acceptedOutputModes"}
    if value.get("historyLength"):  # 0 means no limit in 0.3
        out["historyLength"] = value["historyLength"]
    if value.get("blocking") is not None:
        out["returnImmediately"] = value["blocking"] is False
    if value.get("pushNotificationConfig"):
        out["taskPushNotificationConfig"] = config_in(value["pushNotificationConfig"])
    return out


def config_in(value: Any) -> Any:
    """A PushNotificationConfig."""
    if not isinstance(value, dict):
        return value
    out = {k: v for k, v in value.items() if k in ("id", "url", "token") and v}
    authentication = value.get("authentication")
    if isinstance(authentication, dict):
        schemes = authentication.get("schemes")
        out["authentication"] = {"scheme": schemes[0] if isinstance(schemes, list) and schemes else ""}
        if authentication.get("credentials"):
            out["authentication"]["credentials"] = authentication["credentials"]
    return out


def _send_in(params: Json) -> Json:
    out: Json = {"message": message_in(params.get("message"))}
    if params.get("configuration") is not None:
        out["configuration"] = configuration_in(params["configuration"])
    if params.get("metadata") is not None:
        out["metadata"] = params["metadata"]
    return out


def _set_in(params: Json) -> Json:
    config = config_in(params.get("pushNotificationConfig"))
    return {"taskId": params.get("taskId")} | (config if isinstance(config, dict) else {})


def _config_id_in(params: Json) -> Json:
    return {"taskId": params.get("id"), "id": params.get("pushNotificationConfigId") or ""}


_REQUESTS: dict[str, Callable[[Json], Json]] = {
    operations.SEND: _send_in,
    operations.STREAM: _send_in,
    operations.PUSH_CREATE: _set_in,
    operations.PUSH_GET: _config_id_in,
    operations.PUSH_DELETE: _config_id_in,
    operations.PUSH_LIST: lambda params: {"taskId": params.get("id")},
}


# -- results
def result_out(operation: str, value: Any) -> Any:
    """The result of an operation, or one event of a stream, as 0.3 has it."""
    translate = _RESULTS.get(operation)
    return translate(value) if translate is not None else value


def message_out(message: Json) -> Json:
    return message | {
        "kind": "message",
        "role": "user" if message["role"] == "ROLE_USER" else "agent",
        "parts": [part_out(part) for part in message["parts"]],
    }


def part_out(part: Json) -> Json:
    extra: Json = {"metadata": part["metadata"]} if part.get("metadata") else {}
    if "text" in part:
        return {"kind": "text", "text": part["text"]} | extra
    if "data" in part:
        return {"kind": "data", "data": data_out(part["data"])} | extra
    file: Json = {"uri": part["url"]} if "url" in part else {"bytes": part.get("raw", "")}
    file |= {k: part[s] for k, s in (("mimeType", "mediaType"), ("name", "filename")) if part.get(s)}
    return {"kind": "file", "file": file} | extra


def data_out(value: Any) -> Json:
    """Data of 0.3 is always an object."""
    return value if isinstance(value, dict) else {"value": value}


def status_out(status: Json) -> Json:
    out = status | {"state": STATES.get(status["state"], "unknown")}
    if "message" in status:
        out["message"] = message_out(status["message"])
    return out


def artifact_out(artifact: Json) -> Json:
    return artifact | {"parts": [part_out(part) for part in artifact["parts"]]}


def task_out(task: Json) -> Json:
    return task | {
        "kind": "task",
        "status": status_out(task["status"]),
        "artifacts": [artifact_out(a) for a in task.get("artifacts") or ()],
        "history": [message_out(m) for m in task.get("history") or ()],
    }


def event_out(event: Json) -> Json:
    """One stream response (task, message, statusUpdate, artifactUpdate) as the flat 0.3 object with ``kind``."""
    if "task" in event:
        return task_out(event["task"])
    if "message" in event:
        return message_out(event["message"])
    if "statusUpdate" in event:
        update = event["statusUpdate"]
        final = update["status"]["state"] in ENDS
        return update | {"kind": "status-update", "status": status_out(update["status"]), "final": final}
    update = event["artifactUpdate"]
    return update | {"kind": "artifact-update", "artifact": artifact_out(update["artifact"])}


def config_out(config: Json) -> Json:
    """A PushNotificationConfig."""
    out: Json = {k: config[k] for k in ("id", "url", "token") if config.get(k)}
    authentication = config.get("authentication")
    if authentication:
        out["authentication"] = {"schemes": [authentication.get("scheme", "")]}
        if authentication.get("credentials"):
            out["authentication"]["credentials"] = authentication["credentials"]
    return out


def _task_config_out(config: Json) -> Json:
    return {"taskId": config["taskId"], "pushNotificationConfig": config_out(config)}


_RESULTS: dict[str, Callable[[Any], Any]] = {
    operations.SEND: event_out,
    operations.STREAM: event_out,
    operations.SUBSCRIBE: event_out,
    operations.GET: task_out,
    operations.CANCEL: task_out,
    operations.PUSH_CREATE: _task_config_out,
    operations.PUSH_GET: _task_config_out,
    operations.PUSH_LIST: lambda value: [_task_config_out(each) for each in value["configs"]],
    operations.PUSH_DELETE: lambda value: None,
}
