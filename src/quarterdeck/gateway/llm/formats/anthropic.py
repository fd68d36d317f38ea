"""Anthropic's Messages API, at Anthropic and on Vertex AI: https://platform.claude.com/docs/en/api/messages"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

from quarterdeck.errors import UpstreamError
from quarterdeck.snapshot import Model

from .answer import Called, Chunks, Completion, Finish, Tokens
from .base import Format, Sent, merged
from .chat import Chat, Image, Message, Text, split, turns
from .problem import told

VERSION = "2023-06-01"
_ID = re.compile(r"[^a-zA-Z0-9_-]")
"""What ids of calls may not have; other providers' do."""
_ON_VERTEX = "vertex-2023-10-16"
_LONGEST = 8192  # tokens of an answer when nobody says: the API wants a number
_BREAKPOINTS = 4  # that a request may have
_FINISH: dict[str, Finish] = {
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length",
    "model_context_window_exceeded": "length", "refusal": "content_filter",
}  # fmt: skip
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def request(model: Model, chat: Chat) -> Sent:
    """Tools, instructions and the conversation so far are marked for the provider's cache (``model.cache``), unless
    the request has marks of its own."""
    chat.single("Anthropic")
    system, rest = split(chat.messages)
    body: dict[str, Any] = {"max_tokens": chat.longest() or _LONGEST, "messages": turns(rest, _blocks, "Anthropic")}
    if system:
        body["system"] = [_block(part) for part in system]
    if tools := chat.tools or chat.called():
        body["tools"] = [_tool(tool.function, tool.cache_control) for tool in tools]
        body |= _choice(chat) if chat.tools else {"tool_choice": {"type": "none"}}
    for name, value in (("temperature", chat.temperature), ("top_p", chat.top_p), ("stream", chat.stream or None)):
        if value is not None:
            body[name] = value
    if stops := chat.stops():
        body["stop_sequences"] = stops
    if (schema := chat.schema()) is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if model.cache:
        _mark(body, model.cache)
    body = merged(body, model.extra)
    if model.provider == "AnthropicVertexAI":
        method = "streamRawPredict" if chat.stream else "rawPredict"
        return Sent(f"/{quote(model.model, safe='@')}:{method}", {"anthropic_version": _ON_VERTEX} | body)
    return Sent("/messages", {"model": model.model} | body, (("anthropic-version", VERSION),))


def _blocks(message: Message) -> list[dict[str, Any]]:
    content = [_block(part) for part in message.shown()]
    if message.role == "tool":
        ident = _ID.sub("_", message.tool_call_id or "")
        return [{"type": "tool_result", "tool_use_id": ident, "content": content}]
    calls = [
        {"type": "tool_use", "id": _ID.sub("_", call.id), "name": call.function.name, "input": call.arguments()}
        for call in message.tool_calls or ()
    ]
    return [*content, *calls]


def _block(part: Text | Image) -> dict[str, Any]:
    block: dict[str, Any]
    if isinstance(part, Text):
        block = {"type": "text", "text": part.text}
    elif part.url:
        block = {"type": "image", "source": {"type": "url", "url": part.url}}
    else:
        block = {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}
    return block | ({"cache_control": part.cache} if part.cache else {})


def _tool(function: Any, cache: dict[str, Any] | None) -> dict[str, Any]:
    schema = function.parameters or {"type": "object", "properties": {}}
    tool: dict[str, Any] = {"name": function.name, "input_schema": schema}
    if function.description:
        tool["description"] = function.description
    return tool | ({"cache_control": cache} if cache else {})


def _choice(chat: Chat) -> dict[str, Any]:
    kind, name = chat.choice()
    if not kind and chat.parallel_tool_calls is None:
        return {}
    choice: dict[str, Any] = {"type": "tool", "name": name} if kind == "one" else {"type": _CHOICES[kind or "auto"]}
    if chat.parallel_tool_calls is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return {"tool_choice": choice}


def _mark(body: dict[str, Any], life: str) -> None:
    """Put a cache breakpoint behind tools, instructions and the last two of the user's turns."""
    recent = [turn["content"] for turn in body["messages"] if turn["role"] == "user"][-2:]
    groups = [body.get("tools") or [], body.get("system") or [], *recent]
    blocks = [block for group in groups for block in group]
    if any("cache_control" in block for block in blocks):
        return
    mark = {"type": "ephemeral"} | ({"ttl": life} if life != "5m" else {})
    for group in groups[:_BREAKPOINTS]:
        if group:
            group[-1]["cache_control"] = mark


def answer(document: Any) -> Completion:
    found = Completion(document["id"], document["model"], finish=_finish(document.get("stop_reason")))
    for block in document["content"]:
        match block["type"]:
            case "text":
                found.text += block["text"]
            case "thinking":
                found.reasoning += block["thinking"]
            case "tool_use":
                arguments = msgspec.json.encode(block["input"]).decode()
                found.calls.append(Called(block["id"], block["name"], arguments))
            case _:
                pass  # redacted thinking and the provider's own tools: nothing a client of chat completions could use
    if document.get("stop_reason") == "refusal" and not found.text:
        found.refusal = REFUSED
    found.tokens = tokens(document.get("usage") or {})
    return found


REFUSED = "The model refused to answer."


def tokens(usage: dict[str, Any]) -> Tokens:
    cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    prompt = (usage.get("input_tokens") or 0) + cached + written
    return Tokens(prompt, usage.get("output_tokens") or 0, cached, written)


def _finish(reason: str | None) -> Finish:
    return _FINISH.get(reason or "", "stop")


class Events:
    """message_start, content_block_{start,delta,stop}, message_delta, message_stop, ping, error."""

    def __init__(self, out: Chunks) -> None:
        self._out = out
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, int] = {}
        self._said = False

    def event(self, name: str, document: Any) -> None:
        del name  # the document says it, too
        out = self._out
        match document.get("type"):
            case "message_start":
                message = document["message"]
                out.id, out.model = message["id"], message["model"]
                self._count(message.get("usage"))
            case "content_block_start" if document["content_block"]["type"] == "tool_use":
                block = document["content_block"]
                self._calls[document["index"]] = out.call(Called(block["id"], block["name"], ""))
            case "content_block_delta":
                self._delta(document["index"], document["delta"])
            case "message_delta":
                reason = document["delta"].get("stop_reason")
                self._count(document.get("usage"))
                if reason == "refusal" and not self._said:
                    out.refuse(REFUSED)
                out.finish = _finish(reason)
            case "error":
                out.fail(told(document))
            case _:
                pass  # ping, block and message ends; new kinds are to be ignored, the documentation says

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        match delta.get("type"):
            case "text_delta":
                self._said = True
                self._out.text(delta["text"])
            case "thinking_delta":
                self._out.reason(delta["thinking"])
            case "input_json_delta":
                call = self._calls.get(index)
                if call is None:
                    raise UpstreamError("sent arguments of a call that had not begun")
                if delta["partial_json"]:
                    self._out.arguments(call, delta["partial_json"])
            case _:
                pass  # signatures, citations

    def _count(self, usage: dict[str, Any] | None) -> None:
        self._usage |= {name: value for name, value in (usage or {}).items() if value is not None}
        self._out.tokens = tokens(self._usage)


FORMAT = Format(request, answer, Events)
