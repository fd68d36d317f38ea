"""What goes wrong at a provider, told as OpenAI would tell it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from .conftest import TOOL, Models, model
from .doubles import Answer, messages, named, sse
from .test_formats import SPECS

BUSY = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
START = {"type": "message_start", "message": {"id": "m", "model": "c", "usage": {}}}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}}


def google(code: int, status: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "status": status, "message": "told", "details": list(details)}}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17.3s"}


@pytest.mark.parametrize(
    ("name", "status", "body", "headers", "told", "kind", "retry"),
    [
        ("anthropic", 529, BUSY, (), 503, "overloaded_error", None),
        ("anthropic", 429, {"type": "error", "error": {"type": "rate_limit_error", "message": "told"}},
         ((b"retry-after", b"9"),), 429, "rate_limit_error", "9"),
        ("anthropic", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "told"}}, (), 400,
         "invalid_request_error", None),
        ("gemini", 429, google(429, "RESOURCE_EXHAUSTED", RETRY), (), 429, "rate_limit_error", "18"),
        ("gemini", 503, google(503, "UNAVAILABLE"), (), 503, "overloaded_error", None),
        ("gemini", 404, google(404, "NOT_FOUND"), (), 404, "not_found_error", None),
        ("ollama", 404, {"error": "model 'x' not found"}, (), 404, "not_found_error", None),
        ("converse", 429, {"message": "Too many tokens"}, (), 429, "rate_limit_error", None),
        ("converse", 400, {"message": "bad"}, (), 400, "invalid_request_error", None),
        ("converse", 500, {"message": "bad"}, (), 500, "server_error", None),
        ("responses", 429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "told"}},
         (), 429, "insufficient_quota", None),
        ("responses", 400, {"error": {"code": "content_filter", "message": "told"}}, (), 400, "invalid_request_error",
         None),
    ],
)  # fmt: skip
async def test_an_error_keeps_its_meaning(
    models: Models, name: str, status: int, body: Any, headers: Any, told: int, kind: str, retry: str | None
) -> None:
    models.use(model(*SPECS[name]))
    models.answers(Answer(body, status, headers))
    for stream in (False, True):
        response = await models.ask({"stream": stream})
        error = msgspec.json.decode(await response.read())["error"]
        assert (response.status, error["type"]) == (told, kind)
        assert error["message"]
        assert (response.header(b"retry-after") or b"").decode() == (retry or "")
    assert models.rig.records()[-1]["outcome"] == "error"


LIMITED = {"code": "rate_limit_exceeded", "message": "told"}


@pytest.mark.parametrize(
    ("name", "event", "status", "kind"),
    [
        ("anthropic", BUSY, 503, "overloaded_error"),
        ("responses", {"type": "error"} | LIMITED, 429, "rate_limit_error"),
        ("responses", {"type": "response.failed", "response": {"error": LIMITED}}, 429, "rate_limit_error"),
    ],
)
async def test_an_error_before_the_first_word_is_a_status(
    models: Models, name: str, event: dict[str, Any], status: int, kind: str
) -> None:
    models.use(model(*SPECS[name]))
    models.answers(Answer(named(*((START, event) if name == "anthropic" else (event,)))))
    response = await models.ask({"stream": True})
    assert response.status == status
    assert msgspec.json.decode(await response.read())["error"]["type"] == kind


@pytest.mark.parametrize("stream", [False, True])
async def test_unfinished_answers_have_one_room_together(models: Models, stream: bool) -> None:
    models.use(model(*SPECS["anthropic"]))
    models.answers(Answer([b"data: " + b"x" * 2000]))
    upstreams = models.rig.gateway.upstreams
    upstreams.most_collected = 1000
    response = await models.ask({"stream": stream})
    assert response.status == 502
    assert b"more than there is room for" in await response.read()
    assert upstreams.collected == 0


@pytest.mark.parametrize(
    ("name", "pieces", "says"),
    [
        ("anthropic", named(START, TEXT, BUSY), "Overloaded"),
        ("anthropic", named(START, TEXT), "early"),
        ("anthropic", [*named(START, TEXT), b"data: {nonsense\n\n"], "not JSON"),
        ("anthropic", [*named(START, TEXT), b'data: {"type":"content_block_delta"}\n\n'], "no answer in its format"),
        ("gemini", sse({"candidates": [{"content": {"parts": [{"text": "Hel"}]}}]}, google(503, "UNAVAILABLE")),
         "told"),
        ("ollama", [b'{"message":{"content":"Hel"}}\n', b'{"error":"out of memory"}\n'], "out of memory"),
        ("converse", messages(("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hel"}}),
                              ("throttlingException", {"message": "slow down"})), "slow down"),
        ("converse", [*messages(("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hel"}})),
                      b"\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0"], "damaged"),
        ("responses", named({"type": "response.output_text.delta", "delta": "Hel"},
                            {"type": "response.failed", "response": {"error": {
                                "code": "server_error", "message": "told"}}}), "told"),
    ],
)  # fmt: skip
async def test_a_stream_that_breaks_says_so(models: Models, name: str, pieces: list[bytes], says: str) -> None:
    models.use(model(*SPECS[name]))
    models.answers(Answer(pieces))
    chunks = await models.chunks()
    assert chunks[0]["choices"][0]["delta"]["content"] == "Hel"
    assert says in chunks[-1]["error"]["message"]
    assert models.rig.records()[-1]["outcome"] == "error"


@pytest.mark.parametrize(
    ("name", "answer", "refusal"),
    [
        ("anthropic", {"id": "m", "model": "c", "content": [], "stop_reason": "refusal"}, "refused"),
        ("gemini", {"promptFeedback": {"blockReason": "SAFETY"}}, "SAFETY"),
        ("gemini", {"candidates": [{"finishReason": "PROHIBITED_CONTENT"}]}, "PROHIBITED_CONTENT"),
        ("converse", {"stopReason": "guardrail_intervened", "output": {"message": {"content": []}}}, "content filter"),
    ],
)
async def test_a_filtered_answer_is_a_refusal(models: Models, name: str, answer: Any, refusal: str) -> None:
    models.use(model(*SPECS[name]))
    models.answers(Answer(answer))
    choice = (await models.json())["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert refusal in choice["message"]["refusal"]


async def test_a_filtered_stream_is_a_refusal(models: Models) -> None:
    models.use(model(*SPECS["gemini"]))
    models.answers(Answer(sse({"candidates": [{"finishReason": "SAFETY"}]})))
    first, *_, last, usage, _ = await models.chunks()
    assert "SAFETY" in first["choices"][0]["delta"]["refusal"]
    assert last["choices"][0]["finish_reason"] == "content_filter"
    assert usage["usage"]["total_tokens"] == 0


@pytest.mark.parametrize("body", [{}, {"content": 1}, {"id": 1, "model": "c", "content": [{"type": "text"}]}])
async def test_what_is_no_answer_is_an_error_of_the_providers(models: Models, body: Any) -> None:
    models.use(model(*SPECS["anthropic"]))
    models.answers(Answer(body))
    response = await models.ask({"tools": [TOOL]})
    assert response.status == 502
    assert "no answer in its format" in msgspec.json.decode(await response.read())["error"]["message"]


async def test_a_refused_key_is_not_told_as_the_callers_fault(models: Models) -> None:
    models.use(model(*SPECS["anthropic"]))
    models.answers(Answer({"type": "error", "error": {"type": "authentication_error", "message": "x"}}, 401))
    response = await models.ask()
    assert response.status == 502
    assert "check its apiKeySecret" in msgspec.json.decode(await response.read())["error"]["message"]
