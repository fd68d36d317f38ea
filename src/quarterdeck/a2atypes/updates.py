"""What happened between two states of a task, as the events of a stream (StreamResponse)."""

from __future__ import annotations

from . import Json


def updates(before: Json | None, after: Json) -> list[Json]:
    """Artifact updates, then the status update; nothing when only other members changed. A new task is one event."""
    if before is None:
        return [{"task": after}]
    ids = {"taskId": after["id"], "contextId": after.get("contextId", "")}
    known = {a.get("artifactId"): a for a in before.get("artifacts") or ()}
    events: list[Json] = []
    for artifact in after.get("artifacts") or ():
        if known.get(artifact.get("artifactId")) != artifact:
            events.append({"artifactUpdate": ids | {"artifact": artifact, "append": False, "lastChunk": True}})
    if _said(before) != _said(after):
        events.append({"statusUpdate": ids | {"status": after["status"]}})
    return events


def _said(task: Json) -> tuple[object, object]:
    """State and message: a later timestamp alone is no news."""
    status = task.get("status") or {}
    return status.get("state"), status.get("message")
