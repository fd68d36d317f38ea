"""Answers in the form of OpenAI's API: chat completions and responses, whole and streamed. Pure."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from quarterdeck.a2atypes import Json

from ..a2a import types
from .pieces import End, Piece, Text

FAILED = frozenset({types.FAILED, types.REJECTED, types.CANCELED})


class Answer:
    """What was said so far. ``created``: seconds since 1970."""

    def __init__(self, task: Json, model: str, created: int) -> None:
        self.task, self.model, self.created = task, model, created
        self.text = ""
        self.end: End | None = None

    def add(self, piece: Piece) -> str:
        """The text that a piece adds; a question that the task waits with is said, too."""
        if isinstance(piece, Text):
            self.text += piece.text
            return piece.text
        if isinstance(piece, End):
            self.end, self.task = piece, piece.task
            if piece.state in types.INTERRUPTED and piece.text:
                more = ("\n\n" if self.text else "") + piece.text
                self.text += more
                return more
        return ""

    @property
    def failed(self) -> str:
        """Why there is no answer; empty when there is one."""
        end = self.end
        if end is None or end.state not in FAILED:
            return ""
        return end.text or f"the task was {end.state.removeprefix('TASK_STATE_').lower()}"

    @property
    def where(self) -> Json:
        """Ours, not OpenAI's: how to go on."""
        state = str(self.task["status"]["state"]).removeprefix("TASK_STATE_").lower().replace("_", "-")
        return {"context_id": self.task["contextId"], "task_id": self.task["id"], "state": state}

    def usage(self, sent: str, received: str) -> Json:
        used = self.end.usage if self.end is not None else {}
        given, made = used.get("prompt_tokens", 0), used.get("completion_tokens", 0)
        return {sent: given, received: made, "total_tokens": used.get("total_tokens", given + made)}


def error(message: str, kind: str, code: str) -> Json:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


# -- chat completions
def completion(answer: Answer) -> Json:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    return _chat(answer, "chat.completion") | {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": answer.usage("prompt_tokens", "completion_tokens"),
        "metadata": answer.where,
    }


async def completion_chunks(answer: Answer, pieces: AsyncGenerator[Piece], *, usage: bool) -> AsyncGenerator[Json]:
    """``chat.completion.chunk`` objects, or an error in their place."""
    yield _chunk(answer, {"role": "assistant", "content": ""})
    async for piece in pieces:
        text = answer.add(piece)
        if text:
            yield _chunk(answer, {"content": text})
    if answer.failed:
        yield error(answer.failed, "agent_error", "task_failed")
        return
    yield _chunk(answer, {}, "stop") | {"metadata": answer.where}
    if usage:
        total = answer.usage("prompt_tokens", "completion_tokens")
        yield _chat(answer, "chat.completion.chunk") | {"choices": [], "usage": total}


def _chunk(answer: Answer, delta: Json, finish: str | None = None) -> Json:
    choice: Json = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return _chat(answer, "chat.completion.chunk") | {"choices": [choice]}


def _chat(answer: Answer, kind: str) -> Json:
    ident = f"chatcmpl-{answer.task['id']}"
    return {"id": ident, "object": kind, "created": answer.created, "model": answer.model}


# -- responses
def response(answer: Answer, status: str = "") -> Json:
    failed = answer.failed
    done = status or ("failed" if failed else "completed")
    finished = done == "completed"
    return {
        "id": f"resp_{answer.task['id']}", "object": "response", "created_at": answer.created, "model": answer.model,
        "status": done, "error": {"code": "server_error", "message": failed} if failed else None,
        "incomplete_details": None, "instructions": None, "metadata": answer.where, "parallel_tool_calls": True,
        "temperature": None, "top_p": None, "tool_choice": "auto", "tools": [], "previous_response_id": None,
        "output": [_item(answer, "completed")] if finished else [],
        "usage": _response_usage(answer) if finished else None,
    }  # fmt: skip


def _response_usage(answer: Answer) -> Json:
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return answer.usage("input_tokens", "output_tokens") | details


async def response_events(answer: Answer, pieces: AsyncGenerator[Piece]) -> AsyncGenerator[Json]:
    """The streaming events of a response, each with its ``sequence_number``."""
    number = 0

    def event(kind: str, **more: Any) -> Json:
        nonlocal number
        number += 1
        return {"type": kind, "sequence_number": number - 1, **more}

    where: Json = {"item_id": _item_id(answer), "output_index": 0, "content_index": 0}
    yield event("response.created", response=response(answer, "in_progress"))
    yield event("response.in_progress", response=response(answer, "in_progress"))
    begun = False
    async for piece in pieces:
        text = answer.add(piece)
        if text and not begun:
            begun = True
            yield event(
                "response.output_item.added", output_index=0, item=_item(answer, "in_progress") | {"content": []}
            )
            yield event("response.content_part.added", **where, part=_part(""))
        if text:
            yield event("response.output_text.delta", **where, delta=text, logprobs=[])
    if begun:
        yield event("response.output_text.done", **where, text=answer.text, logprobs=[])
        yield event("response.content_part.done", **where, part=_part(answer.text))
        yield event("response.output_item.done", output_index=0, item=_item(answer, "completed"))
    yield event("response.failed" if answer.failed else "response.completed", response=response(answer))


def _item_id(answer: Answer) -> str:
    return f"msg_{answer.task['id']}"


def _item(answer: Answer, status: str) -> Json:
    content = [_part(answer.text)]
    return {"id": _item_id(answer), "type": "message", "status": status, "role": "assistant", "content": content}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
