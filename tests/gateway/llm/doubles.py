"""Providers' wire formats, written down from their documentation, and a server that plays one of them.

No paid API is called: what is here are doubles.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.wire.http import Exchange


@dataclass
class Answer:
    """``pieces`` are sent one by one; a mapping is JSON."""

    body: dict[str, Any] | list[bytes]
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass
class Provider:
    """Stands in for a provider: records requests, gives the answers in order, the last one for ever."""

    answers: list[Answer] = field(default_factory=list[Answer])
    seen: list[Exchange] = field(default_factory=list[Exchange])
    port: int = 0

    def __call__(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer.body, dict):
            exchange.respond(answer.status, json.dumps(answer.body).encode(), list(answer.headers))
            return
        exchange.start(answer.status, list(answer.headers))
        for piece in answer.body:
            exchange.write(piece)
        exchange.finish()

    @property
    def body(self) -> Any:
        """Of the last request."""
        return json.loads(self.seen[-1].body)

    def header(self, name: str) -> str | None:
        value = self.seen[-1].header(name.encode())
        return value.decode() if value is not None else None


def sse(*events: Any) -> list[bytes]:
    """Server-sent events; of a pair the first is the event's name."""
    out: list[bytes] = []
    for event in events:
        name, data = event if isinstance(event, tuple) else ("", event)
        text = data if isinstance(data, str) else json.dumps(data)
        out.append((f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode())
    return out


def named(*events: dict[str, Any]) -> list[bytes]:
    """Anthropic's and the Responses API's: the event's name is its type."""
    return sse(*((event["type"], event) for event in events))


def messages(*events: tuple[str, dict[str, Any]]) -> list[bytes]:
    """AWS event stream."""
    out: list[bytes] = []
    for name, document in events:
        kind = "exception" if name.endswith("Exception") else "event"
        headers = b"".join(
            bytes([len(key)]) + key + b"\x07" + len(value).to_bytes(2) + value
            for key, value in (
                (f":{kind}-type".encode(), name.encode()),
                (b":content-type", b"application/json"),
                (b":message-type", kind.encode()),
            )
        )
        payload = json.dumps(document).encode()
        prelude = (len(headers) + len(payload) + 16).to_bytes(4) + len(headers).to_bytes(4)
        message = prelude + zlib.crc32(prelude).to_bytes(4) + headers + payload
        out.append(message + zlib.crc32(message).to_bytes(4))
    return out


ANSWERS: dict[str, dict[str, Any]] = {
    "anthropic": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x-1", "stop_reason": "tool_use",
        "content": [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "b": 2}},
        ],
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 10,
                  "output_tokens": 7},
    },
    "gemini": {
        "responseId": "r1", "modelVersion": "gemini-x-1",
        "candidates": [{"finishReason": "STOP", "content": {"role": "model", "parts": [
            {"text": "Let me see."},
            {"functionCall": {"name": "add", "args": {"a": 1, "b": 2}}, "thoughtSignature": "c2ln"},
        ]}}],
        "usageMetadata": {"promptTokenCount": 100, "cachedContentTokenCount": 80, "candidatesTokenCount": 5,
                          "thoughtsTokenCount": 2, "totalTokenCount": 107},
    },
    "responses": {
        "id": "resp_1", "object": "response", "status": "completed", "model": "gpt-x-1", "error": None,
        "incomplete_details": None,
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "content": [
                {"type": "output_text", "text": "Let me see.", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add",
             "arguments": '{"a": 1, "b": 2}'},
        ],
        "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 80}, "output_tokens": 7,
                  "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 107},
    },
    "ollama": {
        "model": "llama-x", "created_at": "2026-11-21T00:00:00Z", "done": True, "done_reason": "stop",
        "message": {"role": "assistant", "content": "Let me see.", "tool_calls": [
            {"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}]},
        "prompt_eval_count": 100, "eval_count": 7,
    },
    "converse": {
        "stopReason": "tool_use",
        "output": {"message": {"role": "assistant", "content": [
            {"text": "Let me see."},
            {"toolUse": {"toolUseId": "tooluse_1", "name": "add", "input": {"a": 1, "b": 2}}}]}},
        "usage": {"inputTokens": 10, "cacheReadInputTokens": 80, "cacheWriteInputTokens": 10, "outputTokens": 7,
                  "totalTokens": 107},
        "metrics": {"latencyMs": 1},
    },
    "orchestration": {
        "request_id": "q1",
        "final_result": {
            "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-x-1",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
                "role": "assistant", "content": "Let me see.", "tool_calls": [
                    {"id": "call_1", "type": "function",
                     "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}]}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 80}},
        },
    },
}  # fmt: skip
"""Each says "Let me see." and calls add(a=1, b=2): 100 tokens in, 80 of them cached where there is a cache, 7 out."""


def _delta(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"final_result": {"id": "chatcmpl-1", "model": "gpt-x-1",
                             "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}}  # fmt: skip


STREAMS: dict[str, list[bytes]] = {
    "anthropic": named(
        {"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x-1", "content": [],
            "usage": {"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 10,
                      "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "see."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {
            "type": "tool_use", "id": "toolu_1", "name": "add", "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a": 1,'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ' "b": 2}'}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ),
    "gemini": sse(
        {"responseId": "r1", "modelVersion": "gemini-x-1", "candidates": [{"content": {"parts": [
            {"text": "Let me "}]}}], "usageMetadata": {"promptTokenCount": 100}},
        {"candidates": [{"content": {"parts": [{"text": "see."}]}}]},
        {"candidates": [{"finishReason": "STOP", "content": {"parts": [
            {"functionCall": {"name": "add", "args": {"a": 1, "b": 2}}, "thoughtSignature": "c2ln"}]}}],
         "usageMetadata": {"promptTokenCount": 100, "cachedContentTokenCount": 80, "candidatesTokenCount": 5,
                           "thoughtsTokenCount": 2}},
    ),
    "responses": named(
        {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-x-1", "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": []}},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "Let me "},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "see."},
        {"type": "response.output_text.done", "output_index": 0, "text": "Let me see."},
        {"type": "response.output_item.added", "output_index": 1, "item": {
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add", "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"a": 1,'},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": ' "b": 2}'},
        {"type": "response.function_call_arguments.done", "output_index": 1, "arguments": '{"a": 1, "b": 2}'},
        {"type": "response.completed", "response": ANSWERS["responses"]},
    ),
    "ollama": [
        json.dumps(line).encode() + b"\n"
        for line in (
            {"model": "llama-x", "message": {"role": "assistant", "content": "Let me "}, "done": False},
            {"model": "llama-x", "message": {"role": "assistant", "content": "see."}, "done": False},
            {"model": "llama-x", "message": {"role": "assistant", "content": "", "tool_calls": [
                {"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}]}, "done": False},
            {"model": "llama-x", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop",
             "prompt_eval_count": 100, "eval_count": 7},
        )
    ],
    "converse": messages(
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Let me "}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "see."}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("contentBlockStart", {"contentBlockIndex": 1,
                               "start": {"toolUse": {"toolUseId": "tooluse_1", "name": "add"}}}),
        ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": '{"a": 1,'}}}),
        ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": ' "b": 2}'}}}),
        ("contentBlockStop", {"contentBlockIndex": 1}),
        ("messageStop", {"stopReason": "tool_use"}),
        ("metadata", {"usage": {"inputTokens": 10, "cacheReadInputTokens": 80, "cacheWriteInputTokens": 10,
                                "outputTokens": 7}}),
    ),
    "orchestration": sse(
        {"request_id": "q1", "intermediate_results": {"templating": []}},
        _delta({"role": "assistant", "content": "Let me "}),
        _delta({"content": "see."}),
        _delta({"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
                                "function": {"name": "add", "arguments": ""}}]}),
        _delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1, "b": 2}'}}]}),
        _delta({}, "tool_calls"),
        {"final_result": {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 7,
                                                   "prompt_tokens_details": {"cached_tokens": 80}}}},
        "[DONE]",
    ),
}  # fmt: skip
