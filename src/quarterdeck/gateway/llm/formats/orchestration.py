"""SAP AI Core's orchestration service, version 2, around OpenAI's messages:
https://help.sap.com/docs/sap-ai-core/generative-ai/orchestration"""

from __future__ import annotations

from typing import Any

from quarterdeck.snapshot import Model

from .answer import Called, Chunks, Completion, Finish, Tokens
from .base import Format, Sent
from .chat import Chat, Message, Text
from .problem import told

_PARAMETERS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed",
               "frequency_penalty", "presence_penalty", "reasoning_effort", "parallel_tool_calls")  # fmt: skip
_FINISHES: dict[str, Finish] = {"length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"}


def request(model: Model, chat: Chat) -> Sent:
    chat.single("SAP AI Core")
    given = {name: getattr(chat, name) for name in _PARAMETERS}
    params = {name: value for name, value in given.items() if value is not None}
    prompt: dict[str, Any] = {"template": [_message(message) for message in chat.messages]}
    if chat.tools:
        prompt["tools"] = [_tool(tool.function) for tool in chat.tools]
    if chat.response_format:
        prompt["response_format"] = chat.response_format
    module = {"prompt": prompt, "model": {"name": model.model, "params": params, "version": "latest"}}
    config: dict[str, Any] = {"modules": {"prompt_templating": module}, "stream": {"enabled": bool(chat.stream)}}
    return Sent("/v2/completion", {"config": config})


def _message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if isinstance(message.content, list):
        found["content"] = [
            {"type": "text", "text": part.text}
            if isinstance(part, Text)
            else {"type": "image_url", "image_url": {"url": part.url or f"data:{part.media_type};base64,{part.data}"}}
            for part in message.parts()
        ]
    if message.role == "tool":
        found["tool_call_id"] = message.tool_call_id or ""
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.id, "type": "function",
             "function": {"name": call.function.name, "arguments": call.written()}}
            for call in message.tool_calls
        ]  # fmt: skip
    return found


def _tool(function: Any) -> dict[str, Any]:
    schema = function.parameters or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": function.name, "description": function.description or "", "parameters": schema},
    }


def _result(document: dict[str, Any]) -> dict[str, Any]:
    return document.get("final_result") or document.get("orchestration_result") or document


def answer(document: Any) -> Completion:
    result = _result(document)
    choice = result["choices"][0]
    message = choice["message"]
    found = Completion(result.get("id") or "", result.get("model") or "", message.get("content") or "")
    found.refusal = message.get("refusal") or ""
    found.calls = [
        Called(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    ]
    found.finish = _FINISHES.get(choice.get("finish_reason") or "", "stop")
    found.tokens = _tokens(result.get("usage") or {})
    return found


def _tokens(usage: dict[str, Any]) -> Tokens:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return Tokens(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0, cached, 0, reasoning)


class Events:
    """OpenAI's chunks inside ``final_result``."""

    def __init__(self, out: Chunks) -> None:
        self._out = out
        self._calls: dict[int, int] = {}

    def event(self, name: str, document: Any) -> None:
        del name
        out = self._out
        if "error" in document or "code" in document:
            out.fail(told(document))
            return
        result = _result(document)
        out.id, out.model = out.id or result.get("id") or "", out.model or result.get("model") or ""
        if result.get("usage"):
            out.tokens = _tokens(result["usage"])
        choice = (result.get("choices") or [{}])[0]
        delta = choice.get("delta") or {}
        if delta.get("content"):
            out.text(delta["content"])
        for part in delta.get("tool_calls") or ():
            self._call(part)
        if choice.get("finish_reason"):
            out.finish = _FINISHES.get(choice["finish_reason"], "stop")

    def _call(self, part: dict[str, Any]) -> None:
        at, function = part.get("index") or 0, part.get("function") or {}
        index = self._calls.get(at)
        if index is None:
            call = Called(part.get("id") or "", function.get("name") or "", function.get("arguments") or "")
            self._calls[at] = self._out.call(call)
        elif function.get("arguments"):
            self._out.arguments(index, function["arguments"])


FORMAT = Format(request, answer, Events)
