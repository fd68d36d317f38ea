"""What events make of a run: its row, and what its conversation keeps. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from quarterdeck.a2atypes import said
from quarterdeck.errors import BadRequest
from quarterdeck.snapshot.runs import FINAL, Event

from .database import Row, now
from .usage import spend

MESSAGE = "quarterdeck.dev/message"
COMPACTION = "quarterdeck.dev/compaction"
"""Kinds of a conversation's events."""


def after(row: Row, written: Sequence[Event], at: float) -> Row:
    """The row of a run after these events."""
    summary: dict[str, Any] = msgspec.json.decode(row["summary"])
    changed: Row = {"seq": written[-1].seq, "beat": row["beat"] + 1, "updated_at": at}
    for event in written:
        summary["steps"] = max(summary.get("steps", 0), event.step)
        if event.kind == "tool.result":
            summary["toolCalls"] = summary.get("toolCalls", 0) + 1
        elif event.kind in ("model.result", "compaction"):
            used: dict[str, int] = summary.setdefault("usage", {})
            for name, value in (event.data.get("usage") or {}).items():
                if isinstance(value, int):  # an agent's word, and so of its model's provider
                    used[name] = used.get(name, 0) + value
            if written[0].kind != "created":  # else it is what another run has used
                spend(summary, event.data)
        elif event.kind == "waiting":
            changed |= {"state": "waiting", "holder": "", "reason": str(event.data.get("reason", ""))[:64]}
        elif event.kind == "final":
            state = str(event.data.get("state", ""))
            if state not in FINAL:
                raise BadRequest(f"final: state {state!r} is none of {', '.join(sorted(FINAL))}")
            changed |= {"state": state, "holder": "", "reason": str(event.data.get("reason", ""))[:64]}
        elif event.kind == "answer":
            changed["reason"] = ""
    return changed | {"summary": msgspec.json.encode(summary).decode()}


def mirrored(row: Row, event: Event) -> Row:
    """An event as the conversation of the session keeps it (``/api/sessions``)."""
    if event.kind == "compaction":
        data: dict[str, Any] = {"kind": COMPACTION} | {k: event.data.get(k) for k in ("through", "summary")}
    else:
        message = event.data["message"]
        if event.kind == "created":
            media = said.images(message)
            message = {"role": "user", "content": said.text(message)} | ({"media": media} if media else {})
        data = {"kind": MESSAGE, "message": message}
    return {
        "id": f"{row['id']}/{event.seq}", "session_id": row["session_id"], "agent": row["agent"],
        "user_id": row["user_id"], "created_at": now(),
        "data": msgspec.json.encode(data).decode(),
    }  # fmt: skip
