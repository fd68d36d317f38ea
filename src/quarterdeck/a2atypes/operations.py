"""The operations of A2A and their names in each binding and version (specification 1.0.1 §5.3, 0.3 §3.5)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from . import VERSIONS, errors

SEND: Final = "SendMessage"
STREAM: Final = "SendStreamingMessage"
GET: Final = "GetTask"
LIST: Final = "ListTasks"
CANCEL: Final = "CancelTask"
SUBSCRIBE: Final = "SubscribeToTask"
PUSH_CREATE: Final = "CreateTaskPushNotificationConfig"
PUSH_GET: Final = "GetTaskPushNotificationConfig"
PUSH_LIST: Final = "ListTaskPushNotificationConfigs"
PUSH_DELETE: Final = "DeleteTaskPushNotificationConfig"
EXTENDED_CARD: Final = "GetExtendedAgentCard"
OPERATIONS: Final = (
    SEND, STREAM, GET, LIST, CANCEL, SUBSCRIBE, PUSH_CREATE, PUSH_GET, PUSH_LIST, PUSH_DELETE, EXTENDED_CARD,
)  # fmt: skip
STREAMS: Final = frozenset({STREAM, SUBSCRIBE})
PUSH: Final = frozenset({PUSH_CREATE, PUSH_GET, PUSH_LIST, PUSH_DELETE})
LEGACY_METHODS: Final = {
    "message/send": SEND,
    "message/stream": STREAM,
    "tasks/get": GET,
    "tasks/cancel": CANCEL,
    "tasks/resubscribe": SUBSCRIBE,
    "tasks/pushNotificationConfig/set": PUSH_CREATE,
    "tasks/pushNotificationConfig/get": PUSH_GET,
    "tasks/pushNotificationConfig/list": PUSH_LIST,
    "tasks/pushNotificationConfig/delete": PUSH_DELETE,
    "agent/getAuthenticatedExtendedCard": EXTENDED_CARD,
}
METHODS: Final = {name: name for name in OPERATIONS}


@dataclass(frozen=True, slots=True)
class Match:
    """What a method and path of HTTP+JSON ask for. ``params``: those of the path, by their names in 1.0."""

    operation: str
    params: dict[str, str] = field(default_factory=dict[str, str])


_ID = r"(?P<{}>[^/:]+)"
_CONFIGS = rf"/tasks/{_ID.format('taskId')}/pushNotificationConfigs"
_PATHS: Final = (
    ("POST", "/message:send", SEND),
    ("POST", "/message:stream", STREAM),
    ("GET", "/tasks", LIST),
    ("GET", f"/tasks/{_ID.format('id')}", GET),
    ("POST", f"/tasks/{_ID.format('id')}:cancel", CANCEL),
    ("POST", f"/tasks/{_ID.format('id')}:subscribe", SUBSCRIBE),
    ("GET", f"/tasks/{_ID.format('id')}:subscribe", SUBSCRIBE),
    ("POST", _CONFIGS, PUSH_CREATE),
    ("GET", _CONFIGS, PUSH_LIST),
    ("GET", f"{_CONFIGS}/{_ID.format('id')}", PUSH_GET),
    ("DELETE", f"{_CONFIGS}/{_ID.format('id')}", PUSH_DELETE),
)
_V1 = tuple(
    (method, re.compile(rf"(?:/(?P<tenant>[^/]+))?{path}"), operation)
    for method, path, operation in (*_PATHS, ("GET", "/extendedAgentCard", EXTENDED_CARD))
)
_V03 = tuple(
    (method, re.compile(f"/v1{path}"), operation)
    for method, path, operation in (*_PATHS, ("GET", "/card", EXTENDED_CARD))
    if operation not in (LIST,)
)


def match(method: str, path: str, version: str) -> Match:
    """``version``: "1.0" or "0.3", which is below ``/v1``. Raises MethodNotFound, VersionNotSupported."""
    allowed: list[str] = []
    for candidate, pattern, operation in _V1 if version == "1.0" else _V03:
        found = pattern.fullmatch(path)
        if found is None:
            continue
        if candidate == method:
            return Match(operation, {k: unquote(v) for k, v in found.groupdict().items() if v is not None})
        allowed.append(candidate)
    if allowed:
        raise errors.MethodNotFound(f"{path} takes {' and '.join(allowed)}, not {method}")
    if version != "1.0" and any(pattern.fullmatch(path) for _, pattern, _ in _V1):
        raise errors.VersionNotSupported(
            f"{path} is of version 1.0: send the header A2A-Version: 1.0; version {version} is served below /v1"
        )
    raise errors.MethodNotFound(f"{method} {path} is not an operation of A2A {version}")


def is_rest(path: str) -> bool:
    """Whether a path belongs to HTTP+JSON of either version, whatever the method."""
    return any(pattern.fullmatch(path) for table in (_V1, _V03) for _, pattern, _ in table)


def jsonrpc(method: str, version: str) -> str:
    """The operation behind a JSON-RPC method. Raises MethodNotFound."""
    names = METHODS if version == "1.0" else LEGACY_METHODS
    operation = names.get(method)
    if operation is None:
        raise errors.MethodNotFound(
            f"method {method[:200]!r} does not exist in version {version}; there are {', '.join(names)}"
        )
    return operation


def version(text: str) -> str:
    """The version that ``A2A-Version`` asks for: empty means 0.3, a patch number says nothing (§3.6).

    Raises VersionNotSupported.
    """
    wanted = ".".join(text.strip().split(".")[:2]) or "0.3"
    if wanted not in VERSIONS:
        raise errors.VersionNotSupported(
            f"A2A-Version {text.strip()[:40]!r} is not spoken here, {' and '.join(VERSIONS)} are"
        )
    return wanted
