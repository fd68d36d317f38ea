"""A2A 1.0 objects as JSON data (specification/a2a.proto in its JSON form), and checks of what clients send."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final
from uuid import uuid4

from quarterdeck.a2atypes import VERSIONS, Json, said
from quarterdeck.a2atypes.errors import (
    A2AError,
    ContentTypeNotSupported,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    ParseError,
    PushNotSupported,
    TaskNotCancelable,
    TaskNotFound,
    UnsupportedOperation,
    VersionNotSupported,
)
from quarterdeck.snapshot.conversation import VARIABLE, new_id

__all__ = [
    "AUTH_REQUIRED", "CANCELED", "COMPLETED", "FAILED", "INPUT_REQUIRED", "INTERRUPTED", "REJECTED", "STATES",
    "SUBMITTED", "TERMINAL", "VERSIONS", "WORKING", "A2AError", "ContentTypeNotSupported", "InvalidParams",
    "InvalidRequest", "Json", "MethodNotFound", "ParseError", "PushNotSupported", "TaskNotCancelable", "TaskNotFound",
    "UnsupportedOperation", "VersionNotSupported", "agent_message", "check_message", "new_context", "new_task",
    "now", "status", "text_of", "text_part", "trimmed",
]  # fmt: skip

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
STATES: Final = frozenset({SUBMITTED, WORKING}) | INTERRUPTED | TERMINAL
_PART_KINDS = ("text", "raw", "url", "data")
_MEDIA = {"text": "text/plain", "data": "application/json", "raw": "application/octet-stream", "url": "*/*"}
DEFAULT_MODES: Final = ("text/plain", "application/json")


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


def new_context() -> str:
    """A fresh id of a conversation or task, which says where it was made."""
    agent = f"{os.environ.get('KAGENT_NAMESPACE', '')}/{os.environ.get('KAGENT_NAME', '')}"
    tag = os.environ.get(VARIABLE, "")
    return new_id(agent, int(tag) if tag.isdigit() else 0)


def new_task(message: Json) -> Json:
    """A submitted task for a user message; the message gets the ids it lacks."""
    for name in ("taskId", "contextId"):
        message.setdefault(name, new_context())
    return {
        "id": message["taskId"],
        "contextId": message["contextId"],
        "status": status(SUBMITTED),
        "artifacts": [],
        "history": [message],
        "metadata": {},
    }


def check_message(value: Any, modes: Sequence[str] = DEFAULT_MODES) -> Json:
    """A user's message of version 1.0. ``modes``: media types the agent takes.

    Raises InvalidParams naming the member, ContentTypeNotSupported.
    """
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
        _check_part(f"message.parts[{index}]", part, modes)
    for name in ("taskId", "contextId"):
        if name in value and (not isinstance(value[name], str) or len(value[name]) > 255):
            raise InvalidParams(f"message.{name}: must be a string of at most 255 characters")
        if value.get(name) == "":
            del value[name]
    for name, kind in (("metadata", dict), ("extensions", list), ("referenceTaskIds", list)):
        if name in value and not isinstance(value[name], kind):
            raise InvalidParams(f"message.{name}: must be {'an object' if kind is dict else 'a list'}")
    return value


def _check_part(path: str, part: Any, modes: Sequence[str]) -> None:
    kinds = [kind for kind in _PART_KINDS if kind in part] if isinstance(part, dict) else []
    if len(kinds) != 1:
        raise InvalidParams(f"{path}: must hold exactly one of text, raw, url, data")
    kind = kinds[0]
    if kind != "data" and not isinstance(part[kind], str):
        raise InvalidParams(f"{path}.{kind}: must be a string")
    if kind == "raw":
        try:
            base64.b64decode(part["raw"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidParams(f"{path}.raw: must be base64") from error
    media = str(part.get("mediaType") or _MEDIA[kind]).partition(";")[0].strip().lower()
    if kind == "url" or not _taken(media, modes):
        shown = f"a file at a URL ({media})" if kind == "url" else media
        taken = ", ".join(modes)
        raise ContentTypeNotSupported(f"{path}: this agent takes {taken}, not {shown}", mediaType=media)


def _taken(media: str, modes: Sequence[str]) -> bool:
    """An agent of plain text reads every text."""
    return any(fnmatchcase(media, "text/*" if mode == "text/plain" else mode) for mode in modes)


def text_of(message: Json) -> str:
    """The text a message says; data parts as JSON."""
    return said.text(message)


def trimmed(task: Json, history_length: int | None) -> Json:
    """The task with at most that many newest history messages (None: all; 0: no history member)."""
    if history_length is None:
        return task
    rest = {k: v for k, v in task.items() if k != "history"}
    return rest | {"history": (task.get("history") or [])[-history_length:]} if history_length else rest
