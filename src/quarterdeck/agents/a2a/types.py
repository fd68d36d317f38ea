"""A2A 1.0 objects as JSON data (specification/a2a.proto in its JSON form), and the errors of specification 5.4."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from uuid import uuid4

from quarterdeck.errors import QuarterdeckError
from quarterdeck.snapshot.conversation import VARIABLE, new_id

Json = dict[str, Any]

SUBMITTED: Final = "TASK_STATE_SUBMITTED"
WORKING: Final = "TASK_STATE_WORKING"
COMPLETED: Final = "TASK_STATE_COMPLETED"
FAILED: Final = "TASK_STATE_FAILED"
CANCELED: Final = "TASK_STATE_CANCELED"
REJECTED: Final = "TASK_STATE_REJECTED"
INPUT_REQUIRED: Final = "TASK_STATE_INPUT_REQUIRED"
AUTH_REQUIRED: Final = "TASK_STATE_AUTH_REQUIRED"
INTERRUPTED: Final = frozenset({INPUT_REQUIRED, AUTH_REQUIRED})
TERMINAL: Final = frozenset({COMPLETED, FAILED, CANCELED, REJECTED})
VERSIONS: Final = ("1.0", "0.3")
_PART_KINDS = ("text", "raw", "url", "data")


class A2AError(QuarterdeckError):
    """An A2A error; subclasses carry the code of specification 5.4."""

    code: ClassVar[int] = -32603
    http_status = 400


class ParseError(A2AError):
    code = -32700


class InvalidRequest(A2AError):
    code = -32600


class MethodNotFound(A2AError):
    code = -32601


class InvalidParams(A2AError):
    code = -32602


class TaskNotFound(A2AError):
    code = -32001
    http_status = 404


class TaskNotCancelable(A2AError):
    code = -32002
    http_status = 409


class PushNotSupported(A2AError):
    code = -32003


class UnsupportedOperation(A2AError):
    code = -32004


class ContentTypeNotSupported(A2AError):
    code = -32005
    http_status = 415


class VersionNotSupported(A2AError):
    code = -32009


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_part(text: str) -> Json:
    return {"text": text}


def agent_message(task_id: str, context_id: str, parts: list[Json]) -> Json:
    return {"messageId": str(uuid4()), "contextId": context_id, "taskId": task_id, "role": "ROLE_AGENT", "parts": parts}


def status(state: str, message: Json | None = None) -> Json:
    value: Json = {"state": state, "timestamp": now()}
    if message is not None:
        value["message"] = message
    return value


def new_task(message: Json) -> Json:
    """A submitted task for a user message; the message gets the ids it lacks, which say where they were made."""
    agent = f"{os.environ.get('KAGENT_NAMESPACE', '')}/{os.environ.get('KAGENT_NAME', '')}"
    tag = os.environ.get(VARIABLE, "")
    for name in ("taskId", "contextId"):
        message.setdefault(name, new_id(agent, int(tag) if tag.isdigit() else 0))
    return {
        "id": message["taskId"],
        "contextId": message["contextId"],
        "status": status(SUBMITTED),
        "artifacts": [],
        "history": [message],
        "metadata": {},
    }


def check_message(value: Any) -> Json:
    """A user's message of version 1.0. Raises InvalidParams naming the member."""
    if not isinstance(value, dict):
        raise InvalidParams("message: is missing")
    if not isinstance(value.get("messageId"), str) or not value["messageId"]:
        raise InvalidParams("message.messageId: must be a non-empty string")
    if value.get("role") != "ROLE_USER":
        raise InvalidParams("message.role: must be ROLE_USER")
    parts = value.get("parts")
    if not isinstance(parts, list) or not parts:
        raise InvalidParams("message.parts: must hold at least one part")
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or sum(kind in part for kind in _PART_KINDS) != 1:
            raise InvalidParams(f"message.parts[{index}]: must hold exactly one of text, raw, url, data")
        if "text" not in part and "data" not in part:
            raise ContentTypeNotSupported(f"message.parts[{index}]: this agent takes text and data, not files")
    for name in ("taskId", "contextId"):
        if name in value and (not isinstance(value[name], str) or len(value[name]) > 255):
            raise InvalidParams(f"message.{name}: must be a string of at most 255 characters")
        if value.get(name) == "":
            del value[name]
    return value


def text_of(message: Json) -> str:
    """The text a message says; data parts as JSON."""
    return "\n".join(str(part["text"]) if "text" in part else json.dumps(part["data"]) for part in message["parts"])


def trimmed(task: Json, history_length: int | None) -> Json:
    """The task with at most that many newest history messages (None: all)."""
    if history_length is None:
        return task
    return task | {"history": task["history"][-history_length:] if history_length > 0 else []}
