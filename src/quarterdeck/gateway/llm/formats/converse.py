"""Amazon Bedrock's Converse: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

from quarterdeck.errors import UpstreamError
from quarterdeck.snapshot import Model

from .answer import Called, Chunks, Completion, Finish, Tokens
from .base import Format, Sent, merged
from .chat import Chat, Image, Message, Text, Unfit, split, turns
from .embeddings import BEDROCK
from .problem import told

_ID = re.compile(r"[^a-zA-Z0-9_.:-]")
_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_FINISH: dict[str, Finish] = {
    "end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length",
    "model_context_window_exceeded": "length", "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}  # fmt: skip
_BLOCKED = "The provider's content filter stopped the answer."


def request(model: Model, chat: Chat) -> Sent:
    chat.single("Bedrock")
    system, rest = split(chat.messages)
    body: dict[str, Any] = {"messages": turns(rest, _blocks, "Bedrock")}
    point = [{"cachePoint": {"type": "default"} | ({"ttl": model.cache} if model.cache == "1h" else {})}]
    mark = point if model.cache else []
    if system:
        body["system"] = [_block(part) for part in system] + mark
    allowed = chat.tools if chat.choice()[0] != "none" else None
    if tools := allowed or chat.called():
        body["toolConfig"] = {"tools": [_tool(tool.function) for tool in tools] + mark} | _choice(chat)
    config: dict[str, Any] = {
        "temperature": chat.temperature, "topP": chat.top_p, "maxTokens": chat.longest(),
        "stopSequences": chat.stops() or None,
    }  # fmt: skip
    config = {name: value for name, value in config.items() if value is not None}
    if config:
        body["inferenceConfig"] = config
    if (schema := chat.schema()) is not None:
        text = msgspec.json.encode(schema).decode()
        form = {"type": "json_schema", "structure": {"jsonSchema": {"name": "answer", "schema": text}}}
        body["outputConfig"] = {"textFormat": form}
    method = "converse-stream" if chat.stream else "converse"
    return Sent(f"/model/{quote(model.model, safe='')}/{method}", merged(body, model.extra))


def _choice(chat: Chat) -> dict[str, Any]:
    kind, name = chat.choice()
    if kind == "one":
        return {"toolChoice": {"tool": {"name": _NAME.sub("_", name)}}}
    return {"toolChoice": {"any": {}}} if kind == "required" else {}


def _tool(function: Any) -> dict[str, Any]:
    schema = function.parameters or {"type": "object", "properties": {}}
    spec: dict[str, Any] = {"name": _NAME.sub("_", function.name), "inputSchema": {"json": schema}}
    return {"toolSpec": spec | ({"description": function.description} if function.description else {})}


def _blocks(message: Message) -> list[dict[str, Any]]:
    content = [_block(part) for part in message.shown()]
    if message.role == "tool":
        ident = _ID.sub("_", message.tool_call_id or "call")
        return [{"toolResult": {"toolUseId": ident, "content": content or [{"text": "(empty)"}]}}]
    calls = [
        {"toolUse": {"toolUseId": _ID.sub("_", call.id), "name": _NAME.sub("_", call.function.name),
                     "input": call.arguments()}}
        for call in message.tool_calls or ()
    ]  # fmt: skip
    return [*content, *calls]


def _block(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    if part.url:
        raise Unfit("image_url: Bedrock takes images inside the request only; send a data: URL")
    return {"image": {"format": part.media_type.removeprefix("image/"), "source": {"bytes": part.data}}}


def answer(document: Any) -> Completion:
    found = Completion(finish=_FINISH.get(document["stopReason"], "stop"))
    for block in document["output"]["message"]["content"]:
        if "text" in block:
            found.text += block["text"]
        elif "toolUse" in block:
            use = block["toolUse"]
            found.calls.append(Called(use["toolUseId"], use["name"], msgspec.json.encode(use["input"]).decode()))
        elif "reasoningContent" in block:
            found.reasoning += (block["reasoningContent"].get("reasoningText") or {}).get("text") or ""
    if found.finish == "content_filter" and not found.text:
        found.refusal = _BLOCKED
    found.tokens = _tokens(document.get("usage") or {})
    return found


def _tokens(usage: dict[str, Any]) -> Tokens:
    cached, written = usage.get("cacheReadInputTokens") or 0, usage.get("cacheWriteInputTokens") or 0
    prompt = (usage.get("inputTokens") or 0) + cached + written
    return Tokens(prompt, usage.get("outputTokens") or 0, cached, written)


class Events:
    """messageStart, contentBlock{Start,Delta,Stop}, messageStop, metadata; ``…Exception``."""

    def __init__(self, out: Chunks) -> None:
        self._out = out
        self._calls: dict[int, int] = {}
        self._said = False

    def event(self, name: str, document: Any) -> None:
        out = self._out
        match name:
            case "contentBlockStart" if "toolUse" in (document.get("start") or {}):
                use = document["start"]["toolUse"]
                self._calls[document["contentBlockIndex"]] = out.call(Called(use["toolUseId"], use["name"], ""))
            case "contentBlockDelta":
                self._delta(document["contentBlockIndex"], document["delta"])
            case "messageStop":
                out.finish = _FINISH.get(document["stopReason"], "stop")
                if out.finish == "content_filter" and not self._said:
                    out.refuse(_BLOCKED)
            case "metadata":
                out.tokens = _tokens(document.get("usage") or {})
            case _ if name.endswith("Exception"):
                kind = name[0].upper() + name[1:]
                out.fail(told({"type": kind, "message": document.get("message") or kind}))
            case _:
                pass

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        if "text" in delta:
            self._said = True
            self._out.text(delta["text"])
        elif "toolUse" in delta:
            call = self._calls.get(index)
            if call is None:
                raise UpstreamError("sent arguments of a call that had not begun")
            self._out.arguments(call, delta["toolUse"]["input"])
        elif "reasoningContent" in delta:
            self._out.reason(delta["reasoningContent"].get("text") or "")


FORMAT = Format(request, answer, Events, framing="eventstream", embeddings=BEDROCK)
