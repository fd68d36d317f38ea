"""OpenAI's Responses API (``apiFormat: responses``): https://platform.openai.com/docs/api-reference/responses

Nothing is kept at the provider (``store: false``): the conversation is the agent's.
"""

from __future__ import annotations

from typing import Any

from quarterdeck.errors import UpstreamError
from quarterdeck.snapshot import Model

from .answer import Called, Chunks, Completion, Finish, Tokens
from .base import Format, Sent, merged
from .chat import Chat, Image, Message, Text, Unfit
from .embeddings import OPENAI
from .problem import told

_ROLES = {"system": "system", "developer": "developer", "user": "user", "assistant": "assistant"}


def request(model: Model, chat: Chat) -> Sent:
    chat.single("the Responses API")
    items = [item for message in chat.messages for item in _items(message)]
    body: dict[str, Any] = {"model": model.model, "input": items, "store": False}
    values: dict[str, Any] = {
        "temperature": chat.temperature, "top_p": chat.top_p, "max_output_tokens": chat.longest(),
        "parallel_tool_calls": chat.parallel_tool_calls, "stream": chat.stream or None,
    }  # fmt: skip
    body |= {name: value for name, value in values.items() if value is not None}
    if chat.reasoning_effort:
        body["reasoning"] = {"effort": chat.reasoning_effort}
    if chat.tools:
        body["tools"] = [_tool(tool.function) for tool in chat.tools]
        kind, name = chat.choice()
        if kind:
            body["tool_choice"] = {"type": "function", "name": name} if kind == "one" else kind
    if chat.response_format:
        body["text"] = {"format": _format(chat)}
    return Sent("/responses", merged(body, model.extra))


def _items(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        output: Any = [_part(part) for part in message.parts()]
        if all(part["type"] == "input_text" for part in output):
            output = message.text()
        return [{"type": "function_call_output", "call_id": message.tool_call_id or "", "output": output}]
    if message.role not in _ROLES:
        raise Unfit(f"messages: role {message.role!r} is not one of {', '.join(_ROLES)}, tool")
    content = message.text() if message.role == "assistant" else [_part(part) for part in message.parts()]
    items: list[dict[str, Any]] = [{"role": _ROLES[message.role], "content": content}] if content else []
    items += [
        {"type": "function_call", "call_id": call.id, "name": call.function.name, "arguments": call.written()}
        for call in message.tool_calls or ()
    ]
    return items


def _part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _tool(function: Any) -> dict[str, Any]:
    schema = function.parameters or {"type": "object", "properties": {}}
    tool: dict[str, Any] = {"type": "function", "name": function.name, "parameters": schema}
    tool["strict"] = bool(function.strict)
    return tool | ({"description": function.description} if function.description else {})


def _format(chat: Chat) -> dict[str, Any]:
    wanted = chat.response_format or {}
    if chat.schema() is None:
        return {"type": wanted.get("type") or "text"}
    return {"type": "json_schema"} | wanted["json_schema"]


def answer(document: Any) -> Completion:
    if document.get("status") == "failed" or document.get("error"):
        raise UpstreamError(told(document).message)
    found = Completion(document["id"], document["model"])
    for item in document["output"]:
        if item["type"] == "function_call":
            found.calls.append(Called(item["call_id"], item["name"], item["arguments"]))
        elif item["type"] == "message":
            for part in item["content"]:
                found.text += part.get("text") or ""
                found.refusal += part.get("refusal") or ""
        elif item["type"] == "reasoning":
            found.reasoning += "".join(part.get("text") or "" for part in item.get("summary") or ())
    found.finish = _finish(document, called=bool(found.calls))
    found.tokens = _tokens(document.get("usage") or {})
    return found


def _finish(document: Any, *, called: bool) -> Finish:
    reason = (document.get("incomplete_details") or {}).get("reason")
    if reason == "content_filter":
        return "content_filter"
    if document.get("status") == "incomplete":
        return "length"
    return "tool_calls" if called else "stop"


def _tokens(usage: dict[str, Any]) -> Tokens:
    cached = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
    reasoning = (usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0
    return Tokens(usage.get("input_tokens") or 0, usage.get("output_tokens") or 0, cached, 0, reasoning)


class Events:
    """``response.*``; what only repeats what was sent piece by piece is left out."""

    def __init__(self, out: Chunks) -> None:
        self._out = out
        self._calls: dict[int, int] = {}

    def event(self, name: str, document: Any) -> None:
        out = self._out
        match document.get("type") or name:
            case "response.created":
                out.id, out.model = document["response"]["id"], document["response"].get("model") or ""
            case "response.output_text.delta":
                out.text(document["delta"])
            case "response.refusal.delta":
                out.refuse(document["delta"])
            case "response.reasoning_summary_text.delta":
                out.reason(document["delta"])
            case "response.output_item.added" if document["item"]["type"] == "function_call":
                item = document["item"]
                call = Called(item["call_id"], item["name"], item.get("arguments") or "")
                self._calls[document["output_index"]] = out.call(call)
            case "response.function_call_arguments.delta":
                index = self._calls.get(document["output_index"])
                if index is None:
                    raise UpstreamError("sent arguments of a call that had not begun")
                out.arguments(index, document["delta"])
            case "response.completed" | "response.incomplete":
                response = document["response"]
                out.tokens = _tokens(response.get("usage") or {})
                out.finish = _finish(response, called=out.called)
            case "response.failed":
                out.fail(told(document["response"]))
            case "error":
                out.fail(told(document))
            case _:
                pass


FORMAT = Format(request, answer, Events, embeddings=OPENAI)
