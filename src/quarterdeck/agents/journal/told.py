"""What a user of A2A sees of a run: its journal as a task, and each event as updates of one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from quarterdeck.snapshot.runs import Event

from ..a2a import types
from ..a2a.types import Json

_DETAIL = 4000
"""Characters of a tool's result that are shown."""
UNAVAILABLE = "unavailable"
"""Metadata of a task and its updates: URL of a tool server that could not be asked, to the reason."""
_FINAL = {"completed": types.COMPLETED, "failed": types.FAILED, "canceled": types.CANCELED}


def new_task(message: Json) -> Json:
    """The task of a message that carries its ids already."""
    return {
        "id": message["taskId"], "contextId": message["contextId"], "status": types.status(types.SUBMITTED),
        "artifacts": [], "history": [message], "metadata": {},
    }  # fmt: skip


def task_of(events: Sequence[Event]) -> Json:
    """The task of a run as of its journal. The first event is ``created``."""
    task = new_task(events[0].data["message"])
    task["status"]["timestamp"] = _stamp(events[0])
    for event in events[1:]:
        tell(task, event)
    return task


def tell(task: Json, event: Event) -> list[Json]:
    """Bring a task up to date with one event; gives the updates (StreamResponse) that tell of it."""
    data = event.data
    if event.kind == "leased":
        fresh = task["status"]["state"] == types.SUBMITTED
        return [_status(task, event, types.WORKING)] if fresh else []
    if event.kind == "tool.intent" and data.get("attempt", 1) == 1 and not _told(task, data["id"]):
        part = {"id": data["id"], "name": data["name"], "args": data["arguments"]}
        return [_said(task, event, "function_call", part)]
    if event.kind == "tool.result":
        response = {"result": str(data["message"]["content"])[:_DETAIL], "isError": data["failed"]}
        return [_said(task, event, "function_response", {"id": data["id"], "name": data["name"], "response": response})]
    if event.kind == "waiting":
        state = types.AUTH_REQUIRED if data["reason"] == "auth" else types.INPUT_REQUIRED
        return [_status(task, event, state, _message(task, event, data["parts"]))]
    if event.kind == "answer":
        asked = task["status"].get("message")
        task["history"].extend(message for message in (asked, data.get("message")) if message)
        task["status"] = types.status(types.SUBMITTED) | {"timestamp": _stamp(event)}
        return []
    if event.kind == "note" and UNAVAILABLE in data:
        task["metadata"][UNAVAILABLE] = data[UNAVAILABLE]
        return [_status(task, event, types.WORKING, metadata={UNAVAILABLE: data[UNAVAILABLE]})]
    return _end(task, event) if event.kind == "final" else []


def _end(task: Json, event: Event) -> list[Json]:
    data, updates, metadata = event.data, list[Json](), {}
    if data["state"] == "completed":
        parts = [types.text_part(data["text"])]
        if "output" in data:
            parts.append({"data": data["output"], "mediaType": "application/json"})
        artifact = {"artifactId": _id(task, event, "artifact"), "name": "answer", "parts": parts}
        task["artifacts"].append(artifact)
        where = {"taskId": task["id"], "contextId": task["contextId"]}
        updates.append({"artifactUpdate": {**where, "artifact": artifact, "append": False, "lastChunk": True}})
        metadata = {"usage": data["usage"]}
        task["metadata"] |= metadata
    told = data["text"] if data["state"] == "failed" else ""
    message = _message(task, event, [types.text_part(told)]) if told else None
    return [*updates, _status(task, event, _FINAL[data["state"]], message, metadata)]


def _said(task: Json, event: Event, kind: str, data: Json) -> Json:
    message = _message(task, event, [{"data": data, "metadata": {"kagent_type": kind}}])
    task["history"].append(message)
    return _status(task, event, types.WORKING, message)


def _status(task: Json, event: Event, state: str, message: Json | None = None, metadata: Json | None = None) -> Json:
    task["status"] = types.status(state, message) | {"timestamp": _stamp(event)}
    update = {"taskId": task["id"], "contextId": task["contextId"], "status": task["status"]}
    return {"statusUpdate": update | ({"metadata": metadata} if metadata else {})}


def _message(task: Json, event: Event, parts: list[Json]) -> Json:
    return types.agent_message(task["id"], task["contextId"], parts) | {"messageId": _id(task, event, "message")}


def _told(task: Json, call: str) -> bool:
    """Whether the history has a call whose result is not there: it is being made again."""
    return any(_is(part, "function_call", call) for part in _parts(task)) and not any(
        _is(part, "function_response", call) for part in _parts(task)
    )


def _parts(task: Json) -> Iterable[Json]:
    return (part for message in task["history"] for part in message.get("parts", ()))


def _is(part: Json, kind: str, call: str) -> bool:
    metadata: dict[str, Any] = part.get("metadata") or {}
    return metadata.get("kagent_type") == kind and part["data"].get("id") == call


def _id(task: Json, event: Event, what: str) -> str:
    """The same on every replica."""
    return str(uuid5(NAMESPACE_URL, f"{task['id']}/{event.seq}/{what}"))


def _stamp(event: Event) -> str:
    return datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
