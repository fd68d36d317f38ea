"""Which conversation a request to an agent belongs to, and whether the agent's answer says that it failed."""

from __future__ import annotations

import re

import msgspec

from quarterdeck.malformed import MALFORMED

_TASK_PATH = re.compile(r"/tasks/([^/:?]+)")
_CONTEXT = re.compile(rb'"contextId"\s*:\s*"([^"\\]{1,256})"')
_TASK = re.compile(rb'"taskId"\s*:\s*"([^"\\]{1,256})"')
# Inside a JSON text quotes are escaped, so what a person or model wrote cannot look like this.
_FAILED = re.compile(
    rb'"state"\s*:\s*"(?:failed|TASK_STATE_FAILED)"|"error"\s*:\s*\{[^{}]{0,200}?"code"\s*:\s*(-32603|-32000)\b'
)
_LONGEST = 512
"""Bytes of the last chunk that are looked at again with the next."""
_ID_LIMIT = 256


class _Message(msgspec.Struct, rename="camel"):
    context_id: str = ""
    task_id: str = ""


class _Params(msgspec.Struct, rename="camel"):
    message: _Message | None = None
    context_id: str = ""
    task_id: str = ""
    id: str = ""


class _Request(msgspec.Struct):
    """JSON-RPC has ``params``; the REST binding has their members at the top, where ``id`` is none of a task's."""

    params: _Params | None = None
    message: _Message | None = None


_decode = msgspec.json.Decoder(_Request).decode


def conversations(body: bytes, target: str) -> tuple[str, ...]:
    """Ids of the conversation, then of the task, that a request names; A2A 0.3 and 1.0, JSON-RPC and REST."""
    found: list[str] = []
    if body:
        try:
            request = _decode(body)
        except MALFORMED:
            request = _Request()  # its own agent tells the client what is wrong
        message = request.message or (request.params.message if request.params is not None else None)
        if message is not None:
            found += [message.context_id, message.task_id]
        if request.params is not None:
            found += [request.params.context_id, request.params.task_id, request.params.id]
    path = _TASK_PATH.search(target)
    if path is not None:
        found.append(path[1])
    return tuple(text for text in dict.fromkeys(found) if text and len(text) <= _ID_LIMIT)


class Reading:
    """Looks at an agent's answer as it passes: the ids it gives, and whether it says that it failed."""

    __slots__ = ("_tail", "failed", "ids")

    def __init__(self) -> None:
        self.ids: tuple[str, ...] = ()
        self.failed = False
        self._tail = b""

    def feed(self, data: bytes) -> None:
        window = self._tail + data
        if not self.ids:
            found = (_CONTEXT.search(window), _TASK.search(window))
            if found[0] is not None:
                self.ids = tuple(m[1].decode("utf-8", "replace") for m in found if m is not None)
        if not self.failed and _FAILED.search(window):
            self.failed = True
        self._tail = window[-_LONGEST:]
