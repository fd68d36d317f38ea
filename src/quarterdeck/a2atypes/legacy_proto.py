"""Version 0.3 of A2A as its protocol buffer has it (HTTP+JSON and gRPC), from and to 1.0.

Requests may name members as ProtoJSON does or as the proto file does, and may hold the parts of JSON-RPC, which the
text of specification 0.3 shows for HTTP, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import Json, legacy, operations

_CANCELED, _CANCELLED = "TASK_STATE_CANCELED", "TASK_STATE_CANCELLED"
_SNAKE = {
    "messageId": "message_id", "contextId": "context_id", "taskId": "task_id", "acceptedOutputModes":
    "accepted_output_modes", "historyLength": "history_length", "pushNotification": "push_notification",
    "pushNotificationConfig": "push_notification_config", "configId": "config_id", "fileWithUri": "file_with_uri",
    "fileWithBytes": "file_with_bytes", "mimeType": "mime_type",
}  # fmt: skip


def _member(value: Json, name: str, *others: str) -> Any:
    for candidate in (name, _SNAKE.get(name, name), *others):
        if candidate in value:
            return value[candidate]
    return None


# -- requests
def request_in(operation: str, params: Json) -> Json:
    """The body and path parameters of a 0.3 request as the parameters of 1.0."""
    if operation in (operations.SEND, operations.STREAM):
        out: Json = {"message": message_in(_member(params, "message", "request"))}
        if isinstance(params.get("configuration"), dict):
            out["configuration"] = _configuration_in(params["configuration"])
        return out | ({"metadata": params["metadata"]} if params.get("metadata") else {})
    if operation == operations.PUSH_CREATE:
        return _create_in(params)
    return params


def message_in(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    out: Json = {}
    for name in ("messageId", "contextId", "taskId", "metadata", "extensions"):
        found = _member(value, name)
        if found:
            out[name] = found
    out["role"] = {"user": "ROLE_USER", "agent": "ROLE_AGENT"}.get(str(value.get("role")), value.get("role"))
    parts = _member(value, "content", "parts")
    out["parts"] = [_part_in(part) for part in parts] if isinstance(parts, list) else parts
    return out


def _part_in(part: Any) -> Any:
    if not isinstance(part, dict) or "kind" in part:
        return legacy.part_in(part)
    extra: Json = {"metadata": part["metadata"]} if part.get("metadata") else {}
    if isinstance(part.get("file"), dict):
        file: Json = {
            name: _member(part["file"], name) for name in ("fileWithUri", "fileWithBytes", "mimeType", "name")
        }
        return legacy.file_in({k: v for k, v in file.items() if v is not None}, "fileWithUri", "fileWithBytes") | extra
    if isinstance(part.get("data"), dict) and "data" in part["data"]:
        return {"data": part["data"]["data"]} | extra
    return part


def _configuration_in(value: Json) -> Json:
    names = ("acceptedOutputModes", "historyLength", "blocking")
    given: Json = {name: _member(value, name) for name in names}
    given["pushNotificationConfig"] = _member(value, "pushNotification", "pushNotificationConfig")
    # a proto bool that is false is not written, so its absence says nothing
    return legacy.configuration_in({k: v for k, v in given.items() if v is not None})


def _create_in(params: Json) -> Json:
    config = params.get("config")
    config = config if isinstance(config, dict) else params
    inner = _member(config, "pushNotificationConfig")
    out = legacy.config_in(inner if isinstance(inner, dict) else config)
    ident = _member(params, "configId") or out.get("id")
    return out | {"taskId": params.get("taskId")} | ({"id": ident} if ident else {})


# -- results
def result_out(operation: str, value: Any) -> Any:
    """The result of an operation, or one event of a stream, as ProtoJSON of 0.3."""
    translate = _RESULTS.get(operation)
    return translate(value) if translate is not None else value


def message_out(message: Json) -> Json:
    out = {k: v for k, v in message.items() if k not in ("parts", "referenceTaskIds")}
    return out | {"content": [_part_out(part) for part in message["parts"]]}


def _part_out(part: Json) -> Json:
    extra: Json = {"metadata": part["metadata"]} if part.get("metadata") else {}
    if "text" in part:
        return {"text": part["text"]} | extra
    if "data" in part:
        return {"data": {"data": legacy.data_out(part["data"])}} | extra
    file: Json = {"fileWithUri": part["url"]} if "url" in part else {"fileWithBytes": part.get("raw", "")}
    file |= {k: part[s] for k, s in (("mimeType", "mediaType"), ("name", "filename")) if part.get(s)}
    return {"file": file} | extra


def _status_out(status: Json) -> Json:
    out = status | {"state": _CANCELLED if status["state"] == _CANCELED else status["state"]}
    if "message" in status:
        out["message"] = message_out(status["message"])
    return out


def _artifact_out(artifact: Json) -> Json:
    return artifact | {"parts": [_part_out(part) for part in artifact["parts"]]}


def task_out(task: Json) -> Json:
    return task | {
        "status": _status_out(task["status"]),
        "artifacts": [_artifact_out(a) for a in task.get("artifacts") or ()],
        "history": [message_out(m) for m in task.get("history") or ()],
    }


def event_out(event: Json) -> Json:
    if "task" in event:
        return {"task": task_out(event["task"])}
    if "message" in event:
        return {"message": message_out(event["message"])}
    if "statusUpdate" in event:
        update = event["statusUpdate"]
        final = update["status"]["state"] in legacy.ENDS
        return {"statusUpdate": update | {"status": _status_out(update["status"]), "final": final}}
    update = event["artifactUpdate"]
    return {"artifactUpdate": update | {"artifact": _artifact_out(update["artifact"])}}


def _config_out(config: Json) -> Json:
    name = f"tasks/{config['taskId']}/pushNotificationConfigs/{config['id']}"
    return {"name": name, "pushNotificationConfig": legacy.config_out(config)}


_RESULTS: dict[str, Callable[[Any], Any]] = {
    operations.SEND: event_out,
    operations.STREAM: event_out,
    operations.SUBSCRIBE: event_out,
    operations.GET: task_out,
    operations.CANCEL: task_out,
    operations.PUSH_CREATE: _config_out,
    operations.PUSH_GET: _config_out,
    operations.PUSH_LIST: lambda value: {"configs": [_config_out(each) for each in value["configs"]]},
}
