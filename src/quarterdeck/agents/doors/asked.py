"""Requests of these protocols as a message to the agent. Each raises InvalidParams with the member's path."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from quarterdeck.a2atypes import Json
from quarterdeck.a2atypes.errors import InvalidParams

_MOST = 200
"""Messages of a conversation that a client sends along."""


def chat(body: Json) -> Json:
    """``/v1/chat/completions``. ``metadata``: ``context_id``, ``task_id`` go on with what the agent knows."""
    given = body.get("messages")
    if not isinstance(given, list) or not given or len(given) > _MOST:
        raise InvalidParams(f"messages: must be a list of 1 to {_MOST} messages")
    said = [_chat_message(index, each) for index, each in enumerate(given)]
    last = len(said) - 1
    if said[last]["role"] != "user":
        raise InvalidParams(f"messages[{last}].role: the last message must be the user's")
    known = _known(body.get("metadata"))
    before = [] if known or not last else [{"text": _transcript(said[:last])}]
    return _message([*before, {"text": said[last]["content"]}], known)


def _transcript(said: list[Json]) -> str:
    """What was said in a conversation that the agent does not know: this API's clients send it along each time."""
    lines = "\n\n".join(f"{each['role']}: {each['content']}" for each in said)
    return f"The conversation so far:\n\n{lines}\n\nThe user's message now:"


def _chat_message(index: int, value: Any) -> Json:
    path = f"messages[{index}]"
    role = value.get("role") if isinstance(value, dict) else None
    if role not in ("user", "assistant", "system", "developer", "tool"):
        raise InvalidParams(f"{path}.role: must be user, assistant, system, developer or tool")
    content = _text(value.get("content"), f"{path}.content")
    if role in ("user", "assistant"):
        return {"role": role, "content": content}
    # what clients call the system's is theirs, not that of the agent's owner
    return {"role": "user", "content": f"[{role}] {content}"}


def response(body: Json) -> Json:
    """``/v1/responses``; ``previous_response_id`` is the caller's to resolve."""
    given = body.get("input")
    if isinstance(given, str) and given:
        items: list[Any] = [{"role": "user", "content": given}]
    elif isinstance(given, list) and given and len(given) <= _MOST:
        items = [item for item in given if isinstance(item, dict) and item.get("type", "message") == "message"]
    else:
        raise InvalidParams("input: must be text, or a list of items")
    instructions = body.get("instructions")
    before = [{"role": "system", "content": instructions}] if isinstance(instructions, str) and instructions else []
    return chat({"messages": [*before, *items], "metadata": body.get("metadata")})


def agui(body: Json) -> Json:
    """A RunAgentInput of AG-UI 1.0. An interrupt's id is the id of the task that waits."""
    thread = body.get("threadId")
    if not isinstance(thread, str) or not thread or not isinstance(body.get("runId"), str):
        raise InvalidParams("threadId: must be text, and runId, too")
    resume = body.get("resume")
    if isinstance(resume, list) and resume:
        entry = resume[0] if isinstance(resume[0], dict) else {}
        if len(resume) != 1 or not isinstance(entry.get("interruptId"), str):
            raise InvalidParams("resume: must hold one entry with the interruptId of the run that waits")
        return _message([_answer(entry)], {"taskId": entry["interruptId"], "contextId": thread})
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise InvalidParams("messages: must be a list")
    asked = next((m for m in reversed(messages) if isinstance(m, dict) and m.get("role") == "user"), None)
    if asked is None:
        raise InvalidParams("messages: there is none of the user")
    return _message([{"text": _text(asked.get("content"), "messages.content")}], {"contextId": thread})


def _answer(entry: Json) -> Json:
    if entry.get("status") == "cancelled":
        return {"data": {"decision_type": "reject"}}
    payload = entry.get("payload")
    return {"text": payload} if isinstance(payload, str) and payload else {"data": payload}


def _message(parts: list[Json], ids: Json) -> Json:
    return {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": parts} | ids


def _known(metadata: Any) -> Json:
    if not isinstance(metadata, dict):
        return {}
    names = {"context_id": "contextId", "task_id": "taskId"}
    return {to: metadata[name] for name, to in names.items() if isinstance(metadata.get(name), str) and metadata[name]}


def _text(content: Any, path: str) -> str:
    """Text, or the text of a list of parts; other kinds are refused, not passed over."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise InvalidParams(f"{path}: must be text or a list of parts")
    found: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
            raise InvalidParams(f"{path}: this agent takes text, not {json.dumps(kind)}")
        found.append(part["text"])
    return "\n".join(found)
