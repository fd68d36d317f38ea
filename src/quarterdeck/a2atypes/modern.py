"""Version 1.0 of A2A to an agent that speaks 0.3 only (JSON-RPC): requests down, results up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import Json, legacy, operations

METHODS = {operation: method for method, operation in operations.LEGACY_METHODS.items()}
"""0.3's names of the operations that it has."""
_STATES = {old: new for new, old in legacy.STATES.items()}


def speaks(card: Json) -> str:
    """The newest version that an agent's card says: "1.0" or "0.3"."""
    interfaces = card.get("supportedInterfaces")
    if isinstance(interfaces, list) and interfaces:
        versions = [str(each.get("protocolVersion", "1.0")) for each in interfaces if isinstance(each, dict)]
        return "1.0" if any(version.startswith("1.") for version in versions) else "0.3"
    return "0.3" if "url" in card else "1.0"


def request_out(operation: str, params: Json) -> Json:
    """The parameters of a 1.0 request as those of 0.3. Raises KeyError, TypeError for what is malformed."""
    translate = _REQUESTS.get(operation)
    return translate(params) if translate is not None else params


def result_in(operation: str, value: Any) -> Any:
    """A result of 0.3, or one event of a stream, as 1.0 has it."""
    translate = _RESULTS.get(operation)
    return translate(value) if translate is not None and isinstance(value, dict) else value


def _send_out(params: Json) -> Json:
    out: Json = {"message": legacy.message_out(params["message"])}
    given = params.get("configuration") or {}
    configuration: Json = {"blocking": not given.get("returnImmediately", False)}
    configuration |= {k: given[k] for k in ("acceptedOutputModes", "historyLength") if given.get(k)}
    if given.get("taskPushNotificationConfig"):
        configuration["pushNotificationConfig"] = legacy.config_out(given["taskPushNotificationConfig"])
    out["configuration"] = configuration
    return out | ({"metadata": params["metadata"]} if params.get("metadata") else {})


def _set_out(params: Json) -> Json:
    return {"taskId": params.get("taskId"), "pushNotificationConfig": legacy.config_out(params)}


def _config_id_out(params: Json) -> Json:
    return {"id": params.get("taskId"), "pushNotificationConfigId": params.get("id")}


def _message(message: Json) -> Json:
    found = legacy.message_in(message)
    return {key: value for key, value in found.items() if value is not None}


def _status(status: Json) -> Json:
    out = {key: value for key, value in status.items() if value is not None}
    out["state"] = _STATES.get(str(status.get("state")), "TASK_STATE_UNSPECIFIED")
    if isinstance(status.get("message"), dict):
        out["message"] = _message(status["message"])
    return out


def _artifact(artifact: Json) -> Json:
    out = {key: value for key, value in artifact.items() if value is not None}
    return out | {"parts": [legacy.part_in(part) for part in artifact.get("parts") or ()]}


def _task(task: Json) -> Json:
    out = {key: value for key, value in task.items() if key != "kind" and value is not None}
    out["status"] = _status(task.get("status") or {})
    if task.get("artifacts"):
        out["artifacts"] = [_artifact(each) for each in task["artifacts"]]
    if task.get("history"):
        out["history"] = [_message(each) for each in task["history"]]
    return out


def _event(event: Json) -> Json:
    kind = event.get("kind")
    rest = {k: v for k, v in event.items() if k not in ("kind", "final", "status", "artifact") and v is not None}
    if kind == "message":
        return {"message": _message(event)}
    if kind == "status-update":
        return {"statusUpdate": rest | {"status": _status(event.get("status") or {})}}
    if kind == "artifact-update":
        return {"artifactUpdate": rest | {"artifact": _artifact(event.get("artifact") or {})}}
    return {"task": _task(event)}


def _config(value: Json) -> Json:
    config = legacy.config_in(value.get("pushNotificationConfig"))
    return {"taskId": value.get("taskId")} | (config if isinstance(config, dict) else {})


_REQUESTS: dict[str, Callable[[Json], Json]] = {
    operations.SEND: _send_out,
    operations.STREAM: _send_out,
    operations.PUSH_CREATE: _set_out,
    operations.PUSH_GET: _config_id_out,
    operations.PUSH_DELETE: _config_id_out,
    operations.PUSH_LIST: lambda params: {"id": params.get("taskId")},
}
_RESULTS: dict[str, Callable[[Json], Json]] = {
    operations.SEND: _event,
    operations.STREAM: _event,
    operations.SUBSCRIBE: _event,
    operations.GET: _task,
    operations.CANCEL: _task,
    operations.PUSH_CREATE: _config,
    operations.PUSH_GET: _config,
}
