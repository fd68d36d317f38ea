"""A task as the event stream of AG-UI 1.0. Pure but for the clock that is given."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from uuid import uuid4

from quarterdeck.a2atypes import Json

from ..a2a import types
from .openai import FAILED
from .pieces import Call, End, Piece, Result, Text


async def stream(
    thread: str, run: str, pieces: AsyncGenerator[Piece], clock: Callable[[], float]
) -> AsyncGenerator[Json]:
    """Events from RUN_STARTED to RUN_FINISHED or RUN_ERROR. ``clock``: seconds since 1970."""
    speaking = ""

    def event(kind: str, **more: object) -> Json:
        return {"type": kind, "timestamp": int(clock() * 1000), **more}

    yield event("RUN_STARTED", threadId=thread, runId=run)
    async for piece in pieces:
        if speaking and not isinstance(piece, Text):
            yield event("TEXT_MESSAGE_END", messageId=speaking)
            speaking = ""
        if isinstance(piece, Text):
            if not speaking:
                speaking = str(uuid4())
                yield event("TEXT_MESSAGE_START", messageId=speaking, role="assistant")
            yield event("TEXT_MESSAGE_CONTENT", messageId=speaking, delta=piece.text)
        elif isinstance(piece, Call):
            yield event("TOOL_CALL_START", toolCallId=piece.id, toolCallName=piece.name)
            yield event("TOOL_CALL_ARGS", toolCallId=piece.id, delta=json.dumps(piece.arguments))
            yield event("TOOL_CALL_END", toolCallId=piece.id)
        elif isinstance(piece, Result):
            yield event(
                "TOOL_CALL_RESULT", messageId=str(uuid4()), toolCallId=piece.id, content=piece.text, role="tool"
            )
        else:
            kind, more = _end(piece)
            where = {"threadId": thread, "runId": run} if kind == "RUN_FINISHED" else {}
            yield event(kind, **where, **more)


def _end(end: End) -> tuple[str, Json]:
    if end.state in types.INTERRUPTED:
        interrupt: Json = {"id": end.task["id"], "reason": _reason(end), "message": end.text or "Please go on."}
        return "RUN_FINISHED", {"outcome": {"type": "interrupt", "interrupts": [interrupt]}}
    if end.state == types.CANCELED:
        return "RUN_FINISHED", {"outcome": {"type": "cancelled"}}
    if end.state in FAILED:
        return "RUN_ERROR", {"message": end.text or "the agent gave no answer", "code": end.state}
    return "RUN_FINISHED", {"outcome": {"type": "success"}}


def _reason(end: End) -> str:
    return "auth_required" if end.state == types.AUTH_REQUIRED else "input_required"
