"""Google's generateContent, of the Gemini API and of Vertex AI: https://ai.google.dev/api/generate-content

What Gemini wants back with a call, its thought signature, travels as Google's own OpenAI-compatible endpoint has it:
``tool_calls[].extra_content.google.thought_signature``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec

from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot import Model

from .answer import Called, Chunks, Completion, Finish, Tokens
from .base import Format, Sent, merged
from .chat import Call, Chat, Image, Message, Text, Tool, Unfit, split, turns
from .embeddings import GOOGLE
from .problem import told

UNSIGNED = "skip_thought_signature_validator"
"""Google's word for a call that did not come from this model, or whose signature was lost."""
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "one": "ANY"}
_FILTERS = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "MODEL_ARMOR"}
)
_EFFORT = {"none": "minimal", "minimal": "minimal", "low": "low", "medium": "medium", "high": "high"}


def request(model: Model, chat: Chat) -> Sent:
    system, rest = split(chat.messages)
    body: dict[str, Any] = {"contents": _contents(rest)}
    if system:
        body["systemInstruction"] = {"parts": [_part(part) for part in system]}
    if chat.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in chat.tools]}]
        kind, name = chat.choice()
        if kind:
            only = {"allowedFunctionNames": [name]} if kind == "one" else {}
            body["toolConfig"] = {"functionCallingConfig": {"mode": _MODES[kind]} | only}
    if config := _config(chat):
        body["generationConfig"] = config
    method = "streamGenerateContent?alt=sse" if chat.stream else "generateContent"
    name = quote(model.model.removeprefix("models/"), safe="@")
    return Sent(f"/{name}:{method}", merged(body, model.extra))


def _config(chat: Chat) -> dict[str, Any]:
    values: dict[str, Any] = {
        "temperature": chat.temperature, "topP": chat.top_p, "maxOutputTokens": chat.longest(), "seed": chat.seed,
        "stopSequences": chat.stops() or None, "candidateCount": chat.n, "presencePenalty": chat.presence_penalty,
        "frequencyPenalty": chat.frequency_penalty,
    }  # fmt: skip
    if (chat.response_format or {}).get("type") in ("json_object", "json_schema"):
        values |= {"responseMimeType": "application/json", "responseJsonSchema": chat.schema()}
    if chat.reasoning_effort in _EFFORT:
        values["thinkingConfig"] = {"thinkingLevel": _EFFORT[chat.reasoning_effort]}
    return {name: value for name, value in values.items() if value is not None}


def _contents(messages: list[Message]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}

    def parts(message: Message) -> list[dict[str, Any]]:
        if message.role == "tool":
            return [_result(message, names)]
        names.update((call.id, call.function.name) for call in message.tool_calls or ())
        said = [_part(part) for part in message.shown()]
        return said + [_call(call, first=at == 0) for at, call in enumerate(message.tool_calls or ())]

    return turns(messages, parts, "Gemini", assistant="model", content="parts")


def _part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    if part.url:
        return {"fileData": {"fileUri": part.url}}
    return {"inlineData": {"mimeType": part.media_type, "data": part.data}}


def _call(call: Call, *, first: bool) -> dict[str, Any]:
    """Of calls made together the first is signed."""
    part: dict[str, Any] = {"functionCall": {"name": call.function.name, "args": call.arguments()}}
    google = (call.extra_content or {}).get("google")
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    if signature or first:
        part["thoughtSignature"] = signature or UNSIGNED
    return part


def _result(message: Message, names: dict[str, str]) -> dict[str, Any]:
    name = names.get(message.tool_call_id or "") or message.name or ""
    if not name:
        raise Unfit(f"the result of call {message.tool_call_id} comes without the call")
    text = message.text()
    try:
        value = msgspec.json.decode(text)
    except MALFORMED:
        value = text
    response = value if isinstance(value, dict) else {"result": value}
    found: dict[str, Any] = {"name": name, "response": response}
    images = [_part(part) for part in message.parts() if isinstance(part, Image)]
    return {"functionResponse": found | ({"parts": images} if images else {})}


def _declaration(tool: Tool) -> dict[str, Any]:
    function = tool.function
    found: dict[str, Any] = {"name": function.name, "description": function.description or function.name}
    return found | ({"parametersJsonSchema": function.parameters} if function.parameters else {})


def answer(document: Any) -> Completion:
    found = Completion(document.get("responseId") or "", document.get("modelVersion") or "")
    found.tokens = tokens(document.get("usageMetadata") or {})
    candidate = _first(document)
    for part in (candidate.get("content") or {}).get("parts") or ():
        if "functionCall" in part:
            found.calls.append(_called(part))
        elif part.get("thought"):
            found.reasoning += part.get("text") or ""
        else:
            found.text += part.get("text") or ""
    reason = candidate.get("finishReason") or ""
    blocked = (document.get("promptFeedback") or {}).get("blockReason")
    found.finish = "content_filter" if blocked else _finish(reason, called=bool(found.calls))
    if found.finish == "content_filter" and not found.text:
        found.refusal = _blocked(blocked or reason)
    return found


def _first(document: dict[str, Any]) -> dict[str, Any]:
    """Of several candidates (``candidateCount``) the first is the answer; the others come in events of their own."""
    return next((one for one in document.get("candidates") or () if not one.get("index")), {})


def tokens(usage: dict[str, Any]) -> Tokens:
    thought = usage.get("thoughtsTokenCount") or 0
    prompt = (usage.get("promptTokenCount") or 0) + (usage.get("toolUsePromptTokenCount") or 0)
    completion = (usage.get("candidatesTokenCount") or 0) + thought
    return Tokens(prompt, completion, usage.get("cachedContentTokenCount") or 0, 0, thought)


def _called(part: dict[str, Any]) -> Called:
    call = part["functionCall"]
    signature = part.get("thoughtSignature")
    extra = {"google": {"thought_signature": signature}} if signature else None
    ident = call.get("id") or f"call_{uuid4().hex[:24]}"
    return Called(ident, call["name"], msgspec.json.encode(call.get("args") or {}).decode(), extra)


def _finish(reason: str, *, called: bool) -> Finish:
    if reason in _FILTERS:
        return "content_filter"
    if reason == "MAX_TOKENS":
        return "length"
    return "tool_calls" if called else "stop"


def _blocked(reason: str) -> str:
    return f"The provider's content filter stopped the answer ({reason})."


class Events:
    """Each event is a whole document with what is new."""

    def __init__(self, out: Chunks) -> None:
        self._out = out
        self._said = False

    def event(self, name: str, document: Any) -> None:
        del name
        out = self._out
        if "error" in document:
            out.fail(told(document))
            return
        out.id = out.id or document.get("responseId") or ""
        out.model = out.model or document.get("modelVersion") or ""
        piece = answer(document)
        if "usageMetadata" in document:
            out.tokens = piece.tokens
        if piece.reasoning:
            out.reason(piece.reasoning)
        if piece.text:
            self._said = True
            out.text(piece.text)
        for call in piece.calls:
            out.call(call)
        blocked = (document.get("promptFeedback") or {}).get("blockReason")
        reason = _first(document).get("finishReason") or ""
        if blocked or reason:
            out.finish = "content_filter" if blocked else _finish(reason, called=out.called)
        if out.finish == "content_filter" and not self._said and not out.called:
            self._said = True
            out.refuse(_blocked(blocked or reason))


FORMAT = Format(request, answer, Events, embeddings=GOOGLE)
