"""Ollama's own chat API, which takes every option of a model: https://docs.ollama.com/api/chat"""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.snapshot import Model

from .answer import Called, Chunks, Completion, Finish, Tokens
from .base import Format, Sent, merged
from .chat import Chat, Image, Message, Unfit
from .embeddings import OLLAMA
from .problem import told


def request(model: Model, chat: Chat) -> Sent:
    chat.single("Ollama")
    names: dict[str, str] = {}
    messages = [_message(message, names) for message in chat.messages]
    body: dict[str, Any] = {"model": model.model, "messages": messages, "stream": bool(chat.stream)}
    options: dict[str, Any] = {
        "temperature": chat.temperature, "top_p": chat.top_p, "seed": chat.seed, "num_predict": chat.longest(),
        "stop": chat.stops() or None, "frequency_penalty": chat.frequency_penalty,
        "presence_penalty": chat.presence_penalty,
    }  # fmt: skip
    options = {name: value for name, value in options.items() if value is not None}
    if options:
        body["options"] = options
    if chat.tools and chat.choice()[0] != "none":
        body["tools"] = [{"type": "function", "function": _function(tool.function)} for tool in chat.tools]
    schema = chat.schema()
    if schema is not None:
        body["format"] = schema
    elif (chat.response_format or {}).get("type") == "json_object":
        body["format"] = "json"
    return Sent("/chat", merged(body, model.extra))


def _function(function: Any) -> dict[str, Any]:
    schema = function.parameters or {"type": "object", "properties": {}}
    return {"name": function.name, "description": function.description or "", "parameters": schema}


def _message(message: Message, names: dict[str, str]) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    found: dict[str, Any] = {"role": role, "content": message.text()}
    images = [part for part in message.parts() if isinstance(part, Image)]
    if any(image.url for image in images):
        raise Unfit("image_url: Ollama takes images inside the request only; send a data: URL")
    if images:
        found["images"] = [image.data for image in images]
    if message.role == "tool" and message.tool_call_id in names:
        found["tool_name"] = names[message.tool_call_id]
    if message.tool_calls:
        names |= {call.id: call.function.name for call in message.tool_calls}
        found["tool_calls"] = [
            {"function": {"name": call.function.name, "arguments": call.arguments()}} for call in message.tool_calls
        ]
    return found


def answer(document: Any) -> Completion:
    message = document["message"]
    found = Completion("", document.get("model") or "", message.get("content") or "")
    found.reasoning = message.get("thinking") or ""
    found.calls = _calls(message)
    found.finish = _finish(document, called=bool(found.calls))
    found.tokens = _tokens(document)
    return found


def _calls(message: dict[str, Any]) -> list[Called]:
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    return [Called("", f["name"], msgspec.json.encode(f.get("arguments") or {}).decode()) for f in functions]


def _finish(document: dict[str, Any], *, called: bool) -> Finish:
    if document.get("done_reason") == "length":
        return "length"
    return "tool_calls" if called else "stop"


def _tokens(document: dict[str, Any]) -> Tokens:
    return Tokens(document.get("prompt_eval_count") or 0, document.get("eval_count") or 0)


class Events:
    """One document a line; the last says ``done``."""

    def __init__(self, out: Chunks) -> None:
        self._out = out

    def event(self, name: str, document: Any) -> None:
        del name
        out = self._out
        if "error" in document:
            out.fail(told(document))
            return
        out.model = document.get("model") or out.model
        message = document.get("message") or {}
        if message.get("thinking"):
            out.reason(message["thinking"])
        if message.get("content"):
            out.text(message["content"])
        for call in _calls(message):
            out.call(call)
        if document.get("done"):
            out.tokens = _tokens(document)
            out.finish = _finish(document, called=out.called)


FORMAT = Format(request, answer, Events, framing="ndjson", embeddings=OLLAMA)
