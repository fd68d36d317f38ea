"""One conversation in each provider's format: what it is asked, and what its answer becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import TOOL, Models, model
from .doubles import ANSWERS, STREAMS, Answer, messages, named, sse

GOOGLE = json.dumps(
    {"type": "service_account", "client_email": "a@p", "private_key": "x", "token_uri": "https://t.example/token"}
)
SPECS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "anthropic": ({"provider": "Anthropic", "apiKeySecret": "s", "apiKeySecretKey": "k"}, {"k": "sk-1"}),
    "gemini": ({"provider": "Gemini", "apiKeySecret": "s", "apiKeySecretKey": "k"}, {"k": "sk-1"}),
    "responses": (
        {"provider": "OpenAI", "openAI": {"apiFormat": "responses"}, "apiKeySecret": "s", "apiKeySecretKey": "k"},
        {"k": "sk-1"},
    ),
    "ollama": ({"provider": "Ollama"}, {}),
    "converse": (
        {"provider": "Bedrock", "bedrock": {"region": "eu-west-1", "promptCaching": True}, "apiKeySecret": "s"},
        {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "session"},
    ),
}
PIXEL = "iVBORw0KGgo="
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]},
    {"role": "assistant", "content": "Let me see.", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'},
         "extra_content": {"google": {"thought_signature": "c2ln"}}},
        {"id": "c2", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "one"},
    {"role": "tool", "tool_call_id": "c2", "content": '{"sum": 2}'},
    {"role": "system", "content": "Answer now."},
]  # fmt: skip
CACHE = {"cache_control": {"type": "ephemeral"}}
SCHEMA = TOOL["function"]["parameters"]  # type: ignore[index]
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic": ("/v1/messages", {
        "model": "x", "max_tokens": 50,
        "system": [{"type": "text", "text": "Be brief."} | CACHE],
        "tools": [{"name": "add", "description": "Adds.", "input_schema": SCHEMA} | CACHE],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}} | CACHE]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
                {"type": "tool_use", "id": "c2", "name": "add", "input": {"a": 2}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "one"}]},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": '{"sum": 2}'}]},
                {"type": "text", "text": "Answer now."} | CACHE]},
        ]}),
    "gemini": ("/v1beta/models/x:generateContent", {
        "generationConfig": {"maxOutputTokens": 50},
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "tools": [{"functionDeclarations": [
            {"name": "add", "description": "Adds.", "parametersJsonSchema": SCHEMA}]}],
        "contents": [
            {"role": "user", "parts": [
                {"text": "What is it?"}, {"inlineData": {"mimeType": "image/png", "data": PIXEL}}]},
            {"role": "model", "parts": [
                {"text": "Let me see."},
                {"functionCall": {"name": "add", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
                {"functionCall": {"name": "add", "args": {"a": 2}}}]},
            {"role": "user", "parts": [
                {"functionResponse": {"name": "add", "response": {"result": "one"}}},
                {"functionResponse": {"name": "add", "response": {"sum": 2}}},
                {"text": "Answer now."}]},
        ]}),
    "responses": ("/v1/responses", {
        "model": "x", "store": False, "max_output_tokens": 50,
        "tools": [{"type": "function", "name": "add", "description": "Adds.", "parameters": SCHEMA, "strict": False}],
        "input": [
            {"role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
            {"role": "user", "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"}]},
            {"role": "assistant", "content": "Let me see."},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
            {"type": "function_call", "call_id": "c2", "name": "add", "arguments": '{"a": 2}'},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "function_call_output", "call_id": "c2", "output": '{"sum": 2}'},
            {"role": "system", "content": [{"type": "input_text", "text": "Answer now."}]},
        ]}),
    "ollama": ("/api/chat", {
        "model": "x", "stream": False, "options": {"num_predict": 50}, "tools": [TOOL],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is it?", "images": [PIXEL]},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [
                {"function": {"name": "add", "arguments": {"a": 1}}},
                {"function": {"name": "add", "arguments": {"a": 2}}}]},
            {"role": "tool", "content": "one", "tool_name": "add"},
            {"role": "tool", "content": '{"sum": 2}', "tool_name": "add"},
            {"role": "system", "content": "Answer now."},
        ]}),
    "converse": ("/model/x/converse", {
        "inferenceConfig": {"maxTokens": 50},
        "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
        "toolConfig": {"tools": [
            {"toolSpec": {"name": "add", "description": "Adds.", "inputSchema": {"json": SCHEMA}}},
            {"cachePoint": {"type": "default"}}]},
        "messages": [
            {"role": "user", "content": [
                {"text": "What is it?"}, {"image": {"format": "png", "source": {"bytes": PIXEL}}}]},
            {"role": "assistant", "content": [
                {"text": "Let me see."},
                {"toolUse": {"toolUseId": "c1", "name": "add", "input": {"a": 1}}},
                {"toolUse": {"toolUseId": "c2", "name": "add", "input": {"a": 2}}}]},
            {"role": "user", "content": [
                {"toolResult": {"toolUseId": "c1", "content": [{"text": "one"}]}},
                {"toolResult": {"toolUseId": "c2", "content": [{"text": '{"sum": 2}'}]}},
                {"text": "Answer now."}]},
        ]}),
}  # fmt: skip
CACHED = {"anthropic": 80, "gemini": 80, "responses": 80, "ollama": 0, "converse": 80}


@pytest.mark.parametrize("name", SPECS)
async def test_a_request_is_put_into_the_providers_words(models: Models, name: str) -> None:
    models.use(model(*SPECS[name]))
    models.answers(Answer(ANSWERS[name]))
    path, body = ASKED[name]
    await models.json({"messages": TALK, "tools": [TOOL], "max_completion_tokens": 50})
    assert models.provider.seen[-1].target.decode() == path
    assert models.provider.body == body


@pytest.mark.parametrize("name", SPECS)
async def test_an_answer_becomes_a_chat_completion(models: Models, name: str) -> None:
    models.use(model(*SPECS[name]))
    models.answers(Answer(ANSWERS[name]))
    answer = await models.json({"tools": [TOOL]})
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "Let me see.")
    [call] = choice["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("add", {"a": 1, "b": 2})
    assert call["id"]
    assert call.get("extra_content") == ({"google": {"thought_signature": "c2ln"}} if name == "gemini" else None)
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (100, 7, 107)
    assert usage["prompt_tokens_details"]["cached_tokens"] == CACHED[name]
    metrics = models.rig.gateway.registry.render().decode()
    assert 'gen_ai_token_type="input",gen_ai_request_model="x"' in metrics


@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", SPECS)
async def test_a_stream_becomes_chunks(models: Models, name: str, split: bool) -> None:
    models.use(model(*SPECS[name]))
    pieces = STREAMS[name]
    models.answers(Answer([bytes([byte]) for byte in b"".join(pieces)] if split else pieces))
    *chunks, usage, done = await models.chunks({"tools": [TOOL]})
    assert done == "[DONE]"
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 107)
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] == CACHED[name]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert [delta["content"] for delta in deltas if "content" in delta] == ["Let me ", "see."]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["function"]["name"] == "add" and calls[0]["id"]
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"a": 1, "b": 2}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert len({chunk["id"] for chunk in chunks}) == 1


BARE = {
    "anthropic": named(
        {"type": "message_start", "message": {"id": "m", "model": "c", "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "now",
                                                                      "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}}, {"type": "message_stop"},
    ),
    "converse": messages(
        ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t", "name": "now"}}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": ""}}}),
        ("contentBlockStop", {"contentBlockIndex": 0}), ("messageStop", {"stopReason": "tool_use"}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BARE)
async def test_a_call_without_arguments_has_an_empty_object_of_them(models: Models, name: str) -> None:
    models.use(model(*SPECS[name]))
    models.answers(Answer(BARE[name]))
    *chunks, _, _ = await models.chunks({"tools": [TOOL]})
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert "".join(call["function"]["arguments"] for call in calls) == "{}"
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("name", ["anthropic", "converse"])
async def test_tools_that_were_called_are_declared_though_none_is_there(models: Models, name: str) -> None:
    """These providers refuse conversations with calls of which no tool is declared."""
    models.use(model(*SPECS[name]))
    models.answers(Answer(ANSWERS[name]))
    await models.json({"messages": TALK})
    body = models.provider.body
    if name == "anthropic":
        [tool] = body["tools"]
        assert (tool["name"], body["tool_choice"]) == ("add", {"type": "none"})
    else:
        assert body["toolConfig"]["tools"][0]["toolSpec"]["name"] == "add"
    await models.json({"messages": TALK[:2], "tools": [TOOL], "tool_choice": "none"})
    assert "toolConfig" not in models.provider.body


async def test_ids_of_other_providers_calls_are_put_so_that_they_are_taken(models: Models) -> None:
    models.use(model(*SPECS["anthropic"]))
    models.answers(Answer(ANSWERS["anthropic"]))
    call = {"id": "functions.add:0", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "functions.add:0", "content": "1"}]  # fmt: skip
    await models.json({"messages": talk, "tools": [TOOL]})
    _, said, told = models.provider.body["messages"]
    assert said["content"][0]["id"] == told["content"][0]["tool_use_id"] == "functions_add_0"


async def test_marks_of_the_callers_own_are_the_only_ones(models: Models) -> None:
    models.use(model(*SPECS["anthropic"]))
    models.answers(Answer(ANSWERS["anthropic"]))
    marked = {"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    await models.json({"messages": [{"role": "system", "content": [marked]}, {"role": "user", "content": "hi"}]})
    body = models.provider.body
    assert body["system"] == [marked]
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


async def test_a_call_of_another_models_is_marked_as_unsigned(models: Models) -> None:
    models.use(model(*SPECS["gemini"]))
    models.answers(Answer(ANSWERS["gemini"]))
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"}]  # fmt: skip
    await models.json({"messages": talk})
    part = models.provider.body["contents"][1]["parts"][0]
    assert part["thoughtSignature"] == "skip_thought_signature_validator"


@pytest.mark.parametrize("name", ["anthropic", "gemini", "converse"])
async def test_blank_texts_are_left_out(models: Models, name: str) -> None:
    """These providers refuse them, and models say such before they call a tool."""
    models.use(model(*SPECS[name]))
    models.answers(Answer(ANSWERS[name]))
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    blank = [{"type": "text", "text": ""}, {"type": "text", "text": "\n\n"}]
    talk: list[dict[str, Any]] = [
        {"role": "system", "content": blank}, {"role": "user", "content": [{"type": "text", "text": "x"}, *blank]},
        {"role": "assistant", "content": "\n\n", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]  # fmt: skip
    await models.json({"messages": talk})
    body = models.provider.body
    assert not {"system", "systemInstruction"} & set(body)
    user, assistant, _ = (turn.get("content") or turn["parts"] for turn in body.get("messages") or body["contents"])
    assert (len(user), len(assistant)) == (1, 1)
    assert user[0]["text"] == "x"


async def test_of_several_candidates_the_first_is_the_answer(models: Models) -> None:
    models.use(model(*SPECS["gemini"]))
    said = [{"index": at, "content": {"parts": [{"text": text}]}} for at, text in ((1, "No"), (0, "Yes"), (1, " way"))]
    ends = [{"index": at, "finishReason": reason} for at, reason in ((1, "MAX_TOKENS"), (0, "STOP"))]
    models.answers(Answer(sse(*({"candidates": [one]} for one in (*said, *reversed(ends))))))
    *chunks, _, _ = await models.chunks()
    deltas = [chunk["choices"][0] for chunk in chunks]
    assert "".join(choice["delta"].get("content") or "" for choice in deltas) == "Yes"
    assert deltas[-1]["finish_reason"] == "stop"


async def test_arguments_that_came_as_an_object_stay_what_they_are(models: Models) -> None:
    models.use(model(*SPECS["responses"]))
    models.answers(Answer(ANSWERS["responses"]))
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    await models.json({"messages": [{"role": "assistant", "tool_calls": [call]}]})
    assert models.provider.body["input"][0]["arguments"] == '{"a":1}'


async def test_fields_that_are_null_are_not_there(models: Models) -> None:
    models.use(model(*SPECS["anthropic"]))
    models.answers(Answer(ANSWERS["anthropic"]))
    names = "stream stream_options stop tools tool_choice response_format seed n"
    absent: dict[str, Any] = dict.fromkeys(names.split())
    assert (await models.ask(absent)).status == 200


async def test_a_request_nested_too_deeply_is_the_callers_fault(models: Models) -> None:
    """What can just be read cannot be written one level further down."""
    models.use(model(*SPECS["converse"]))
    models.answers(Answer(ANSWERS["converse"]))
    found: set[int] = set()
    for depth in range(880, 1000):
        function = {"name": "f", "arguments": '{"a":' * depth + "1" + "}" * depth}
        calls = [{"id": "c", "type": "function", "function": function}]
        talk = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": calls}]
        response = await models.ask({"messages": talk})
        await response.read()
        found.add(response.status)
    assert found == {200, 400}


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("anthropic", {"n": 2}, "one answer"),
        ("anthropic", {"messages": [{"role": "system", "content": "x"}]}, "at least one message"),
        ("gemini", {"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}, "without the call"),
        ("ollama", {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]}]}, "data: URL"),
        ("converse", {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input_audio"),
        ("responses", {"messages": "x"}, "$.messages"),
        ("anthropic", {"tool_choice": 7}, "tool_choice"),
        ("anthropic", {"response_format": {"type": "json_schema", "json_schema": "x"}}, "json_schema"),
        ("responses", {"response_format": {"type": "json_schema", "json_schema": "x"}}, "json_schema"),
    ],
)  # fmt: skip
async def test_what_a_provider_cannot_do_is_refused(models: Models, name: str, body: dict[str, Any], says: str) -> None:
    models.use(model(*SPECS[name]))
    response = await models.ask({"tools": [TOOL]} | body)
    assert response.status == 400
    assert says in json.loads(await response.read())["error"]["message"]
    assert not models.provider.seen
